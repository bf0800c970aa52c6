"""What many nodes on one Redis share out, so that a thousand ask little more of it than eight."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from closing import closed
from taximeter.core.errors import ConfigError
from taximeter.sinks.redis.client import RedisServer
from taximeter.sinks.redis.keys import NODES
from taximeter.sinks.redis.nodes import ENOUGH, LIVE_S, Fleet, Turn, register_node


@pytest.fixture
async def server(redis: Redis, valkey_url: str) -> AsyncIterator[RedisServer]:
    async with closed(RedisServer(valkey_url)) as server:
        yield server


async def readings(redis: Redis) -> int:
    """How often a whole hash was read."""
    told = await redis.info("commandstats")
    return int(told.get("cmdstat_hgetall", {}).get("calls", 0))


def test_of_a_thousand_that_ask_about_eight_have_their_turn_and_of_eight_all() -> None:
    dice = random.Random(7)
    fleet = Fleet(dice.random)
    for fleet.nodes in (1, 2, ENOUGH):
        assert all(fleet.turn() for _ in range(100))
    for fleet.nodes in (20, 1_000):
        turns = sum(fleet.turn() for _ in range(fleet.nodes * 100))
        assert 0.8 * ENOUGH * 100 < turns < 1.2 * ENOUGH * 100


async def test_a_node_among_many_reads_all_of_them_when_it_comes_and_then_at_its_turn(
    server: RedisServer, redis: Redis
) -> None:
    now_s = int((await redis.time())[0])
    await redis.hset(NODES, mapping={f"n{n}": f"h {now_s}" for n in range(1_000)})
    await redis.hset(NODES, "gone", f"h {now_s - LIVE_S - 9}")
    chances = [0.9]
    fleet = Fleet(lambda: chances[0])
    await register_node(server, "mine", "h", fleet)
    assert fleet.nodes == 1_001 and not await redis.hexists(NODES, "gone")
    before = await readings(redis)
    for _ in range(3):
        await register_node(server, "mine", "h", fleet)
    assert await readings(redis) == before
    chances[0] = 0.0
    await register_node(server, "mine", "h", fleet)
    assert await readings(redis) == before + 1


async def test_a_node_that_was_taken_off_looks_again_who_is_there(server: RedisServer, redis: Redis) -> None:
    now_s = int((await redis.time())[0])
    await redis.hset(NODES, mapping={f"n{n}": f"h {now_s}" for n in range(1_000)})
    fleet = Fleet(lambda: 0.9)
    await register_node(server, "mine", "h", fleet)
    await redis.delete(NODES)  # whoever came while this node was away for long
    await redis.hset(NODES, "other", f"another-history {now_s}")
    with pytest.raises(ConfigError, match="'other' counts"):
        await register_node(server, "mine", "h", fleet)
    assert await redis.hkeys(NODES) == ["other"]


async def test_one_node_has_the_turn_until_it_is_away_or_fails(server: RedisServer, redis: Redis) -> None:
    one, two = Turn(server, "tm:turn", "one", 60), Turn(server, "tm:turn", "two", 60)

    async def held(turn: Turn) -> bool:
        async with turn.held() as ours:
            return ours

    assert [await held(turn) for turn in (one, two, one, two)] == [True, False, True, False]
    assert await held(Turn(server, "tm:turn", "one", 60)), "the same node, killed and started again"
    assert 50_000 < await redis.pttl("tm:turn") <= 60_000
    await redis.delete("tm:turn")  # its time is over
    assert [await held(turn) for turn in (two, one)] == [True, False]
    with pytest.raises(RuntimeError):
        async with one.held():
            raise RuntimeError("not ours, so nobody's turn ends")
    assert await held(two)
    with pytest.raises(RuntimeError):
        async with two.held():
            raise RuntimeError("its history is away")
    assert await held(one)
    await two.leave()
    assert not await held(two)
    await one.leave()
    assert await held(two)
