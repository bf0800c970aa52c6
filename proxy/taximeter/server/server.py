"""uvicorn's server with an orderly start and end; used by workers and by the control process.

The caller owns signals and the loop; what a connection may send is `guard`'s, and for the data plane `edge`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import uvicorn

from taximeter.core.errors import AnswerCut, TaximeterError
from taximeter.server.connection import Guard, Then, at_once
from taximeter.server.uploads import Held

if TYPE_CHECKING:
    from taximeter.config import Limits

UNREAD_WAIT_S = 1.0
"""At the end: how long a connection may stay that was accepted but has not sent its request yet."""
_SETTLE_S = 10.0
_CLOSE = (b"connection", b"close")


class Server(uvicorn.Server):
    """Serves one application on one inherited socket until `stop`."""

    def __init__(
        self, app: Any, limits: Limits, *, connection: type[Guard] = Guard, then: Then = at_once, lifespan: bool = False
    ) -> None:
        """`app` is an ASGI application, or with `connection=Edge` a handler of exchanges. `then`: see `Guard`."""
        config = uvicorn.Config(
            app,
            http=type(
                connection.__name__, (connection,), {"limits": limits, "held": Held(), "then": staticmethod(then)}
            ),
            ws="none",
            interface="asgi3",
            lifespan="on" if lifespan else "off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=limits.keep_alive_s,  # type: ignore[arg-type]  # call_later takes any number
            timeout_graceful_shutdown=limits.shutdown_s,  # type: ignore[arg-type]
        )
        super().__init__(config)
        self.server_state.tasks = _Tasks()
        self._stop = asyncio.Event()
        logging.getLogger("uvicorn.error").addFilter(_is_news)

    capture_signals = contextlib.nullcontext  # type: ignore[assignment]
    """uvicorn's raises SIGTERM again after `serve`, which would end the process before it has flushed."""

    def stop(self) -> None:
        """Accept no more and let what runs end; `serve` returns then."""
        self.should_exit = True
        self._stop.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's; then connections are accepted."""
        await super().startup(sockets)
        self.on_started()

    async def main_loop(self) -> None:
        """uvicorn's wakes ten times a second to renew a Date header, which an upstream's answer brings itself."""
        await self._stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listeners, answer with `connection: close`, give unread connections a moment, then uvicorn's own.

        What is still running after `limits.shutdown_s` is cancelled and awaited, so that each call is settled.
        """
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        self.on_listeners_closed()
        self.server_state.default_headers.append(_CLOSE)  # in place: cycles hold this very list
        loop = asyncio.get_running_loop()
        until = loop.time() + UNREAD_WAIT_S
        while loop.time() < until and any(  # noqa: ASYNC110 - a connection has no event for this
            connection.cycle is None or connection.cycle.response_complete
            for connection in self.server_state.connections
            if isinstance(connection, Guard)
        ):
            await asyncio.sleep(0.02)
        await super().shutdown()
        until = loop.time() + _SETTLE_S
        while self.server_state.tasks and loop.time() < until:  # noqa: ASYNC110 - some are runs, not tasks
            await asyncio.sleep(0.02)

    def on_started(self) -> None:
        """Called once connections are accepted; a process may hook on."""

    def on_listeners_closed(self) -> None:
        """Called once no new connection can come; a process may hook on."""


class _Tasks(set[Any]):
    """What is in progress. uvicorn cancels it in a loop, and a run that is cancelled may leave that very moment."""

    def __iter__(self) -> Iterator[Any]:
        return iter(tuple(super().__iter__()))


def _is_news(entry: logging.LogRecord) -> bool:
    """Drop what is expected: an upstream's cut is signalled by raising, a stop by cancelling."""
    error = entry.exc_info[1] if entry.exc_info else None
    if isinstance(error, Exception) and isinstance(error.__cause__, AnswerCut):  # Litestar wraps what cuts an answer
        error = error.__cause__
    return not isinstance(error, (TaximeterError, asyncio.CancelledError))
