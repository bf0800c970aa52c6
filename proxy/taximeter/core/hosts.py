"""Which Host and Origin a port accepts: the guard against DNS rebinding and cross-site posts, for both ports.

A page on the web can make a browser call a service on the user's own machine. It cannot make the browser send a
Host it did not resolve nor hide its Origin, so both are checked (DESIGN §7). Must not know frameworks or sockets.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from taximeter.core.errors import BadRequest, Forbidden

_REMEMBERED = 64
"""Accepted Host values remembered as bytes, so that the usual call costs one set look-up; bounded against a flood."""


class Hosts:
    """The names a port goes by.

    Accepted as Host: an IP address (a rebound name is never one), `localhost` and its subdomains, and `allowed`:
    names, `*.example.org` patterns, or `*` for any Host and any Origin. Accepted as Origin: the Host itself (same
    origin), a loopback name or address, or an `allowed` name. A foreign page on a bare IP address is thus refused by
    its Origin.
    """

    def __init__(self, allowed: Iterable[str] = (), *, origins_setting: str = "control.allowed_hosts") -> None:
        """`origins_setting`: where an Origin can be allowed, for whoever is refused."""
        self._origins_setting = origins_setting
        names = [name.strip().lower().rstrip(".") for name in allowed]
        self._any = "*" in names
        self._names = frozenset(name for name in names if not name.startswith("*"))
        self._suffixes = tuple(name[1:] for name in names if name.startswith("*."))
        self.accepted: set[bytes] = set()
        """Some of the Host values let through so far: a request with one of them, and no Origin, needs no `check`."""

    def check(self, host: bytes | None, origin: bytes | None = None) -> None:
        """Let a request through, or raise BadRequest (no Host, not a Host) or Forbidden (not one of ours).

        `host` and `origin` are the header values as they came, None where the header is missing.
        """
        if self._any:
            if host is not None:
                self._remember(host)
            return
        if host is None:
            raise BadRequest("The request has no Host header.", param="host")
        if host not in self.accepted:
            self._check_host(host)
        if origin is not None:
            self._check_origin(origin, host)

    def _check_host(self, host: bytes) -> None:
        name = _name(host)
        if name is None:
            raise BadRequest("The Host header is not a host name with an optional port.", param="host")
        if not (_is_address(name) or self._knows(name)):
            raise Forbidden(
                f"Host {name[:80]!r} is not one of this port's names. Add it to control.allowed_hosts.", param="host"
            )
        self._remember(host)

    def _remember(self, host: bytes) -> None:
        if len(self.accepted) < _REMEMBERED:
            self.accepted.add(host)

    def _check_origin(self, origin: bytes, host: bytes) -> None:
        authority = origin.partition(b"://")[2]
        if authority and authority.lower() == host.lower():
            return
        name = _name(authority) if authority else None
        if name is not None and (is_loopback(name) or self._knows(name)):
            return
        shown = origin[:80].decode("latin-1")
        raise Forbidden(
            f"Requests from the origin {shown!r} are refused. Add it to {self._origins_setting}.", param="origin"
        )

    def _knows(self, name: str) -> bool:
        return is_loopback(name) or name in self._names or name.endswith(self._suffixes)


def is_loopback(host: str) -> bool:
    """Whether a name or address (without port or brackets) is this machine's loopback; a malformed one is not."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _name(authority: bytes) -> str | None:
    """The host in `host[:port]` or `[v6][:port]`, in lower case and without a last dot; None if it is neither."""
    try:
        text = authority.decode("ascii").lower()
    except UnicodeDecodeError:
        return None
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        if not bracket or not (port == "" or (port[:1] == ":" and port[1:].isdigit())):
            return None
        return name or None
    name, colon, port = text.partition(":")
    if colon and not port.isdigit():
        return None
    name = name.removesuffix(".")
    plain = name.replace("-", "").replace(".", "").replace("_", "")
    return name if plain.isalnum() else None
