"""One request and its answer over a real socket: framing, cuts, back-pressure, and a client that leaves."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from taximeter.server.exchange import HELD_BYTES, ClientLeft, Exchange
from taximeter.server.inline import Signal
from waits import HANG_S

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
OLD = b"GET /a HTTP/1.0\r\n\r\n"
PLAIN = [(b"content-type", b"text/plain")]
MIB = 1 << 20


def of_length(size: int) -> list[tuple[bytes, bytes]]:
    return [(b"content-length", b"%d" % size)]


def post(size: int, *fields: bytes, version: bytes = b"1.1") -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"POST /a HTTP/%b\r\nHost: a\r\nContent-Length: %d\r\n%b\r\n" % (version, size, lines)


class Handler:
    """Runs `does` for each exchange; how each ended, and the exchanges themselves."""

    def __init__(self, does: Callable[[Exchange], Awaitable[Any]]) -> None:
        self.does = does
        self.exchanges: list[Exchange] = []
        self.ends: list[str] = []
        self.news = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.news.set()
        end = "returned"
        try:
            await self.does(exchange)
        except BaseException as error:
            end = type(error).__name__
            raise
        finally:
            self.ends.append(end)
            self.news.set()

    async def ended(self, number: int = 1) -> list[str]:
        while len(self.ends) < number:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), HANG_S)
        return self.ends

    async def exchange(self) -> Exchange:
        if not self.exchanges:
            await asyncio.wait_for(self.news.wait(), HANG_S)
        return self.exchanges[0]


# Framing.


async def test_one_chunk_for_each_part_and_none_for_an_empty_one(edged) -> None:
    async def answers(exchange: Exchange) -> None:
        exchange.start(200, PLAIN)
        for part in (b"", b"abc", b"", b"x" * 20):
            exchange.write(part)
            await asyncio.sleep(0)
        exchange.end()

    async with edged(answers) as edge:
        reader, writer = await edge.open(GET)
        got = await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), HANG_S)
        assert got == (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n14\r\n" + b"x" * 20 + b"\r\n0\r\n\r\n"
        )
        writer.close()


@pytest.mark.parametrize("size", [0, 5, 64 * 1024, 64 * 1024 + 1])
@pytest.mark.parametrize("at_once", [False, True])
async def test_a_body_of_known_length_is_sent_as_it_is_and_the_connection_goes_on(edged, size, at_once) -> None:
    async def answers(exchange: Exchange) -> None:
        if at_once:
            exchange.answer(200, of_length(size), b"x" * size)
        else:
            exchange.start(200, of_length(size))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            exchange.end(b"x" * size)

    async with edged(answers) as edge:
        reader, writer = await edge.open(GET + GET)
        for _ in range(2):
            assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HANG_S) == (
                b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size
            )
            assert await asyncio.wait_for(reader.readexactly(size), HANG_S) == b"x" * size
        writer.close()


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [
        (b"HEAD", 200, of_length(5)),
        (b"HEAD", 200, PLAIN),
        (b"GET", 204, PLAIN),
        (b"GET", 304, of_length(7)),
        (b"HEAD", 500, of_length(0)),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_has_no_body_gets_none_and_the_connection_goes_on(
    edged, method, status, headers, streamed
) -> None:
    async def answers(exchange: Exchange) -> None:
        if streamed:
            exchange.start(status, headers)
            exchange.write(b"hello")
            exchange.end(b"!")
        else:
            exchange.answer(status, headers, b"hello")

    async with edged(answers) as edge:
        reader, writer = await edge.open(GET.replace(b"GET", method) * 2)
        for _ in range(2):
            got = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HANG_S)
            assert got.startswith(b"HTTP/1.1 %d " % status)
            assert got.endswith(b"%b: %b\r\n\r\n" % headers[0])
        writer.close()


async def test_http_1_0_without_a_length_ends_with_the_connection(edged) -> None:
    async def answers(exchange: Exchange) -> None:
        exchange.start(200, PLAIN)
        exchange.write(b"abc")
        await asyncio.sleep(0)
        exchange.end(b"def")

    async with edged(answers) as edge:
        old = OLD.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n")
        for request in (OLD, old):
            assert await edge.ask(request) == (
                b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nabcdef"
            )


async def test_a_large_answer_is_whole_before_the_connection_is_closed(edged) -> None:
    async def answers(exchange: Exchange) -> None:
        exchange.answer(200, PLAIN, b"x" * 20 * MIB)

    async with edged(answers) as edge:
        assert (await edge.ask(OLD)).count(b"x") == 20 * MIB + 1  # one in "text"


# What goes wrong.


async def _raises(exchange: Exchange) -> None:
    raise ValueError


async def _returns(exchange: Exchange) -> None:
    pass


async def _breaks_a_header(exchange: Exchange) -> None:
    exchange.start(200, [(b"a", b"b\r\nc: d")])


async def _has_no_such_status(exchange: Exchange) -> None:
    exchange.start(999, PLAIN)


async def _has_no_length(exchange: Exchange) -> None:
    exchange.answer(200, [(b"content-length", b"x")], b"")


@pytest.mark.parametrize("does", [_raises, _returns, _breaks_a_header, _has_no_such_status, _has_no_length])
@pytest.mark.parametrize("as_task", [False, True])
async def test_a_handler_that_fails_before_the_head_is_a_500_and_the_last_of_its_connection(
    edged, does, as_task
) -> None:
    async def answers(exchange: Exchange) -> None:
        if as_task:
            await asyncio.sleep(0)
        await does(exchange)

    async with edged(answers) as edge:
        head, _, body = (await edge.ask(GET + GET)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    assert b"connection: close" in head
    assert json.loads(body)["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize("headers", [PLAIN, of_length(8)], ids=["chunked", "length"])
@pytest.mark.parametrize("parts", [[], [b"abc"]])
@pytest.mark.parametrize("as_task", [False, True])
async def test_an_answer_that_is_cut_has_no_end(edged, headers, parts, as_task) -> None:
    async def cuts(exchange: Exchange) -> None:
        exchange.start(200, headers)
        for part in parts:
            exchange.write(part)
        if as_task:
            await asyncio.sleep(0)
        raise ValueError

    async with edged(cuts) as edge:
        got = await edge.ask(GET + GET)
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b"\r\n\r\n" if not parts else b"3\r\nabc\r\n" if headers is PLAIN else b"\r\n\r\nabc")


async def test_an_answer_that_ends_with_its_connection_is_cut_by_a_reset(edged) -> None:
    async def cuts(exchange: Exchange) -> None:
        exchange.start(200, PLAIN)
        exchange.write(b"abc")
        await asyncio.sleep(0)
        raise ValueError

    async with edged(cuts) as edge:
        with pytest.raises(ConnectionResetError):
            await edge.ask(OLD)


async def _too_long(exchange: Exchange) -> None:
    exchange.write(b"123456")


async def _too_short(exchange: Exchange) -> None:
    exchange.end(b"1234")


async def _twice(exchange: Exchange) -> None:
    exchange.start(200, of_length(5))


async def _again(exchange: Exchange) -> None:
    exchange.answer(502, of_length(5), b"other")


@pytest.mark.parametrize("does", [_too_long, _too_short, _twice, _again])
async def test_a_broken_framing_never_looks_like_an_answer(edged, does) -> None:
    async def answers(exchange: Exchange) -> None:
        exchange.start(200, of_length(5))
        await does(exchange)

    handler = Handler(answers)
    async with edged(handler) as edge:
        head, _, body = (await edge.ask(GET)).partition(b"\r\n\r\n")
    assert handler.ends == ["RuntimeError"]
    assert head in (b"", b"HTTP/1.1 200 OK\r\ncontent-length: 5")
    assert len(body) < 5
    assert b"other" not in body


async def test_what_comes_after_the_end_is_nobodys(edged) -> None:
    async def answers(exchange: Exchange) -> None:
        exchange.answer(200, of_length(2), b"ok")
        exchange.write(b"more")

    handler = Handler(answers)
    async with edged(handler) as edge:
        reader, writer = await edge.open(GET)
        assert (await reader.readuntil(b"ok")).endswith(b"\r\n\r\nok")
        writer.write(GET)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
    assert handler.ends == ["RuntimeError", "RuntimeError"]


# The request's body.


async def test_a_client_that_expects_it_is_told_to_continue_once_and_only_where_its_body_is_wanted(edged) -> None:
    async def answers(exchange: Exchange) -> None:
        wanted = exchange.path == b"/a"
        body, whole = await exchange.body(100) if wanted else (b"", False)
        exchange.answer(200 if whole else 413, of_length(len(body)), body)

    expecting = post(4, b"Expect: 100-continue")
    async with edged(answers) as edge:
        reader, writer = await edge.open(expecting)
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HANG_S) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ab")
        writer.write(b"cd" + GET)
        got = await asyncio.wait_for(reader.readuntil(b"content-length: 0\r\n\r\n"), HANG_S)
        assert got.count(b"HTTP/1.1 200") == 2
        assert b" 100 " not in got
        writer.close()
        reader, writer = await edge.open(expecting + b"abcd")
        assert (await reader.readuntil(b"abcd")).startswith(b"HTTP/1.1 200")
        writer.close()
        reader, writer = await edge.open(expecting.replace(b"/a", b"/b"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
        writer.close()
        old = post(4, b"Expect: 100-continue", version=b"1.0")
        reader, writer = await edge.open(old)
        await asyncio.sleep(0)
        writer.write(b"abcd")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()


@pytest.mark.parametrize(("size", "whole"), [(0, True), (100, True), (3 * HELD_BYTES, False)])
async def test_a_body_is_held_as_far_as_it_fits_and_the_rest_is_still_there(edged, size, whole) -> None:
    seen: dict[str, Any] = {}

    async def reads(exchange: Exchange) -> None:
        seen["begun"], seen["whole"] = await exchange.body(1_000)
        rest = [seen["begun"]]
        while part := await exchange.part():
            rest.append(part)
        seen["all"] = b"".join(rest)
        exchange.answer(200, of_length(0), b"")

    sent = random.Random(size).randbytes(size)
    async with edged(reads) as edge:
        reader, writer = await edge.open(post(size) + sent[:50])
        await asyncio.sleep(0)
        for start in range(50, size, 10_000):
            writer.write(sent[start : start + 10_000])
            await writer.drain()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()
    assert (seen["whole"], seen["all"]) == (whole, sent)
    assert len(seen["begun"]) <= 1_000 + HELD_BYTES + 256 * 1024


async def test_a_body_that_nobody_reads_holds_its_client_back_and_then_comes_whole(edged) -> None:
    go_on, seen = Signal(), bytearray()

    async def reads(exchange: Exchange) -> None:
        await go_on.wait()
        while part := await exchange.part():
            seen.extend(part)
        exchange.answer(200, of_length(2), b"ok")

    handler = Handler(reads)
    sent = random.Random(1).randbytes(16 * MIB)
    async with edged(handler) as edge:
        reader, writer = await edge.open(post(len(sent)))
        writer.write(sent)
        exchange = await handler.exchange()
        while not exchange.client.reading_paused:
            await asyncio.sleep(0)
        assert writer.transport.get_write_buffer_size() > 0
        assert sum(map(len, exchange._parts)) <= HELD_BYTES + 256 * 1024
        go_on.fire()
        assert (await asyncio.wait_for(reader.readuntil(b"ok"), HANG_S)).startswith(b"HTTP/1.1 200")
        writer.close()
    assert seen == sent


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [10, 5 * MIB])
async def test_an_answer_before_its_request_is_whole_and_the_connection_goes_on(edged, framing, size) -> None:
    handler = Handler(_early)
    body = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n" * (size // 30 + 1)
    request = (
        post(len(body)) if framing == "length" else post(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    )
    framed = body if framing == "length" else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    async with edged(handler) as edge:
        reader, writer = await edge.open(request + framed[:100])
        assert (await asyncio.wait_for(reader.readuntil(b"no"), HANG_S)).startswith(b"HTTP/1.1 401")
        writer.write(framed[100:] + GET)
        assert (await asyncio.wait_for(reader.readuntil(b"no"), HANG_S)).startswith(b"HTTP/1.1 401")
        assert handler.exchanges[0]._parts == []
        writer.close()
    assert [exchange.path for exchange in handler.exchanges] == [b"/a", b"/a"]


async def _early(exchange: Exchange) -> None:
    exchange.answer(401, of_length(2), b"no")


# Back-pressure.


async def test_bytes_out_are_bytes_in_with_both_sides_held_back(edged) -> None:
    paused = 0

    async def echoes(exchange: Exchange) -> None:
        nonlocal paused
        exchange.start(200, of_length(len(sent)))
        while part := await exchange.part():
            exchange.write(part)
            if exchange.paused:
                paused += 1
                await exchange.drain()
        exchange.end()

    sent = random.Random(2).randbytes(24 * MIB)
    async with edged(echoes) as edge:
        reader, writer = await edge.open(post(len(sent)), limit=4096)
        writer.write(sent)
        await reader.readuntil(b"\r\n\r\n")
        while not paused or writer.transport.get_write_buffer_size() == 0:  # until nothing moves for want of a reader
            await asyncio.sleep(0)
        assert writer.transport.get_write_buffer_size() > 0
        got = bytearray()
        while len(got) < len(sent):
            got += await asyncio.wait_for(reader.read(random.Random(len(got)).randrange(1, 100_000)), HANG_S)
        writer.close()
    assert got == sent
    assert paused


# The client leaves.


async def test_a_client_that_leaves_in_its_upload_is_told_after_what_came(edged) -> None:
    seen = bytearray()

    async def reads(exchange: Exchange) -> None:
        while part := await exchange.part():
            seen.extend(part)

    handler = Handler(reads)
    async with edged(handler) as edge:
        _, writer = await edge.open(post(10) + b"abc")
        await handler.exchange()
        writer.close()
        assert await handler.ended() == ["ClientLeft"]
    assert seen == b"abc"
    with pytest.raises(ClientLeft):
        await handler.exchanges[0].body(100)


@pytest.mark.parametrize("wait", ["bell", "task", "drain"])
async def test_a_client_that_leaves_while_its_answer_is_made_is_told_at_once_and_once(edged, wait) -> None:
    told: list[str] = []

    async def waits(exchange: Exchange) -> None:
        def left() -> None:
            told.append("left")
            assert exchange.run is not None
            exchange.run.cancel()

        exchange.on_left = left
        exchange.start(200, PLAIN)
        exchange.write(b"abc")
        try:
            if wait == "bell":
                await Signal().wait()
            elif wait == "task":
                await asyncio.Event().wait()
            while wait == "drain":
                exchange.write(b"x" * MIB)
                if exchange.paused:
                    told.append("paused")
                await exchange.drain()
        except asyncio.CancelledError:
            assert exchange.run is not None
            exchange.run.uncancel()
        assert (exchange.left, exchange.paused) == (True, False)
        exchange.write(b"into the air")
        await exchange.drain()
        exchange.end(b"into the air")
        assert not exchange.response_complete

    handler = Handler(waits)
    async with edged(handler) as edge:
        reader, writer = await edge.open(GET)
        await reader.readuntil(b"\r\n\r\n")
        while wait == "drain" and not handler.exchanges[0].paused:
            await asyncio.sleep(0)
        writer.transport.abort()
        assert await handler.ended() == ["returned"]
    assert told[-1] == "left"
    assert told.count("left") == 1


async def test_a_client_that_leaves_after_its_answer_has_had_it(edged) -> None:
    go_on = asyncio.Event()

    async def counts_after(exchange: Exchange) -> None:
        exchange.on_left = lambda: pytest.fail("it had its answer")
        exchange.answer(200, of_length(2), b"ok")
        await go_on.wait()

    handler = Handler(counts_after)
    async with edged(handler) as edge:
        reader, writer = await edge.open(GET)
        await reader.readuntil(b"ok")
        connection = handler.exchanges[0].carrier
        writer.close()
        while connection in edge.server.connections:
            await asyncio.sleep(0)
        assert not handler.exchanges[0].left
        go_on.set()
        assert await handler.ended() == ["returned"]
