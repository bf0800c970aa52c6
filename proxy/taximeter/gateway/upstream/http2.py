"""The upstream seam over HTTP/2 (`http2 = true`): connections with room for a stream, and what may be sent again.

Where TLS does not agree on HTTP/2, HTTP/1.1 is spoken. Knows nothing of providers or metering.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from hpack.struct import NeverIndexedHeaderTuple

from taximeter import config
from taximeter.core import loops
from taximeter.core.errors import BadRequest, UpstreamTimeout
from taximeter.gateway.upstream.credentials import HEADERS
from taximeter.gateway.upstream.dial import Dialer, unreachable
from taximeter.gateway.upstream.endpoint import Address, host_header
from taximeter.gateway.upstream.http2_connection import Http2Connection
from taximeter.gateway.upstream.http2_stream import NotProcessed
from taximeter.gateway.upstream.opening import Body, Kept, Transport, origin_of
from taximeter.gateway.upstream.response import Response
from taximeter.gateway.upstream.terms import terms_of
from taximeter.server.client import Then
from taximeter.server.inline import in_task
from taximeter.server.keepalive import keepalive

TRIES = 5
"""So often a request is sent that the upstream says it did nothing with."""
_WITH_BODY = frozenset({b"POST", b"PUT", b"PATCH"})
_SECRET = HEADERS | {b"cookie"}
"""Kept out of the memory of header compression, which the calls of all clients share."""


class Http2Transport:
    """One origin."""

    def __init__(
        self,
        settings: config.UpstreamSettings,
        origin: Address,
        then: Then,
        http1: Callable[[], Transport],
        mark: bytes = b"",
    ) -> None:
        """`http1()`: what speaks HTTP/1.1 to it. `mark`: see `core.loops`."""
        self._settings = settings
        self._first = [
            (b":scheme", b"https" if origin[0] == "https" else b"http"),
            (b":authority", host_header(origin)),
        ]
        self._fixed = [(b"accept-encoding", b"identity"), *([(loops.HEADER, mark)] if mark else [])]
        options = keepalive(settings.tcp_keepalive_s, settings.tcp_user_timeout_s)
        self._dialer = Dialer(origin_of(settings, origin, "h2", "http/1.1"), settings.dns_lifetime_s, options)
        self._terms, self._beat_s = terms_of(
            settings.name, settings.first_byte_timeout_s, settings.idle_timeout_s, settings.keep_alive_s, then
        )
        self._http1 = http1
        self._other: Transport | None = None
        self._live: set[Http2Connection] = set()
        self._dialing = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._beat: asyncio.TimerHandle | None = None
        self.opened = 0
        """Connections opened so far."""

    async def send(self, method: bytes, target: bytes, kept: Kept, body: Body, length: int | None) -> Response:
        """See `upstream.Transport`. What the upstream says it did nothing with is sent again, if it is here whole."""
        headers = kept.fields
        if any(b"\n" in value or b"\r" in value or b"\0" in value for _, value in headers):
            raise BadRequest("A header holds a line break.")
        fields = [(b":method", method), *self._first, (b":path", target), *self._fixed]
        fields += [NeverIndexedHeaderTuple(*field) if field[0] in _SECRET else field for field in headers]
        if isinstance(body, bytes) and (body or method in _WITH_BODY):
            length = len(body)
        if length is not None:
            fields.append((b"content-length", b"%d" % length))
        tries = TRIES
        while True:
            connection = (self._free() if not self._waiting else None) or await self._one()
            if connection is None:
                assert self._other is not None  # noqa: S101
                return await self._other.send(method, target, kept, body, length)
            tries -= 1
            try:
                return await connection.open(fields, body, length).head()
            except NotProcessed:
                if not tries or not isinstance(body, bytes):
                    raise

    async def close(self) -> None:
        """Drop every connection."""
        for connection in tuple(self._live):
            connection.close()
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        if self._other is not None:
            await self._other.close()
        await asyncio.sleep(0)

    # Which connection.

    def _free(self) -> Http2Connection | None:
        return next((each for each in self._live if each.free), None)

    async def _one(self) -> Http2Connection | None:
        """One with room, a new one, or at the cap the next that has room; None: HTTP/1.1 is spoken.

        Raises UpstreamUnreachable, UpstreamTimeout, UpstreamGarbage (nothing has been sent then).
        """
        await in_task()
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                while self._other is None:
                    free = self._free()
                    if free is not None:
                        return free
                    if self._may_dial():
                        await self._dial()
                    else:
                        await self._news()
                return None
        except TimeoutError:
            busy = " All streams of its connections are in use." if self._live else ""
            raise UpstreamTimeout(
                f"No connection to upstream {self._settings.name!r} within the connect timeout.{busy}"
            ) from None
        except (OSError, UnicodeError) as error:
            raise unreachable(self._settings.name, error) from error

    def _may_dial(self) -> bool:
        """At most one at a time, and not beside one that carries nothing and yet allows nothing more."""
        new = [each for each in self._live if not each.retired]
        return not self._dialing and len(new) < self._settings.max_connections and all(each.streams for each in new)

    async def _dial(self) -> None:
        self._dialing = True
        try:
            connection = await self._dialer.dial(lambda: Http2Connection(self, self._terms))
            self.opened += 1
            if not connection.negotiated:
                connection.abort()
                self._other = self._http1()
                return
            self._live.add(connection)
            if self._beat is None:
                self._beat = asyncio.get_running_loop().call_later(self._beat_s, self._tick)
            try:
                await asyncio.shield(connection.ready)
            except BaseException:
                connection.close()
                self._live.discard(connection)
                raise
        finally:
            self._dialing = False
            self._wake(len(self._waiting))

    async def _news(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():  # told in the moment we left
                self._wake(1)
            raise

    def _wake(self, number: int) -> None:
        while number and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                number -= 1

    # What connections and the clock call.

    def freed(self) -> None:
        self._wake(1)

    def changed(self) -> None:
        self._live = {each for each in self._live if not each.closed}
        self._wake(len(self._waiting))

    def _tick(self) -> None:
        for connection in tuple(self._live):
            connection.tick()
        self._beat = asyncio.get_running_loop().call_later(self._beat_s, self._tick) if self._live else None
