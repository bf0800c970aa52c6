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
from taximeter.server.switching import Switched, Switching

if TYPE_CHECKING:
    from taximeter.config import LimitSettings

log = logging.getLogger("taximeter.server")

UNREAD_WAIT_S = 1.0
"""At the end: how long a connection may stay on which no request comes. One that comes is answered with `connection:
close`: so its client knows, and does not send the next one while we close."""
RETIRED_WAIT_S = 5.0
"""The same where another process accepts already and nobody waits for this one."""
SETTLE_S = 10.0
"""How long what was cancelled may take to end."""
BACKLOG = 2048
_LOOK_S = 0.02


class Server:
    """Serves until `stop`."""

    def __init__(
        self, handler: Handler, limits: LimitSettings, *, then: Then = at_once, websockets: Switching | None = None
    ) -> None:
        """`handler` answers each exchange (`asgi(application)` makes one), `websockets` those that ask for one. `then`:
        how bytes leave."""
        self.service = Service(handler, limits, then, websockets)
        self._sessions: set[Switched] = set() if websockets is None else websockets.sessions
        self.connections: set[Connection] = set()
        self.started = False
        self.on_started: Callable[[], None] = _nothing
        """Called once connections are accepted; a process may hook on."""
        self.on_listeners_closed: Callable[[], None] = _nothing
        """Called once no new connection can come; a process may hook on."""
        self._stop = asyncio.Event()
        self._hurry = False

    async def serve(self, sockets: list[socket.socket]) -> None:
        """Accept connections on `sockets`, which are closed at the end."""
        if self._stop.is_set():  # while it was being made ready
            for each in sockets:
                each.close()
            self.on_listeners_closed()
            return
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

    def leave(self) -> None:
        """Go on, but let each answer be its connection's last: clients find another server by the time of `stop`."""
        self.service.stopping = True

    def retire(self) -> None:
        """Accept no more: another process does. What runs may end, however long it takes, unless `stop` is called."""
        self._stop.set()

    def stop(self) -> None:
        """Accept no more and let what runs end within `limits.shutdown_s`; `serve` returns then."""
        self._hurry = True
        self._stop.set()

    async def _end(self) -> None:
        """Answer with `connection: close`, and close what is idle; what runs too long is cancelled and awaited, so that
        each call is settled."""
        service = self.service
        service.stopping = True
        if await self._emptied():
            return
        for connection in self._open():
            connection.shutdown()
        log.error("Cancelled after limits.shutdown_s: %d requests", len(service.runs))
        for run in tuple(service.runs):
            run.cancel()
        await _until(lambda: not service.runs, SETTLE_S)

    def _open(self) -> tuple[Connection | Switched, ...]:
        return (*self.connections, *self._sessions)

    async def _emptied(self) -> bool:
        """Whether all connections came to their end by themselves. Looked at again and again: a connection that never
        sends a request has no event for it."""
        now_s = asyncio.get_running_loop().time
        began_s = hurried_s = now_s()
        hurry = self._hurry
        while self.connections or self.service.runs:
            if self._hurry and not hurry:
                hurry, hurried_s = True, now_s()
            if hurry and now_s() >= hurried_s + self.service.limits.shutdown_s:
                return False
            wait_s = UNREAD_WAIT_S if hurry else RETIRED_WAIT_S
            if now_s() >= began_s + wait_s:
                for connection in self._open():
                    connection.end_if_idle(now_s() - wait_s)
            await asyncio.sleep(_LOOK_S)
        return True


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
