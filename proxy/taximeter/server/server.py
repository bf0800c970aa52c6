"""Serves one handler on inherited sockets, with an orderly start and end; used by workers and by the control process.

The caller owns signals and the loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from taximeter.server.client import Then, at_once
from taximeter.server.connection import Connection
from taximeter.server.exchange import Handler, Service
from taximeter.server.keepalive import keepalive

if TYPE_CHECKING:
    from taximeter.config import LimitSettings

log = logging.getLogger("taximeter.server")

UNREAD_WAIT_S = 1.0
"""At the end: how long a connection may stay that was accepted but has not sent its request yet."""
SETTLE_S = 10.0
"""How long what was cancelled may take to end."""
BACKLOG = 2048
_LOOK_S = 0.02


class Server:
    """Serves until `stop`."""

    def __init__(self, handler: Handler, limits: LimitSettings, *, then: Then = at_once) -> None:
        """`handler` answers each exchange (`asgi(application)` makes one). `then`: how bytes leave."""
        self.service = Service(handler, limits, then)
        self.connections: set[Connection] = set()
        self.started = False
        self.on_started: Callable[[], None] = _nothing
        """Called once connections are accepted; a process may hook on."""
        self.on_listeners_closed: Callable[[], None] = _nothing
        """Called once no new connection can come; a process may hook on."""
        self._stop = asyncio.Event()

    async def serve(self, sockets: list[socket.socket]) -> None:
        """Accept connections on `sockets`, which are closed at the end."""
        loop = asyncio.get_running_loop()
        limits = self.service.limits
        for each in sockets:
            for option in keepalive(limits.tcp_keepalive_s, limits.tcp_user_timeout_s):
                each.setsockopt(*option)  # inherited by what it accepts
        listeners = [await loop.create_server(self.connection, sock=listener, backlog=BACKLOG) for listener in sockets]
        self.started = True
        self.on_started()
        await self._stop.wait()
        for listener in listeners:
            listener.close()
        for each in sockets:
            each.close()
        self.on_listeners_closed()
        await self._end()

    def connection(self) -> Connection:
        """One more, which is to be connected yet."""
        return Connection(self.service, self.connections)

    def stop(self) -> None:
        """Accept no more and let what runs end; `serve` returns then."""
        self._stop.set()

    async def _end(self) -> None:
        """Answer with `connection: close`, give unread connections a moment, and running answers `limits.shutdown_s`.

        What is still running then is cancelled and awaited, so that each call is settled.
        """
        service, connections = self.service, self.connections
        service.stopping = True
        await _until(lambda: not any(connection.unread for connection in connections), UNREAD_WAIT_S)
        for connection in tuple(connections):
            connection.shutdown()
        if not await _until(lambda: not connections and not service.runs, service.limits.shutdown_s):
            log.error("Cancelled after limits.shutdown_s: %d requests", len(service.runs))
            for run in tuple(service.runs):
                run.cancel()
            await _until(lambda: not service.runs, SETTLE_S)


async def _until(met: Callable[[], bool], within_s: float) -> bool:
    """Whether it has come true. Asked again and again: neither a connection nor a run has an event for its end."""
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    while not met():
        if loop.time() >= until:
            return False
        await asyncio.sleep(_LOOK_S)
    return True


def _nothing() -> None:
    pass
