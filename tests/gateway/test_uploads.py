"""Request bodies that do not go on, and more of them than may be held: what is refused, and what is recorded."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from control_plane import ControlPlane, control, start  # noqa: F401 -- fixtures
from taximeter.config import LimitSettings
from taximeter.control.app import create
from taximeter.server.asgi import asgi
from taximeter.server.server import Server
from upstream import STALL
from waits import happens

SOON: dict[str, Any] = {"body_timeout_s": 0.1, "body_min_bytes": 1000}
HEAD = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
)


def head(length: int, kind: str = "application/json") -> bytes:
    return HEAD.format(kind=kind, length=length).encode()


async def open_to(port: int, *parts: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    return reader, writer


async def rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, dict[str, str], bytes]:
    got = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return parsed(got)


def parsed(got: bytes) -> tuple[int, dict[str, str], bytes]:
    top, _, body = got.partition(b"\r\n\r\n")
    status, *fields = top.decode().split("\r\n")
    return int(status.split()[1]), dict(field.split(": ", 1) for field in fields), body


@pytest.mark.parametrize("begun", [b"", b'{"model":"m",', b"x" * 100_000], ids=["none", "a little", "much"])
async def test_an_upload_that_stalls_is_answered_408_and_recorded_as_refused(serve, provider, begun) -> None:
    async with serve(provider, limits=SOON) as running:
        status, headers, body = await rest(*await open_to(running.port, head(200_000), begun))
        (record,) = running.records
        await happens(lambda: not running.server.connections)
    assert (status, headers["x-taximeter-error"], headers["connection"]) == (408, "request_timeout", "close")
    assert json.loads(body)["error"]["code"] == "request_timeout"
    assert (record["outcome"], record["error_code"]) == ("refused", "request_timeout")
    assert provider.requests == []


async def drip(writer: asyncio.StreamWriter, piece: bytes, every_s: float = 0.01) -> None:
    while not writer.is_closing():
        writer.write(piece)
        await asyncio.sleep(every_s)


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_upload_that_drips_is_answered_408(serve, provider, chunked) -> None:
    async with serve(provider, limits=SOON) as running:
        opening, piece = head(200_000), b"x"
        if chunked:  # what is no body does not count as going on
            opening = opening.replace(b"Content-Length: 200000", b"Transfer-Encoding: chunked")
            piece = b"1;" + b"x" * 500 + b"\r\ny\r\n"
        reader, writer = await open_to(running.port, opening)
        dripping = asyncio.create_task(drip(writer, piece))
        status, _, _ = await rest(reader, writer)
        await dripping
        assert status == 408
        assert running.records[0]["error_code"] == "request_timeout"


async def test_an_upload_that_goes_on_slowly_is_served(serve, provider) -> None:
    body = b'{"model":"m","messages":[],"pad":"' + b"x" * 100 + b'"}'
    async with serve(provider, limits={"body_timeout_s": 0.2, "body_min_bytes": 1}) as running:
        reader, writer = await open_to(
            running.port, head(len(body)).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        for at in range(len(body)):
            writer.write(body[at : at + 1])
            await asyncio.sleep(0.01)
        status, _, _ = await rest(reader, writer)
        assert status == 200
    assert provider.requests[0].body == body


async def test_an_upload_that_streams_through_and_stalls_is_cut_at_the_upstream_too(serve, provider) -> None:
    async with serve(provider, limits=SOON) as running:
        opened = await open_to(running.port, head(200_000, "application/octet-stream"), b"x" * 50_000)
        status, headers, _ = await rest(*opened)
        assert (status, headers["x-taximeter-error"]) == (408, "request_timeout")
        await happens(lambda: provider.requests[0].client_left)
        assert not provider.requests[0].complete
        (record,) = running.records
        assert (record["outcome"], record["error_code"]) == ("client_left", "request_timeout")
        assert "input_tokens" not in record


async def test_an_upstream_that_does_not_read_makes_no_client_late(serve, provider) -> None:
    """The client waits for us: spans pass, and it is not refused."""
    size = 30_000_000
    reading = asyncio.Event()
    provider.script(reading, STALL, at_head=True)
    async with serve(provider, limits=SOON) as running:
        reader, writer = await open_to(running.port, head(size, "application/octet-stream"))
        writer.write(b"x" * size)
        (connection,) = running.server.connections
        await happens(lambda: connection.client.reading_paused)
        ends = connection._patience.late_at
        await happens(lambda: connection._patience.late_at > ends)
        ends = connection._patience.late_at
        await happens(lambda: connection._patience.late_at > ends)
        assert not reader.at_eof() and not running.records
        writer.transport.abort()


async def test_a_body_that_is_never_sent_behind_an_early_answer_does_not_hold_the_connection(serve, provider) -> None:
    async with serve(provider, limits=SOON, auth={"mode": "keys"}) as running:
        reader, writer = await open_to(running.port, head(200_000), b"x")
        status, _, _ = await rest(reader, writer)
        assert status == 401
        (record,) = running.records
        assert record["error_code"] == "invalid_api_key"


MB = 1_000_000


def body_of(size: int) -> bytes:
    begun = b'{"model":"m","messages":[],"pad":"'
    return begun + b"x" * (size - len(begun) - 2) + b'"}'


async def test_what_a_worker_holds_of_bodies_is_bounded(serve, provider) -> None:
    limits = {"held_bytes": 2 * MB, "json_body_bytes": 2 * MB}
    body = body_of(MB)
    async with serve(provider, limits=limits) as running:
        service = running.server.service
        stalled = [await open_to(running.port, head(MB), body[:-100]) for _ in range(2)]
        await happens(lambda: service.held_bytes == 2 * (MB - 100))
        reader, writer = await open_to(
            running.port, head(MB), body, head(50)[:-2] + b"Connection: close\r\n\r\n", body_of(50)
        )
        got = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        status, headers, _ = parsed(got)
        assert (status, headers["x-taximeter-error"], headers["x-should-retry"]) == (429, "overloaded", "true")
        assert int(headers["retry-after"]) > 0
        assert b"HTTP/1.1 200 " in got, "a small body is never refused for it; the rest of the large one was read"
        await happens(lambda: len(running.records) == 2)
        assert running.records[0]["outcome"] == "refused"
        assert running.records[0]["error_code"] == "overloaded"
        await happens(lambda: service.held_bytes == 2 * (MB - 100))

        for _, one in stalled[:1]:
            one.transport.abort()
        await happens(lambda: service.held_bytes == MB - 100)
        opened = await open_to(running.port, head(MB)[:-2] + b"Connection: close\r\n\r\n", body)
        assert (await rest(*opened))[0] == 200
        stalled[1][1].transport.abort()
        await happens(lambda: service.held_bytes == 0)
    assert [len(request.body) for request in provider.requests] == [50, MB]


async def test_a_body_is_held_until_its_call_has_ended(serve, provider) -> None:
    provider.script(STALL)
    async with serve(provider) as running:
        service = running.server.service
        body = body_of(MB)[:-1] + b',"stream":true}'
        _, writer = await open_to(running.port, head(len(body)), body)
        await provider.until(lambda: provider.requests and provider.requests[0].complete)
        assert service.held_bytes == len(body)
        writer.transport.abort()
        await happens(lambda: service.held_bytes == 0)


async def test_bodies_that_stream_through_are_not_held(serve, provider) -> None:
    async with serve(provider, limits={"held_bytes": 100_000, "json_body_bytes": 100_000}) as running:
        service = running.server.service
        closing = head(5 * MB, "application/octet-stream")[:-2] + b"Connection: close\r\n\r\n"
        opened = await open_to(running.port, closing, b"x" * 5 * MB)
        assert (await rest(*opened))[0] != 429
        assert service.held_bytes == 0
    assert provider.requests[0].body_bytes == 5 * MB


async def test_the_control_port_does_not_wait_for_a_body_either(control: ControlPlane, caplog) -> None:  # noqa: F811
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(asgi(create(control.services)), LimitSettings(**SOON))
        serving = asyncio.create_task(server.serve([listener]))
        port = listener.getsockname()[1]
        opening = (
            b"POST /keys HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        )
        status, headers, body = await rest(*await open_to(port, opening, b'{"workspace"'))
        server.stop()
        await serving
    assert (status, headers["x-taximeter-error"], headers["connection"]) == (408, "request_timeout", "close")
    assert json.loads(body)["error"]["code"] == "request_timeout"
    assert [entry.getMessage() for entry in caplog.records if entry.levelname == "ERROR"] == []
