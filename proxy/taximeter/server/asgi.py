"""ASGI applications on our connections: the control plane, the demo's provider. As much of ASGI 3 as HTTP needs.

The specification: https://asgi.readthedocs.io/en/latest/specs/www.html. No lifespan: what serves an application has
made and will close what it works with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from taximeter.core.errors import RequestError
from taximeter.server.exchange import ClientLeft, Exchange, Handler
from taximeter.server.inline import in_task

Message = MutableMapping[str, Any]
Application = Callable[[Any, Any, Any], Awaitable[None]]
_OF_THE_CONNECTION = (b"connection", b"transfer-encoding")


def asgi(application: Application) -> Handler:
    """A handler of exchanges that asks `application`."""

    async def handle(exchange: Exchange) -> None:
        await in_task()  # which applications expect to run in
        conversation = _Conversation(exchange)
        await application(_scope(exchange), conversation.receive, conversation.send)

    return handle


def _scope(exchange: Exchange) -> Message:
    path = exchange.path.decode("latin-1")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": exchange.version,
        "method": exchange.method.decode("ascii"),
        "scheme": "http",
        "path": unquote(path) if "%" in path else path,
        "raw_path": exchange.path,
        "query_string": exchange.query,
        "root_path": "",
        "headers": exchange.headers,
        "client": exchange.address("peername"),
        "server": exchange.address("sockname"),
        "state": {},
    }


class _Conversation:
    """`receive` and `send` of one request."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._body_is_read = False
        self._refused = False
        self._over = asyncio.Event()
        """The client has left, or has all of its answer."""
        exchange.on_left = self._over.set

    async def receive(self) -> Message:
        """The next part of the request's body; behind it, when the client has left or has its answer, that it has."""
        exchange = self._exchange
        if not self._body_is_read and not self._over.is_set():
            try:
                part = await exchange.part()
            except ClientLeft:
                self._over.set()
            except RequestError as error:  # it does not go on
                if not exchange.response_started:
                    exchange.answer(error.status, error.headers(), error.body())
                self._refused = True
                self._over.set()
            else:
                self._body_is_read = not part
                return {"type": "http.request", "body": part, "more_body": bool(part)}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """The answer's head, or a part of its body. Silent once the client has gone; RuntimeError in a wrong order."""
        exchange = self._exchange
        if exchange.paused:
            await exchange.drain()
        if exchange.left or self._refused:
            return
        if message["type"] == "http.response.start":
            headers = [(name.lower(), value) for name, value in message.get("headers", ())]
            if any(name == b"connection" and b"close" in value.lower() for name, value in headers):
                exchange.keep_alive = False
            kept = [field for field in headers if field[0] not in _OF_THE_CONNECTION]
            exchange.start(message["status"], kept)
        elif message.get("more_body", False):
            exchange.write(message.get("body", b""))
        else:
            exchange.end(message.get("body", b""))
            self._over.set()
