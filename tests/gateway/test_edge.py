"""Connections whose requests are handled without a task: their order, what is never begun, and how a server ends."""

from __future__ import annotations

import asyncio
import json

import pytest

from taximeter.server.client import at_once
from taximeter.server.connection import MAX_PIPELINED
from taximeter.server.exchange import HELD_BYTES, Exchange
from taximeter.server.inline import Signal, in_task
from waits import HANG_S

LENGTH = [(b"content-length", b"3")]


def get(path: str, *fields: str) -> bytes:
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: a", *fields, "", "")).encode()


def post(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Bells:
    """A handler that answers `end` with its path's last letter three times, when its bell is rung; `open`: at once."""

    def __init__(self, *, open: bool = False) -> None:
        self.open = open
        self.begun: list[str] = []
        self.tasks: list[object] = []
        self.bells: dict[str, Signal] = {}
        self.exchanges: dict[str, Exchange] = {}
        self.ends: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.news = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        path = exchange.path.decode()
        bell = self.bells[path] = Signal()
        self.exchanges[path] = exchange
        self.begun.append(path)
        self.tasks.append(asyncio.current_task())
        self.news.set()

        def cancel() -> None:
            if exchange.run is not None:
                exchange.run.cancel()

        exchange.on_left = cancel
        end = "answered"
        try:
            if not self.open:
                await bell.wait()
            self.bodies.append((await exchange.body(1 << 30))[0])
            exchange.answer(200, LENGTH, path[-1].encode() * 3)
            self.tasks.append(asyncio.current_task())
        except BaseException as error:
            end = type(error).__name__
            raise
        finally:
            self.ends.append((path, end))
            self.news.set()

    async def until(self, condition) -> None:
        async with asyncio.timeout(HANG_S):
            while not condition():
                self.news.clear()
                await self.news.wait()


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HANG_S)
    return await asyncio.wait_for(reader.readexactly(3), HANG_S)


async def test_a_request_that_waits_for_bells_alone_needs_no_task(edged) -> None:
    bells = Bells()
    async with edged(bells) as edge:
        reader, writer = await edge.open(get("/a"))
        await bells.until(lambda: bells.begun)
        bells.bells["/a"].fire()
        assert bells.ends == [("/a", "answered")]
        assert await answer_of(reader) == b"aaa"
        writer.close()
    assert bells.tasks == [None, asyncio.current_task()]  # the one that rang


async def test_pipelined_requests_are_handled_one_after_the_other(edged) -> None:
    bells = Bells()
    async with edged(bells) as edge:
        reader, writer = await edge.open(get("/a") + post("/b", b"body of b") + get("/c"))
        for number, path in enumerate(("/a", "/b", "/c")):
            await bells.until(lambda path=path: path in bells.bells)
            assert len(bells.begun) == number + 1
            bells.bells[path].fire()
            assert await answer_of(reader) == path[-1].encode() * 3
        writer.write(get("/d"))
        await bells.until(lambda: "/d" in bells.bells)
        bells.bells["/d"].fire()
        assert await answer_of(reader) == b"ddd"
        writer.close()
    assert bells.bodies == [b"", b"body of b", b"", b""]


async def test_many_pipelined_requests_answered_at_once_come_in_order(edged) -> None:
    bells = Bells(open=True)
    paths = [f"/{number:02d}" for number in range(MAX_PIPELINED)]
    async with edged(bells) as edge:
        reader, writer = await edge.open(b"".join(map(get, paths)))
        for path in paths:
            assert await answer_of(reader) == path[-1].encode() * 3
        writer.close()
    assert bells.begun == paths


async def test_large_bodies_behind_a_request_in_progress_wait_for_their_turn(edged) -> None:
    bells = Bells()
    bodies = [bytes([65 + number]) * (5 * HELD_BYTES) for number in range(4)]
    async with edged(bells) as edge:
        reader, writer = await edge.open(b"".join(post(f"/{number}", body) for number, body in enumerate(bodies)))
        for number in range(4):
            await bells.until(lambda path=f"/{number}": path in bells.bells)
            bells.bells[f"/{number}"].fire()
            assert await answer_of(reader) == b"%d" % number * 3
        writer.close()
    assert bells.bodies == bodies


async def test_a_request_with_garbage_behind_it_reaches_no_handler(edged) -> None:
    bells = Bells()
    async with edged(bells) as edge:
        assert await edge.ask(get("/a") + b"BAD\0\r\n\r\n") == b""
    assert bells.begun == []


async def test_garbage_behind_a_request_in_progress_ends_it_without_an_answer(edged) -> None:
    bells = Bells()
    async with edged(bells) as edge:
        reader, writer = await edge.open(get("/a"))
        await bells.until(lambda: bells.begun)
        writer.write(get("/b") + b"BAD\0\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), HANG_S) == b""
        writer.close()
    assert bells.ends == [("/a", "CancelledError")]


@pytest.mark.parametrize("apart", [False, True])
async def test_garbage_behind_an_answer_is_refused_after_it(edged, apart) -> None:
    bells = Bells(open=True)
    async with edged(bells) as edge:
        reader, writer = await edge.open(post("/a", b"123")[:-1])
        await bells.until(lambda: bells.begun)
        writer.write(b"3" if apart else b"3BAD\0\r\n\r\n")
        assert await answer_of(reader) == b"aaa"
        if apart:
            writer.write(b"BAD\0\r\n\r\n")
        head, _, body = (await asyncio.wait_for(reader.read(), HANG_S)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert json.loads(body)["error"]["code"] == "bad_request"
        writer.close()


async def test_a_body_that_cannot_be_read_further_ends_its_request(edged) -> None:
    bells = Bells(open=True)
    async with edged(bells) as edge:
        head = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        reader, writer = await edge.open(head + b"3\r\nabc\r\n")
        await bells.until(lambda: bells.begun)
        writer.write(b"-5\r\n")
        assert (await asyncio.wait_for(reader.read(), HANG_S)).startswith(b"HTTP/1.1 400 ")
        writer.close()
    assert bells.ends == [("/a", "ClientLeft")]


def next_turn(act, data) -> None:
    asyncio.get_running_loop().call_soon(act, data)


@pytest.mark.parametrize("then", [at_once, next_turn])
async def test_nothing_behind_a_request_that_closes_is_begun(edged, then) -> None:
    for open_at_once in (True, False):
        bells = Bells(open=open_at_once)
        async with edged(bells, then=then) as edge:
            whole = post("/a", b"123").replace(b"Host: a", b"Host: a\r\nConnection: close")
            reader, writer = await edge.open(whole[:-1])
            await bells.until(lambda bells=bells: bells.begun)
            writer.write(whole[-1:] + get("/b") + get("/c"))
            if not open_at_once:
                exchange = bells.exchanges["/a"]
                while not exchange.complete:
                    await asyncio.sleep(0)
                bells.bells["/a"].fire()
            assert (await asyncio.wait_for(reader.read(), HANG_S)).count(b"HTTP/1.1") == 1
            writer.close()
        assert bells.begun == ["/a"]


async def test_a_queued_request_whose_client_has_left_is_never_begun(edged) -> None:
    """The client is lost in the very turn between the answer before it and its own beginning."""
    bells = Bells()
    async with edged(bells) as edge:
        _, writer = await edge.open(get("/a") + get("/b") + get("/c"))
        await bells.until(lambda: bells.begun)
        (connection,) = edge.server.connections
        bells.bells["/a"].fire()  # /b is to begin in the next turn
        connection.connection_lost(None)
        for _ in range(3):
            await asyncio.sleep(0)
        writer.close()
    assert bells.begun == ["/a"]


async def test_a_client_that_leaves_takes_along_what_is_in_progress_and_what_waits_behind_it(edged) -> None:
    bells = Bells()
    async with edged(bells) as edge:
        _, writer = await edge.open(get("/a") + b"".join(get("/b") for _ in range(5)))
        await bells.until(lambda: bells.begun)
        bells.exchanges["/a"].client.resume_reading()  # which waits for the answer while others are queued
        writer.transport.abort()
        await bells.until(lambda: bells.ends)
    assert (bells.begun, bells.ends) == (["/a"], [("/a", "CancelledError")])


@pytest.mark.parametrize("as_task", [False, True])
async def test_a_stop_cancels_every_request_that_does_not_end(edged, as_task) -> None:
    bells = Bells()

    async def handles(exchange: Exchange) -> None:
        if as_task:
            await in_task()
        await bells(exchange)

    async with edged(handles, shutdown_s=0.05) as edge:
        opened = [await edge.open(get(f"/{number}")) for number in range(5)]
        await bells.until(lambda: len(bells.begun) == 5)
        edge.server.stop()
        for reader, _ in opened:
            assert (await asyncio.wait_for(reader.read(), HANG_S)).startswith(b"HTTP/1.1 500")
        for _, writer in opened:
            writer.close()
    assert sorted(bells.ends) == [(f"/{number}", "CancelledError") for number in range(5)]


async def test_a_stop_lets_requests_in_progress_end_and_closes_behind_them(edged) -> None:
    bells = Bells()
    async with edged(bells) as edge:
        reader, writer = await edge.open(get("/a"))
        await bells.until(lambda: bells.begun)
        closed = asyncio.Event()
        edge.server.on_listeners_closed = closed.set
        edge.server.stop()
        await closed.wait()
        await asyncio.sleep(0)
        bells.bells["/a"].fire()
        answer = await asyncio.wait_for(reader.read(), HANG_S)
        assert answer == b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\naaa"
        writer.close()


async def test_a_stop_waits_for_what_is_done_after_the_answer(edged) -> None:
    counted: list[int] = []

    async def counts_after(exchange: Exchange) -> None:
        exchange.answer(200, LENGTH, b"aaa")
        await in_task()
        while not stopped.is_set():
            await stopped.wait()
        counted.append(1)

    stopped = asyncio.Event()
    async with edged(counts_after) as edge:
        reader, writer = await edge.open(get("/a"))
        assert await answer_of(reader) == b"aaa"
        edge.server.on_listeners_closed = stopped.set
        writer.close()
    assert counted == [1]


@pytest.mark.parametrize("then", [at_once, next_turn])
@pytest.mark.parametrize("queued", [False, True])
async def test_nothing_is_begun_behind_the_last_answer_of_a_server_that_stops(edged, then, queued) -> None:
    bells = Bells(open=not queued)
    async with edged(bells, then=then) as edge:
        request = post("/a", b"123")
        reader, writer = await edge.open(request[:-1])
        await bells.until(lambda: bells.begun)
        closed = asyncio.Event()
        edge.server.on_listeners_closed = closed.set
        edge.server.stop()
        await closed.wait()
        while not edge.server.service.stopping:
            await asyncio.sleep(0)
        writer.write(request[-1:] + get("/b"))
        if queued:
            while not bells.exchanges["/a"].complete:
                await asyncio.sleep(0)
            bells.bells["/a"].fire()
        assert (await asyncio.wait_for(reader.read(), HANG_S)).count(b"HTTP/1.1") == 1
        writer.close()
    assert bells.begun == ["/a"]
