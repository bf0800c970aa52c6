"""What a head's Connection field names, and a head without an offered upgrade."""

from __future__ import annotations

_UPGRADE_FIELDS = (b"upgrade", b"http2-settings")


def named_by(connection: bytes) -> set[bytes]:
    """The lower-case names in a Connection header's value."""
    return {token.strip(b" \t").lower() for token in connection.split(b",")}


def without_upgrade(method: bytes, target: bytes, version: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """A request's head as bytes again, as if it had offered no upgrade; what else `Connection` says stays."""
    head = [method, b" ", target, b" HTTP/", version, b"\r\n"]
    for name, value in headers:
        if name == b"connection":
            kept = b", ".join(sorted(named_by(value).difference(_UPGRADE_FIELDS)))
            if kept:
                head += name, b": ", kept, b"\r\n"
        elif name not in _UPGRADE_FIELDS:
            head += name, b": ", value, b"\r\n"
    head.append(b"\r\n")
    return b"".join(head)
