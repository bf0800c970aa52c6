"""Header fields that belong to one connection, not to the message (RFC 9110 §7.6.1)."""

from __future__ import annotations

HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization",
        b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
"""Headers of one connection, not of the message (RFC 9110 §7.6.1): never relayed, in either direction."""
_UPGRADE_FIELDS = (b"upgrade", b"http2-settings")


def named_by(connection: bytes) -> set[bytes]:
    """The lower-case names in a Connection header's value."""
    return {token.strip(b" \t").lower() for token in connection.split(b",")}


def asks_for_websocket(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a head that offers an upgrade offers a WebSocket (RFC 6455 §4.1)."""
    return any(name == b"upgrade" and b"websocket" in named_by(value) for name, value in headers)


def without_upgrade(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The fields of a head as bytes again, as if it had offered no upgrade; what else `Connection` says stays."""
    lines = []
    for name, value in headers:
        if name == b"connection":
            kept = b", ".join(sorted(named_by(value).difference(_UPGRADE_FIELDS)))
            if kept:
                lines.append(b"connection: %b\r\n" % kept)
        elif name not in _UPGRADE_FIELDS:
            lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines) + b"\r\n"
