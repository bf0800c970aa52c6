"""How an upstream is reached: what every transport does, and the pool of connections of the usual one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Protocol

from taximeter import config
from taximeter.core.errors import BadRequest
from taximeter.gateway.upstream.dial import Origin, tls_context
from taximeter.gateway.upstream.endpoint import Address
from taximeter.gateway.upstream.pool import Pool
from taximeter.gateway.upstream.response import Response
from taximeter.server.client import Then
from taximeter.server.keepalive import keepalive

Headers = list[tuple[bytes, bytes]]
Body = bytes | AsyncIterator[bytes]
_as_line = b": ".join


class Kept:
    """What of a client's headers goes on to one upstream: without framing and Host. Of requests that repeat a head the
    same."""

    __slots__ = ("begins", "fields")

    def __init__(self, fields: Headers) -> None:
        self.fields = fields
        self.begins = b""
        """How a request of HTTP/1.1 with them begins, up to its framing; b"": nobody has asked for it yet."""

    def lines(self) -> bytes:
        """As HTTP/1.1 has them. Raises BadRequest where that would not be what they are."""
        if not self.fields:
            return b""
        lines = b"\r\n".join(map(_as_line, self.fields)) + b"\r\n"
        breaks = len(self.fields)
        if lines.count(b"\n") != breaks or lines.count(b"\r") != breaks:
            raise BadRequest("A header holds a line break.")
        return lines


class Transport(Protocol):
    """How a request gets to one origin."""

    def send(self, method: bytes, target: bytes, kept: Kept, body: Body, length: int | None) -> Awaitable[Response]:
        """Send a request, await its answer's head. `length`: a streamed body's. The same `kept` has the same target.

        Raises BadRequest, also when it is awaited; UpstreamUnreachable, UpstreamTimeout, UpstreamGarbage with `sent`
        set.
        """

    async def close(self) -> None:
        """Drop every connection."""


def origin_of(settings: config.UpstreamSettings, address: Address, *protocols: str) -> Origin:
    """Where an address leads. `protocols`: what may be spoken over TLS, the best first."""
    scheme, host, port = address
    if scheme == "unix":
        return Origin("localhost", 0, socket_path=host)
    return Origin(host, port, tls_context(settings, *protocols) if scheme == "https" else None)


def pool_of(settings: config.UpstreamSettings, origin: Address, then: Then) -> Pool:
    """Connections to this origin, by these settings."""
    return Pool(
        origin_of(settings, origin, "http/1.1"),
        name=settings.name,
        connect_timeout_s=settings.connect_timeout_s,
        first_byte_timeout_s=settings.first_byte_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        max_connections=settings.max_connections,
        keep_alive_s=settings.keep_alive_s,
        dns_lifetime_s=settings.dns_lifetime_s,
        socket_options=keepalive(settings.tcp_keepalive_s, settings.tcp_user_timeout_s),
        then=then,
    )
