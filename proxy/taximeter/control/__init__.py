"""The control plane: the Litestar application on its own port, with delivery beside it in one process."""
