from control_plane import control, start

__all__ = ["control", "start"]
