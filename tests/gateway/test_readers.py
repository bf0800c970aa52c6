"""Clients that do not take their answers: cut off on both ports after `limits.client_idle_s`, others never."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from taximeter.config import LimitSettings
from taximeter.server.asgi import asgi
from taximeter.server.exchange import Exchange, Handler
from taximeter.server.server import Server
from waits import HANG_S, happens

PART = b"x" * 50_000
PARTS = 40
LENGTH = [(b"content-length", b"%d" % (len(PART) * PARTS))]
ASK = b"GET /a HTTP/1.1\r\nHost: a\r\n%b\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": LENGTH})
    for number in range(1, PARTS + 1):
        await send({"type": "http.response.body", "body": PART, "more_body": number < PARTS})


async def held_back(exchange: Exchange) -> None:
    exchange.start(200, LENGTH)
    for _ in range(PARTS):
        if exchange.paused:
            await exchange.drain()
        exchange.write(PART)
    exchange.end()


async def at_once(exchange: Exchange) -> None:
    """Complete before anything of it was taken: the connection is only closing, or waits for another request."""
    exchange.answer(200, LENGTH, PART * PARTS)


class Served:
    def __init__(self, handler: Handler, client_idle_s: float) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)  # the kernel's own buffers hold little
        self.server = Server(handler, LimitSettings(client_idle_s=client_idle_s, keep_alive_s=60))

    async def __aenter__(self) -> Served:
        self.task = asyncio.create_task(self.server.serve([self.listener]))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.stop()
        await asyncio.wait_for(self.task, HANG_S)
        self.listener.close()

    async def ask(self, more: bytes) -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, self.listener.getsockname())
        await loop.sock_sendall(client, ASK % more)
        return client


kinds = pytest.mark.parametrize(
    "handler", [asgi(application), held_back, at_once], ids=["control", "held back", "at once"]
)
endings = pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"], ids=["kept", "closing"])


@kinds
@endings
async def test_a_client_that_takes_nothing_is_cut_off(handler: Handler, more: bytes) -> None:
    async with Served(handler, client_idle_s=0.2) as served:
        client = await served.ask(more)
        await happens(lambda: served.server.connections)
        await happens(lambda: not served.server.connections, "the end of a connection nobody reads from")
        received = 0
        with client, pytest.raises(ConnectionResetError):
            while part := await asyncio.get_running_loop().sock_recv(client, 1 << 20):
                received += len(part)
            raise ConnectionResetError  # ended without the whole of it
        assert received < len(PART) * PARTS


@kinds
async def test_a_client_that_goes_on_slowly_gets_everything(handler: Handler) -> None:
    async with Served(handler, client_idle_s=1) as served:
        client, received, loop = await served.ask(b"Connection: close\r\n"), bytearray(), asyncio.get_running_loop()
        began, slept = loop.time(), 0
        with client:
            while part := await loop.sock_recv(client, 100_000):
                received += part
                if len(received) // 100_000 > slept:
                    slept += 1
                    await asyncio.sleep(0.1)  # the client's own pace: in all longer than the bound
        assert received.endswith(PART) and len(received) > len(PART) * PARTS
        assert loop.time() - began > 1
