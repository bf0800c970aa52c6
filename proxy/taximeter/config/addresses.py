"""Addresses and URLs as settings carry them: split, judged, and masked for anyone's eyes."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"http": 80, "https": 443}
_LOOPBACK: list[IPAddress] = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
_PASSWORD = re.compile(r"(?<=://)([^/@:\s]*):([^/@\s]+)@")


def split(address: str) -> tuple[str, int]:
    """`host:port` -> (host, port); `[::1]:8000` -> ("::1", 8000). Raises ValueError saying what is wrong."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("it must be host:port with a port from 0 to 65535, for example 127.0.0.1:8000")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address needs brackets, for example [::1]:8000")
    if not host:
        raise ValueError("name the address to listen on: 127.0.0.1 for this machine only, 0.0.0.0 for all")
    return host, int(port)


def join(host: str, port: int) -> str:
    """The reverse of `split`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. A name other than localhost counts as reachable."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def leads_to(url: str, listen: str, resolved: Iterable[str] = ()) -> bool:
    """Whether who follows a URL arrives where this machine listens, at `listen` (`host:port`).

    Told by addresses, `localhost` and this machine's own name; `resolved`: what else the URL's host stands for.
    """
    parts, (listening, port) = urlsplit(url), split(listen)
    if not port or (parts.port or _PORTS.get(parts.scheme)) != port:
        return False
    led = [address for host in (parts.hostname or "", *resolved) for address in _addresses(host)]
    if any(address.is_unspecified for address in led):  # a connection to 0.0.0.0 goes to this machine
        led += _LOOPBACK
    places = _addresses(listening)
    everywhere = {place.version for place in places if place.is_unspecified}
    if 6 in everywhere:  # [::] takes IPv4 as well
        everywhere.add(4)
    return any(address in places or (address.version in everywhere and _is_own(address)) for address in led)


def _addresses(host: str) -> list[IPAddress]:
    """What a host stands for as far as this machine knows by itself."""
    host, own = host.lower().rstrip("."), socket.gethostname().lower()
    if host == "localhost" or host.endswith(".localhost"):
        return _LOOPBACK
    try:
        if host in (own, own.partition(".")[0]):
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            return [ipaddress.ip_address(place[0]) for *_, place in found]
        packed = host if ":" in host else socket.inet_aton(host)  # also 127.1 and 0x7f000001
        address = ipaddress.ip_address(packed)
    except (OSError, ValueError):
        return []
    return [getattr(address, "ipv4_mapped", None) or address]


def _is_own(address: IPAddress) -> bool:
    """Whether an address is one of this machine's: only then can a socket be bound to it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def masked(text: str) -> str:
    """`text` with the password of every URL in it replaced by ***."""
    return _PASSWORD.sub(r"\1:***@", text)
