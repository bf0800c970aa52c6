"""Answers that end early, at every chunk, on either side; and answers that are none."""

import asyncio
import random

import httpx2
import pytest

from faults import misbehaving
from faults.running import Node
from taximeter.core.record import Outcome
from upstream import CLOSE, RESET, Script
from waits import HANG_S

CHUNKS = 6


@pytest.fixture
async def node(tmp_path):
    async with Node(tmp_path, workers=1, chunks=CHUNKS) as running:
        yield running


async def test_a_client_that_leaves_at_any_chunk_is_recorded_once(node, seed, figures):
    dice = random.Random(seed)
    node.loads.urls[:] = [node.url]
    async with httpx2.AsyncClient(timeout=HANG_S) as client:
        for leave_after in range(CHUNKS + 6):
            await node.loads.call(client, dice, kind="stream", leave_after=leave_after)
    await node.settle()
    compared = node.compare()
    assert compared["client_left"] >= CHUNKS
    figures.add(compared)


async def test_a_client_that_leaves_before_anything_came_is_recorded_once(node, seed, figures):
    """A stream's upstream is cancelled; a unary answer is awaited, because it is billed anyway."""
    dice = random.Random(seed)
    node.loads.urls[:] = [node.url]
    gate = asyncio.Event()
    node.provider.handler = lambda request: Script(
        (gate, lambda whole: misbehaving.cut(node.provider, whole, at=1.0))  # "cut" at its end: the whole answer
    )
    for kind in ("stream", "chat", "embedding", "rerank"):
        gate.clear()
        seen = len(node.provider.requests)
        async with httpx2.AsyncClient(timeout=HANG_S) as client:
            task = asyncio.create_task(node.loads.call(client, dice, kind=kind))
            await node.provider.until(lambda n=seen: len(node.provider.requests) > n)
            task.cancel()
            await asyncio.wait([task])
        gate.set()
    await node.settle()
    figures.add(node.compare())


@pytest.mark.parametrize("how", [CLOSE, RESET], ids=["close", "reset"])
@pytest.mark.parametrize("kind", ["stream", "chat"])
async def test_an_upstream_that_cuts_at_any_chunk_is_recorded_once(node, seed, kind, how, figures):
    dice = random.Random(seed)
    node.loads.urls[:] = [node.url]
    counted = 0
    async with httpx2.AsyncClient(timeout=HANG_S) as client:
        for at in range(CHUNKS + 5 if kind == "stream" else 3):

            def part(request, at=at):
                misbehaving.bill(node.provider, request, complete=False)
                return b"".join(misbehaving.usual(node.provider, request)[:at])

            node.provider.handler = lambda request, part=part: Script((part, how))
            try:
                await node.loads.call(client, dice, kind=kind)
            except httpx2.HTTPError:
                counted += 1
    await node.settle()
    compared = node.compare()
    assert counted, "no client noticed a cut"
    assert compared.get("upstream_cut", 0) >= counted
    figures.add(compared)


async def test_an_upstream_out_of_sorts_is_recorded_call_by_call(node, seed, figures):
    node.provider.handler = misbehaving.of(node.provider, random.Random(seed), 0.7)
    async with node.load(clients=4, seed=seed, chance_to_leave=0.2):
        await node.answered(300)
    await node.settle()
    compared = node.compare()
    outcomes = {Outcome.OK, Outcome.UPSTREAM_ERROR, Outcome.UPSTREAM_CUT}
    assert outcomes <= compared.keys()
    figures.add(compared)
