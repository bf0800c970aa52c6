"""The two listening sockets, opened by the supervisor and inherited by its children; or handed over by systemd, which
keeps them open, so that a connection made during a restart waits instead of being refused.
"""

from __future__ import annotations

import errno
import os
import socket

from taximeter.config import Settings
from taximeter.config.addresses import join, split
from taximeter.core.errors import TaximeterError

BACKLOG = 2048
_SETTINGS = ("listen", "admin_listen")
_FIRST_FD = 3
"""SD_LISTEN_FDS_START."""


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


def handed_over(settings: Settings) -> dict[str, socket.socket]:
    """The sockets of a systemd socket unit (sd_listen_fds(3)), by setting: those with FileDescriptorName= `listen` and
    `admin_listen`, else the first and the second. The variables that tell of them are taken out of the environment.

    They have to be where the settings say, because these were judged by that. Raises ListenError.
    """
    pid, count, names = (os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    if int(count) > len(_SETTINGS):
        raise ListenError(f"systemd handed over {count} sockets; there is one for each of {', '.join(_SETTINGS)}.")
    named = [name for name in names.split(":") if name in _SETTINGS]
    order = named if len(set(named)) == int(count) else _SETTINGS
    found: dict[str, socket.socket] = {}
    try:
        for place, setting in enumerate(order[: int(count)]):
            found[setting] = _given(setting, getattr(settings, setting), _FIRST_FD + place)
    except ListenError:
        for each in found.values():
            each.close()
        raise
    return found


def _given(setting: str, address: str, descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    given = socket.socket(fileno=descriptor)
    if given.family in (socket.AF_INET, socket.AF_INET6) and given.type == socket.SOCK_STREAM:
        host, port = split(address)
        wanted = {place[:2] for *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        if given.getsockname()[:2] in wanted:
            return given
        shown = address_of(given)
    else:
        shown = "no TCP port"
    given.close()
    raise ListenError(f"The socket systemd handed over is {shown}, but {setting} = {address!r}: make them the same.")


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
