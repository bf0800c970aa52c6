"""A batch whose results two nodes fetch at once, one of which is lost for good: each line is settled once."""

import asyncio
import contextlib

import pytest

import postgres
from faults.test_fleet import _adopt, fleet
from taximeter.core.deferred import TOLD
from test_owed_node import answer, fetch, of_kind, settled, submit, tokens

pytestmark = [pytest.mark.skipif(postgres.binaries() is None, reason="no PostgreSQL is installed")]


async def test_two_nodes_fetch_the_same_batch_and_one_is_lost_for_good(tmp_path):
    async with fleet(tmp_path, 2) as (first, lost):
        first.provider.handler = answer
        await submit(lost)
        polling = [asyncio.create_task(fetch(node)) for node in (first, lost, first)]
        await lost.until(lambda: len(of_kind(lost, TOLD)) == 300, "through its results")
        lost.kill_everything()  # it may have claimed lines, written settlements, delivered some
        await asyncio.gather(*polling)
        adopted = await asyncio.to_thread(_adopt, lost, first)
        assert adopted.startswith("Moved"), adopted
        await fetch(first)
        await settled(first)
        await first.settle()
        lines = [each.line for each in of_kind(first, "usage")]
        assert sorted(lines) == sorted(f"line-{n}" for n in range(300))
        assert await tokens(first) == 300_000
        assert (await first.get("/usage/owed"))["data"] == []
        with contextlib.closing(first.redis()) as client:
            assert client.hget("tm:{acme}:total", "llm_input_tokens") == "300000"
