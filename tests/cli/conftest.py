"""A control plane over a real SQLite history, on a real socket; and an address where nothing listens."""

import socket

import pytest

from control_plane import control, start

__all__ = ["control", "free_address", "start"]


@pytest.fixture
def free_address():
    """host:port of a bound socket that does not listen: nobody else gets it, and connecting to it is refused."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"
