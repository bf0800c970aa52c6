"""Answers that end early, at every chunk, on either side; and answers that are none."""

import asyncio
import random

import httpx2
import pytest

from faults import upsets
from faults.house import House
from taximeter.core.record import Outcome
from upstream import CLOSE, RESET, Script
from waits import HANG_S

CHUNKS = 6


@pytest.fixture
async def house(tmp_path):
    async with House(tmp_path, workers=1, chunks=CHUNKS) as running:
        yield running


async def test_a_client_that_leaves_at_any_chunk_is_recorded_once(house, seed, figures):
    dice = random.Random(seed)
    house.loads.urls[:] = [house.url]
    async with httpx2.AsyncClient(timeout=HANG_S) as client:
        for leave_after in range(CHUNKS + 6):
            await house.loads.call(client, dice, kind="stream", leave_after=leave_after)
    await house.settle()
    compared = house.compare()
    assert compared["client_left"] >= CHUNKS
    figures.add(compared)


async def test_a_client_that_leaves_before_anything_came_is_recorded_once(house, seed, figures):
    """A stream's upstream is cancelled; a unary answer is awaited, because it is billed anyway."""
    dice = random.Random(seed)
    house.loads.urls[:] = [house.url]
    gate = asyncio.Event()
    house.provider.handler = lambda request: Script(
        (gate, lambda whole: upsets.cut(house.provider, whole, at=1.0))  # "cut" at its end: the whole answer
    )
    for kind in ("stream", "chat", "embedding", "rerank"):
        gate.clear()
        seen = len(house.provider.requests)
        async with httpx2.AsyncClient(timeout=HANG_S) as client:
            task = asyncio.create_task(house.loads.call(client, dice, kind=kind))
            await house.provider.until(lambda n=seen: len(house.provider.requests) > n)
            task.cancel()
            await asyncio.wait([task])
        gate.set()
    await house.settle()
    figures.add(house.compare())


@pytest.mark.parametrize("how", [CLOSE, RESET], ids=["close", "reset"])
@pytest.mark.parametrize("kind", ["stream", "chat"])
async def test_an_upstream_that_cuts_at_any_chunk_is_recorded_once(house, seed, kind, how, figures):
    dice = random.Random(seed)
    house.loads.urls[:] = [house.url]
    counted = 0
    async with httpx2.AsyncClient(timeout=HANG_S) as client:
        for at in range(CHUNKS + 5 if kind == "stream" else 3):

            def part(request, at=at):
                upsets.bill(house.provider, request, complete=False)
                return b"".join(upsets.usual(house.provider, request)[:at])

            house.provider.handler = lambda request, part=part: Script((part, how))
            try:
                await house.loads.call(client, dice, kind=kind)
            except httpx2.HTTPError:
                counted += 1
    await house.settle()
    compared = house.compare()
    assert counted, "no client noticed a cut"
    assert compared.get("upstream_cut", 0) >= counted
    figures.add(compared)


async def test_an_upstream_out_of_sorts_is_recorded_call_by_call(house, seed, figures):
    house.provider.handler = upsets.of(house.provider, random.Random(seed), 0.7)
    async with house.load(clients=4, seed=seed, chance_to_leave=0.2):
        await house.answered(300)
    await house.settle()
    compared = house.compare()
    outcomes = {Outcome.OK, Outcome.UPSTREAM_ERROR, Outcome.UPSTREAM_CUT}
    assert outcomes <= compared.keys()
    figures.add(compared)
