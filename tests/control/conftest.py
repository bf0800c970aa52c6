"""A control plane over a real SQLite history, on a real socket."""

from control_plane import control, start

__all__ = ["control", "start"]
