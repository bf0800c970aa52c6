"""Addresses and URLs as settings carry them: split, judged, and masked for anyone's eyes."""

from __future__ import annotations

import ipaddress
import re

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


def masked(text: str) -> str:
    """`text` with the password of every URL in it replaced by ***."""
    return _PASSWORD.sub(r"\1:***@", text)
