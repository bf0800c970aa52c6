"""A Redis that lost what it knew of budgets, put together again step by step."""

import pytest
from redis.asyncio import Redis

from taximeter.budgets.holdings import GATHER_S, REBUILD_S, Holdings
from taximeter.budgets.reservations import Lost, Reservations, Reserved
from taximeter.budgets.rule import Allowance, Budget
from taximeter.core.errors import TaximeterError
from taximeter.sinks.redis.client import RedisServer

NOW_US = 1_793_707_200_000_000
B = Budget(id="b1", workspace="acme", unit="tokens", period="total", limit=100)


class World:
    def __init__(self, client, reservations):
        self.client, self.reservations = client, reservations
        self.swept = []
        self.now_s, self.rebuilt, self.whole, self.fails = 0.0, 0, True, False
        self.holdings = Holdings(
            reservations, rebuild=self.rebuild, drained=self.drained, sweep=self.sweep, clock_s=lambda: self.now_s
        )

    async def rebuild(self, workspace):
        if self.fails:
            raise TaximeterError("no history")
        self.rebuilt += 1
        await self.client.set(f"tm:{{{workspace}}}:gen", f"g{self.rebuilt}")
        await self.client.sadd(f"tm:{{{workspace}}}:tallies", B.tally.text)
        return 1

    async def drained(self, sink):
        return self.whole

    async def sweep(self, workspace):
        self.swept.append((workspace, (await self.reservations.state(workspace))[1]))

    async def step(self, after_s=0.0):
        self.now_s += after_s
        await self.holdings.secure(["acme"])
        return await self.reservations.state("acme")

    async def decided(self):
        return await self.reservations.reserve("r1#1", [(Allowance(B, ()), 10)], NOW_US)


@pytest.fixture
async def world(valkey_url):
    async with Redis.from_url(valkey_url, decode_responses=True) as client:
        await client.flushall()
        reservations = Reservations(RedisServer(valkey_url))
        yield World(client, reservations)
        await reservations.close()
        await client.flushall()


async def test_totals_first_then_what_is_held_then_calls_are_decided(world):
    generation, epoch = await world.step()
    assert (world.rebuilt, generation) == (1, "g1") and epoch.startswith("-")
    assert type(await world.decided()) is Lost
    assert await world.step(GATHER_S / 2) == (generation, epoch)
    world.whole = False  # Redis lacks records of ours
    assert await world.step() == await world.step(GATHER_S) == (generation, epoch)
    world.whole = True
    assert world.swept == []
    assert await world.step() == (generation, epoch[1:])
    assert world.swept == [("acme", epoch)]  # while nothing is decided yet
    assert type(await world.decided()) is Reserved
    assert await world.step(100) == (generation, epoch[1:]) and world.rebuilt == 1


async def test_without_history_nothing_is_begun(world):
    world.fails = True
    assert await world.step() == ("", "")
    world.fails, world.whole = False, False  # history lacks records of ours
    assert await world.step() == ("", "")
    world.whole = True
    assert (await world.step())[0] == "g1"


async def test_a_rebuild_whose_process_died_is_done_again(world):
    await world.step()
    await world.client.set("tm:{acme}:gen", "rebuild:x")
    await world.step()
    assert (await world.step(REBUILD_S - 1))[0] == "rebuild:x"
    assert (await world.step(1))[0] == "g2"


async def test_another_node_may_have_been_faster(world):
    await world.step()
    await world.step(GATHER_S - 0.1)
    await world.client.hset("tm:{acme}:held", ":epoch", "-5")  # it began anew: what it gathers takes its time again
    assert (await world.step(0.2))[1] == "-5"
    assert (await world.step(GATHER_S))[1] == "5"
