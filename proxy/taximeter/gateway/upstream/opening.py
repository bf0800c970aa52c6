"""How an upstream is reached: what every transport does, and the pool of connections of the usual one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from taximeter import config
from taximeter.gateway.upstream.dial import Origin, tls_context
from taximeter.gateway.upstream.endpoint import Address
from taximeter.gateway.upstream.pool import Pool
from taximeter.gateway.upstream.response import Response
from taximeter.server.client import Then
from taximeter.server.keepalive import keepalive

Headers = list[tuple[bytes, bytes]]
Body = bytes | AsyncIterator[bytes]


class Transport(Protocol):
    """How a request gets to one origin."""

    async def send(self, method: bytes, target: bytes, headers: Headers, body: Body, length: int | None) -> Response:
        """`headers`: filtered, without framing and Host; this call may add to the list. `length`: a streamed body's.

        Raises UpstreamUnreachable, UpstreamTimeout, UpstreamGarbage with `sent` set.
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
