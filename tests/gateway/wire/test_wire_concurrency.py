"""Many calls at once against a provider that resets, cuts and babbles: no answer ever reaches another caller."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from taximeter.core.errors import UpstreamError
from upstream import CLOSE, LAST_CHUNK, RESET, Provider, Request, Script, chunk, response, stream_head
from waits import HANG_S

CALLS = 400
WORKERS = 16


class Moody:
    """A provider's answers, chosen by a seeded die; each carries its request's marker and nothing else."""

    def __init__(self, die: random.Random) -> None:
        self.die = die

    def __call__(self, request: Request) -> Script:
        marker = (request.header("x-marker") or "").encode()
        stray = response(b"stray: not for you")
        moods = [
            (response(marker),),
            (response(marker, framing="chunked"),),
            (stream_head(), *(chunk(marker[n : n + 1]) for n in range(len(marker))), LAST_CHUNK),
            (response(marker, framing="close"), CLOSE),
            (response(marker) + stray,),
            (response(marker, framing="chunked") + stray,),
            (response(marker), CLOSE),
            (response(marker), RESET),
            (RESET,),
            (CLOSE,),
            (response(marker)[:-1], RESET),
            (stream_head(), chunk(marker[:3]), CLOSE),
            (stream_head(), chunk(marker[:3]), b"garbage", CLOSE),
            (b"HTTP/1.1 100 Continue\r\n\r\n", response(marker)),
            (response(marker, headers=[("connection", "close")]), stray, CLOSE),
        ]
        weights = [20, 10, 10] + [1] * (len(moods) - 3)
        return Script(self.die.choices(moods, weights)[0], at_head=self.die.random() < 0.1)


@pytest.mark.parametrize("seed", range(3))
async def test_every_answer_is_the_callers_own(client_of, seed) -> None:
    die = random.Random(seed)
    complete = 0
    async with Provider(handler=Moody(die)) as provider:
        client = client_of(provider, max_connections=8)

        async def body(marker: bytes):
            for _ in range(die.randrange(3)):
                await asyncio.sleep(0)
                yield marker

        async def call(number: int) -> None:
            nonlocal complete
            marker = b"<%d-%d>" % (seed, number)
            headers = [(b"x-marker", marker)]
            answer = None
            try:
                sent = body(marker) if die.random() < 0.2 else marker
                answer = await client.upstream.send(b"POST", b"/v1/x", headers, sent)
                got = b""
                while piece := await answer.read():
                    got += piece
                    assert marker.startswith(got)
                    if die.random() < 0.02:
                        return
                assert got == marker
                complete += 1
            except UpstreamError:
                pass
            finally:
                if answer is not None:
                    answer.abort()

        async def worker(first: int) -> None:
            for number in range(first, CALLS, WORKERS):
                task = asyncio.ensure_future(call(number))
                if die.random() < 0.15:
                    for _ in range(die.randrange(12)):
                        await asyncio.sleep(0)
                    task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

        async with asyncio.timeout(HANG_S):
            await asyncio.gather(*map(worker, range(WORKERS)))
        pool = client.pool
        assert complete > CALLS / 2
        assert pool.live == pool.idle and pool._slots == 8 - pool.live
        assert not pool._waiting
        assert pool.opened < CALLS / 2, "connections were reused"
