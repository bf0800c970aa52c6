"""Connections to one origin: kept alive, last in first out, capped, with one coarse clock for all their timeouts.

Knows nothing of HTTP; what may go back into the pool is decided by `wire`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from time import monotonic

from taximeter.core.errors import UpstreamTimeout
from taximeter.gateway.upstream.dial import Dialer, Origin, unreachable
from taximeter.gateway.upstream.idleness import Idleness
from taximeter.gateway.upstream.terms import terms_of
from taximeter.gateway.upstream.wire import WireConnection
from taximeter.server.client import Then, at_once
from taximeter.server.inline import in_task

log = logging.getLogger("taximeter.upstream")

KEEP_ALIVE_S = 50.0
"""Idle connections are closed by us before common servers close them under a request (ALB 60 s, nginx 75 s)."""


class Pool:
    """`take()` an idle connection or `await connect()`; a WireConnection gives itself back with `release` or `lost`."""

    def __init__(
        self,
        origin: Origin,
        *,
        name: str,
        connect_timeout_s: float = 10.0,
        first_byte_timeout_s: float = 1_200.0,
        idle_timeout_s: float = 1_200.0,
        max_connections: int = 1_000,
        keep_alive_s: float = KEEP_ALIVE_S,
        dns_lifetime_s: float = 30.0,
        socket_options: Iterable[tuple[int, int, int]] = (),
        then: Then = at_once,
    ) -> None:
        """`then`: see `Journal.after_written`; no request leaves before its line is written."""
        self.origin = origin
        self.name = name
        self._dialer = Dialer(origin, dns_lifetime_s, socket_options)
        self._connect_timeout_s = connect_timeout_s
        self._max_connections = max_connections
        self._terms, self._beat_s = terms_of(name, first_byte_timeout_s, idle_timeout_s, keep_alive_s, then)
        self._idleness = Idleness()
        self._idle: list[WireConnection] = []
        self._live: set[WireConnection] = set()
        self._slots = max_connections
        """How many more connections may be opened."""
        self._waiting: deque[asyncio.Future[WireConnection | None]] = deque()
        self._beat: asyncio.TimerHandle | None = None
        self.opened = 0
        """Connections opened so far."""

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def live(self) -> int:
        return len(self._live)

    def take(self) -> WireConnection | None:
        """The idle connection used last that still stands; None: `connect()`."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.usable():
                return connection
            connection.abort()
        return None

    async def connect(self) -> WireConnection:
        """A new connection or, at the cap, the next one that becomes free.

        Raises UpstreamUnreachable, UpstreamTimeout (nothing has been written then).
        """
        await in_task()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                while not self._slots:
                    connection = await self._next_free()
                    if connection is not None and connection.usable():
                        return connection
                    if connection is not None:
                        connection.abort()
                self._slots -= 1
                try:
                    return await self._open()
                except BaseException:
                    self._free_slot()
                    raise
        except TimeoutError:
            full = "" if self._slots else f" All {self._max_connections} connections may be in use."
            raise UpstreamTimeout(
                f"No connection to upstream {self.name!r} within the connect timeout.{full}"
            ) from None
        except (OSError, UnicodeError) as error:
            raise unreachable(self.name, error) from error

    async def _open(self) -> WireConnection:
        connection = await self._dialer.dial(lambda: WireConnection(self, self._terms))
        if connection.closed:
            raise ConnectionResetError("closed at once")
        self._live.add(connection)
        self.opened += 1
        if self._beat is None:
            self._beat = asyncio.get_running_loop().call_later(self._beat_s, self._tick)
        return connection

    async def _next_free(self) -> WireConnection | None:
        """Wait for a released connection, or (None) for leave to open one."""
        waiter: asyncio.Future[WireConnection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():  # given to us in the moment we left
                given = waiter.result()
                if given is None:
                    self._wake(None)
                else:
                    self.release(given)
            raise

    def release(self, connection: WireConnection) -> None:
        """A connection whose answer is complete and clean."""
        if self._waiting and self._wake(connection):
            return
        self._idle.append(connection)

    def lost(self, connection: WireConnection) -> None:
        """A connection has ended; may be called more than once."""
        if connection in self._live:
            self._live.remove(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._free_slot()

    def closed_idle(self, idle_s: float) -> None:
        """The upstream has closed an idle connection: how long it keeps them shows."""
        kept_s = self._idleness.closed(monotonic(), idle_s)
        if kept_s is None or kept_s >= self._terms.keep_alive_s:
            return
        self._terms.keep_alive_s = kept_s
        for connection in self._idle:
            connection.keep(kept_s)
        log.info(
            "upstream %s closes idle connections after about %.3g s: they are used for %.3g s now (keep_alive_s)",
            self.name, idle_s, kept_s,
        )  # fmt: skip

    def _free_slot(self) -> None:
        self._slots += 1
        self._wake(None)

    def _wake(self, connection: WireConnection | None) -> bool:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    def _tick(self) -> None:
        for connection in tuple(self._live):
            connection.tick()
        self._beat = asyncio.get_running_loop().call_later(self._beat_s, self._tick) if self._live else None

    async def close(self) -> None:
        """Drop every connection, also those in use."""
        for connection in tuple(self._live):
            connection.abort()
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        await asyncio.sleep(0)  # transports close their sockets in the next turn
