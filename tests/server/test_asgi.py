"""ASGI applications on our connections: what they are told, what their answers look like, and how either side ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from taximeter.config import LimitSettings
from taximeter.server.asgi import asgi
from taximeter.server.server import Server
from waits import HANG_S

GET = b"GET /a%20b?c=%20 HTTP/1.1\r\nHost: a\r\nX-One: 1\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
Application = Callable[[Any, Any, Any], Awaitable[None]]


@asynccontextmanager
async def serving(application: Application, **limits: Any) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(asgi(application), LimitSettings(**limits))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(server.serve([listener]))
            yield listener.getsockname()[1]
            server.stop()
            await task


async def start(send: Any, *headers: tuple[bytes, bytes], status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def body(send: Any, data: bytes, *, more: bool = False) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def test_the_scope_is_the_request_and_both_ends() -> None:
    scopes = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(dict(scope, task=asyncio.current_task()))
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        await start(send)
        await body(send, b"ok")

    async with serving(application) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        ours = writer.get_extra_info("sockname")
        writer.write(GET)
        assert await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), HANG_S) == (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        )
        writer.close()
    (scope,) = scopes
    assert scope.pop("task") is not None, "applications may use what needs a task"
    assert scope == {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": "/a b", "raw_path": b"/a%20b", "query_string": b"c=%20", "root_path": "",
        "headers": [(b"host", b"a"), (b"x-one", b"1")], "client": ours, "server": ("127.0.0.1", port), "state": {},
    }  # fmt: skip


async def test_the_connections_own_headers_are_ours_and_an_application_may_close_it() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await start(send, (b"Content-Length", b"2"), (b"Transfer-Encoding", b"chunked"), (b"Connection", b"Close"))
        await body(send, b"ok")

    async with serving(application) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        answer = await asyncio.wait_for(reader.read(), HANG_S)
        assert answer == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
        writer.close()


@pytest.mark.parametrize("when", ["before the answer", "in it", "behind it"])
async def test_an_application_that_waits_is_told_of_the_end_once_the_body_is_read(when: str) -> None:
    told, waits = [], asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive()).get("more_body"):
            told.append(message["body"])
        if when != "before the answer":
            await start(send)
            await body(send, b"x", more=when == "in it")
        waits.set()
        told.append((await receive())["type"])
        told.append((await receive())["type"])
        if when != "behind it":
            await body(send, b"into the air", more=True)
            await body(send, b"into the air")
        ended.set()

    ended = asyncio.Event()
    async with serving(application) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + b"0123456789")
        await asyncio.wait_for(waits.wait(), HANG_S)
        if when != "behind it":
            writer.transport.abort()
        await asyncio.wait_for(ended.wait(), HANG_S)
        writer.close()
    assert told == [b"0123456789", "http.disconnect", "http.disconnect"]


@pytest.mark.parametrize("answers", [False, True])
async def test_a_body_that_does_not_come_is_answered_408_whatever_the_application_does_then(
    answers: bool, caplog: pytest.LogCaptureFixture
) -> None:
    told = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        told.append(await receive())
        told.append(await receive())
        if answers:
            await start(send)
            await body(send, b"what was read")

    async with serving(application, body_timeout_s=0.05) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + b"012")
        answer = await asyncio.wait_for(reader.read(), HANG_S)
        writer.close()
    assert told == [{"type": "http.request", "body": b"012", "more_body": True}, {"type": "http.disconnect"}]
    assert answer.startswith(b"HTTP/1.1 408 ") and answer.count(b"HTTP/1.1") == 1
    assert [entry.getMessage() for entry in caplog.records if entry.levelname == "ERROR"] == []


async def test_messages_in_a_wrong_order_are_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await body(send, b"no head")

    async with serving(application) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        assert (await asyncio.wait_for(reader.read(), HANG_S)).startswith(b"HTTP/1.1 500 ")
        writer.close()
    assert [entry.getMessage() for entry in caplog.records if entry.levelname == "ERROR"] == [
        "A request's handler failed"
    ]
