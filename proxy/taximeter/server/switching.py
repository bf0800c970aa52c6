"""A connection that speaks HTTP no more: the answer 101, and what takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from taximeter.server.exchange import STATUS_LINE, Exchange, Headers


class Switched(asyncio.Protocol):
    """What a connection has become; a server ends it as it ends its connections."""

    __slots__ = ()

    def shutdown(self) -> None:
        """The server is stopping, and waits no longer."""

    def end_if_idle(self, since_s: float) -> None:
        """The server is stopping: end where nothing is under way."""


class Switching(Protocol):
    """A handler of requests for a WebSocket. A request's run goes on as long as its session does."""

    sessions: set[Switched]
    """Those that last."""

    def __call__(self, exchange: Exchange) -> Coroutine[Any, Any, None]: ...


def switch(exchange: Exchange, headers: Headers, protocol: Switched) -> bytes:
    """Answer 101 and hand the connection over; returns what the client has sent behind its request already.

    `headers`: all of the answer's, names in lower case.
    """
    fields = b"".join([b"%b: %b\r\n" % field for field in headers])
    head = b"%bconnection: Upgrade\r\nupgrade: websocket\r\n%b\r\n" % (STATUS_LINE[101], fields)
    exchange.client.then(exchange.client.write, head)
    exchange.response_started = exchange.response_complete = True
    return exchange.carrier.become(protocol)
