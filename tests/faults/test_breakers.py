"""A runaway on two nodes that share Redis and PostgreSQL: what they see adds up, both stop it, a kill frees nothing."""

from __future__ import annotations

import asyncio

import httpx2

from faults.test_fleet import fleet, pytestmark
from waits import HANG_S

__all__ = ["pytestmark"]

BREAKER = """
[[breaker]]
name = "runaway"
scope = "track"
unit = "tokens"
floor = 1000
ceiling = 3000
"""
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 60}


async def test_a_runaway_on_two_nodes_is_stopped_on_both_and_a_kill_frees_nothing(tmp_path):
    async with fleet(tmp_path, 2, BREAKER) as (one, two), httpx2.AsyncClient(timeout=HANG_S) as client:

        async def call(node, track):
            return await client.post(f"http://127.0.0.1:{node.port}/w/acme/t/{track}/v1/chat/completions", json=CHAT)

        async def stopped(node):
            return (await call(node, "loop")).headers.get("x-taximeter-error") == "breaker_open"

        await asyncio.gather(
            one.until(lambda: stopped(one), "it to be stopped on one"),
            two.until(lambda: stopped(two), "it to be stopped on the other"),
        )
        assert (await call(one, "calm")).status_code == 200
        trips = [await node.metric('taximeter_breaker_trips_total{breaker="runaway"}') for node in (one, two)]
        assert sum(trips) == 1  # one of them tripped, the other was told
        one.kill_everything()
        one.start()
        await one.until_ready()
        assert await stopped(one) and await stopped(two)
        (trip,) = (await two.get("/breakers"))["data"]
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{two.admin}", timeout=HANG_S) as control:
            assert (await control.delete(f"/breakers/{trip['id']}")).status_code == 200

        async def passes(node):
            return (await call(node, "loop")).status_code == 200

        await one.until(lambda: passes(one), "it to go on where it was not reset")
        await two.until(lambda: passes(two), "it to go on where it was")
