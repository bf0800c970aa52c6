"""Reading an answer: pulled or pushed, with back-pressure, until it ends one way or another."""

from __future__ import annotations

import asyncio

import pytest

from taximeter.core.errors import UpstreamCut
from taximeter.gateway.upstream.response import HIGH_BYTES
from upstream import CLOSE, LAST_CHUNK, STALL, chunk, response, stream_head
from waits import HANG_S


class Sink:
    """What `pipe` is given by these tests: notes everything, refuses more when told to."""

    def __init__(self, answer, *, takes: bool = True) -> None:
        self.answer = answer
        self.takes = takes
        self.data: list[bytes] = []
        self.ended_during_data: list[bool] = []
        self.news = asyncio.Event()

    def on_data(self, data: bytes) -> bool:
        self.data.append(data)
        self.ended_during_data.append(self.answer.ended)
        self.news.set()
        return self.takes

    async def pipe(self) -> bool:
        async with asyncio.timeout(HANG_S):
            return await self.answer.pipe(self.on_data)

    async def until(self, condition) -> None:
        async with asyncio.timeout(HANG_S):
            while not condition():
                self.news.clear()
                await self.news.wait()


async def test_pushed_frames_that_came_together_leave_together(provider, client) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    provider.script(stream_head() + chunk(b"a"), first, chunk(b"b") + chunk(b"c"), second, chunk(b"d") + LAST_CHUNK)
    sink = Sink(await client.send())
    piping = asyncio.ensure_future(sink.pipe())
    await sink.until(lambda: sink.data == [b"a"])
    first.set()
    await sink.until(lambda: len(sink.data) == 2)
    second.set()
    assert await piping
    assert sink.data == [b"a", b"bc", b"d"]
    assert sink.ended_during_data == [False, False, True]
    assert client.pool.idle == 1


async def test_a_complete_answer_is_pushed_at_once(provider, client) -> None:
    provider.script(response(b"fine"))
    sink = Sink(await client.send(), takes=False)
    assert await sink.pipe()  # there is nothing left that could wait for its reader
    assert (sink.data, sink.ended_during_data) == ([b"fine"], [True])
    assert await sink.pipe()
    assert sink.data == [b"fine"]


async def test_the_end_alone_pushes_nothing(provider, client) -> None:
    go_on = asyncio.Event()
    provider.script(stream_head() + chunk(b"a"), go_on, LAST_CHUNK)
    sink = Sink(await client.send())
    go_on.set()
    assert await sink.pipe()
    assert sink.data == [b"a"]


async def test_a_cut_is_told_after_what_came(provider, client) -> None:
    go_on = asyncio.Event()
    provider.script(stream_head() + chunk(b"a"), go_on, chunk(b"b"), CLOSE)
    sink = Sink(await client.send())
    go_on.set()
    with pytest.raises(UpstreamCut):
        await sink.pipe()
    assert b"".join(sink.data) == b"ab"


async def test_a_pushed_answer_waits_for_its_reader(provider, client) -> None:
    total = 8 * 1024 * 1024
    provider.script(response(b"x" * total))
    sink = Sink(await client.send(), takes=False)
    while not await sink.pipe():
        assert not provider.requests[0].answered or sum(map(len, sink.data)) > total // 4
    assert sum(map(len, sink.data)) == total
    assert max(map(len, sink.data)) <= 4 * HIGH_BYTES
    assert client.pool.idle == 1


async def test_what_a_pushs_receiver_raises_is_told_to_who_pipes(provider, client) -> None:
    go_on = asyncio.Event()
    provider.script(stream_head() + chunk(b"a"), go_on, chunk(b"b"), STALL)
    sink = Sink(await client.send())

    def fail(data: bytes) -> bool:
        sink.on_data(data)
        if data == b"b":
            raise ZeroDivisionError
        return True

    piping = asyncio.ensure_future(sink.answer.pipe(fail))
    await sink.until(lambda: sink.data == [b"a"])
    go_on.set()
    with pytest.raises(ZeroDivisionError):
        await piping
    sink.answer.abort()
    await provider.until(lambda: provider.requests[0].client_left)
    assert (sink.data, client.pool.live) == ([b"a", b"b"], 0)


async def test_a_pipe_that_is_cancelled_pushes_no_more(provider, client) -> None:
    go_on = asyncio.Event()
    provider.script(stream_head() + chunk(b"a"), go_on, chunk(b"b") + LAST_CHUNK)
    sink = Sink(await client.send())
    piping = asyncio.ensure_future(sink.pipe())
    await sink.until(lambda: sink.data == [b"a"])
    piping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await piping
    go_on.set()
    assert await sink.answer.read() == b"b"
    assert sink.data == [b"a"]


async def test_a_slow_reader_holds_the_upstream_back(provider, client) -> None:
    total = 16 * 1024 * 1024
    provider.script(response(b"x" * total))
    answer = await client.send()
    await asyncio.sleep(0)
    got = 0
    while piece := await answer.read():
        assert len(piece) <= 4 * HIGH_BYTES
        got += len(piece)
    assert got == total and answer.ended
    assert client.pool.idle == 1


async def test_an_unread_answer_is_held_only_up_to_its_bound(provider, client) -> None:
    provider.script(response(b"x" * 64 * 1024 * 1024), STALL)
    answer = await client.send()
    await provider.until(lambda: provider._live and next(iter(provider._live)).writable.is_set() is False)
    for _ in range(50):  # turns of the loop in which more would come, were it not held back
        await asyncio.sleep(0)
    assert answer._held_bytes <= 3 * HIGH_BYTES
    answer.abort()
    await provider.until(lambda: provider.requests[0].client_left)


async def test_abort_hangs_up_and_is_harmless_afterwards(provider, client) -> None:
    provider.script(stream_head() + chunk(b"a"), STALL)
    answer = await client.send()
    answer.abort()
    answer.abort()
    await provider.until(lambda: provider.requests[0].client_left)
    assert client.pool.live == 0
    done = await client.send()
    await done.read()
    done.abort()
    assert client.pool.idle == 1


async def test_a_cancelled_send_hangs_up(provider, client) -> None:
    provider.script(STALL)
    sending = asyncio.ensure_future(client.send())
    await provider.until(lambda: provider.requests and provider.requests[0].complete)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await provider.until(lambda: provider.requests[0].client_left)
    assert client.pool.live == 0


async def test_a_cancelled_read_leaves_the_answer_readable(provider, client) -> None:
    go_on = asyncio.Event()
    provider.script(stream_head() + chunk(b"a"), go_on, chunk(b"b") + LAST_CHUNK)
    answer = await client.send()
    assert await answer.read() == b"a"
    reading = asyncio.ensure_future(answer.read())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert client.pool.idle == 0
    go_on.set()
    assert await answer.read() == b"b"
