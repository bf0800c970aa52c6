"""The two listening sockets, opened by the supervisor and inherited by its children."""

from __future__ import annotations

import errno
import socket

from taximeter.config.addresses import join, split
from taximeter.core.errors import TaximeterError

BACKLOG = 2048


class ListenError(TaximeterError):
    """A port cannot be opened; the message names the setting and the port."""


def listen(setting: str, address: str) -> socket.socket:
    """A listening socket for the setting's `host:port`.

    Without SO_REUSEPORT: a second Taximeter on the same port fails here instead of silently sharing its calls.
    Raises ListenError.
    """
    host, port = split(address)
    try:
        family, kind, proto, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise ListenError(f"{setting} = {address!r}: {error.strerror}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"{setting} = {address!r}: {_why(error, port, setting)}") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """host:port, with the port it really has."""
    host, port = listener.getsockname()[:2]
    return join(host, port)


def _why(error: OSError, port: int, setting: str) -> str:
    variable = f"TAXIMETER_{setting.upper()}"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use by another program. Stop it, or set {setting} ({variable}) to another port."
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges this user does not have. Set {setting} ({variable}) to one over 1023."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no such address. Set {setting} ({variable}) to one of its own."
    return f"{error.strerror}."
