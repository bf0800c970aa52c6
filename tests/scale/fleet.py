"""A fleet at rest: what the product's own timetable asks of Redis and PostgreSQL, act by act, with so many nodes there.

A few nodes are whole (`control.process.parts`); the others are entered as those enter themselves. An act is measured
when it is this node's turn and when it is not, once nothing is new any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from scale.servers import Asked, Servers
from simulation.actors.node import FlatPrices
from taximeter.budgets.holdings import GATHER_S
from taximeter.budgets.rule import Budget
from taximeter.config import HistorySettings, RedisSettings, Settings, UpstreamSettings
from taximeter.config.settings import BreakerSettings
from taximeter.control.process import course, timetable
from taximeter.control.process.parts import Parts
from taximeter.delivery.shipper import ASK_AGAIN_S
from taximeter.node.child import Boot
from taximeter.sinks.redis import keys
from taximeter.sinks.redis.nodes import ENOUGH

BUDGETS, KEYS = 20, 200
"""Hard budgets, each of a workspace of its own, and proxy keys that all nodes know."""


JOURNALS = [f"{n:032x}" for n in range(1, 9)]
"""What a node has of its last hour."""

AUDIT = "auditing Redis against history"


class Act(NamedTuple):
    period_s: float
    name: str
    act: Callable[[], Awaitable[object]]


class Cost(NamedTuple):
    """What an act asks for on average, with so many nodes there."""

    name: str
    period_s: float
    commands: float
    bytes: float
    statements: float


class AtRest(NamedTuple):
    costs: list[Cost]
    connections_to_history: int
    connections_to_redis: int


def parts_of(servers: Servers, folder: Path, name: str) -> Parts:
    """A node's control process without its port; a breaker is set."""
    settings = Settings(
        upstream=[UpstreamSettings()],
        redis=RedisSettings(url=servers.redis_url),
        history=HistorySettings(url=servers.history_url),
        breaker=[BreakerSettings(name="runaway", scope="track", ceiling="100", floor="1")],
        data_dir=str(folder),
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "journal").mkdir(exist_ok=True)
    boot = Boot(settings=settings, node=name, redis_url=servers.redis_url, redis_url_file="", prices_file="")
    prices: Any = FlatPrices()
    return Parts(boot, {}, prices_of=lambda _: prices)


def acts_of(parts: Parts) -> list[Act]:
    """The timetable's acts, as it would repeat them."""
    found: list[Act] = []

    async def nothing() -> None:
        """In place of what goes on for ever."""

    def noted(period_s: float, name: str, act: Callable[[], Awaitable[object]], _: object) -> Any:
        found.append(Act(period_s, name, act))
        return nothing()

    with patch.object(timetable, "every", noted):
        for coroutine in timetable.upkeep(parts):
            coroutine.close()

    async def ask() -> None:
        for sink in (parts.history, parts.counters):
            await sink.cursors(JOURNALS)

    return [*found, Act(ASK_AGAIN_S, "asking where sinks are", ask)]


async def fill(servers: Servers, parts: Parts) -> None:
    """Budgets and keys that all share."""
    created_at = time.time_ns() // 1_000
    parts.budgets.store.absorb(
        Budget(id=f"bud_{n:012x}", workspace=f"budgeted-{n}", limit=10**12, created_at=created_at)
        for n in range(BUDGETS)
    )
    for n in range(KEYS):
        parts.force.keys.create(f"workspace-{n}")
    marks = [word for name in JOURNALS for word in (name, 1)]
    await parts.counters.server.command("HSET", keys.WATERMARK, *marks)


async def enter(servers: Servers, name: str, nodes: int) -> None:
    """As many more nodes beside `name`, each with what that one has in the hashes that have a field a node."""
    from redis.asyncio import RedisCluster

    async with RedisCluster(host="127.0.0.1", port=servers.shards[0].port, decode_responses=True) as client:
        for key in ("tm:nodes", "tm:pace"):
            entry = await client.hget(key, name)
            if entry and nodes > 1:
                await client.hset(key, mapping={f"node-{n:04}": entry for n in range(1, nodes)})


async def say_who_audits(servers: Servers, name: str) -> None:
    """Whose turn it is."""
    from redis.asyncio import RedisCluster

    async with RedisCluster(host="127.0.0.1", port=servers.shards[0].port) as client:
        await client.set(keys.AUDITOR, name, px=180_000)


async def at_rest(servers: Servers, folder: Path, nodes: int) -> AtRest:
    """One node among so many: the cost of each act, and its connections."""
    parts = parts_of(servers, folder / "node-0000", "node-0000")
    chance = [0.0]
    fleet = parts.counters.rebuilder.fleet
    fleet._chance = lambda: chance[0]
    await course.prepare(parts)
    running = asyncio.create_task(parts.delivery.run())  # there is nothing to deliver: it asks nobody
    try:
        if not parts.budgets.store.stored():
            await fill(servers, parts)
        acts = acts_of(parts)
        for _ in range(3):  # until nothing is new, and every budget is open
            for act in acts:
                await act.act()
            await asyncio.sleep(GATHER_S if parts.budgets._holdings.waiting else 0)
        await enter(servers, "node-0000", nodes)
        await parts.register()
        assert fleet.nodes == nodes, (fleet.nodes, nodes)
        for act in acts:
            await act.act()
        costs = [await _cost(servers, act, chance, nodes) for act in acts]
        return AtRest(costs, *(await servers.connections()))
    finally:
        running.cancel()
        await asyncio.wait([running])
        await course.close(parts)


async def _cost(servers: Servers, act: Act, chance: list[float], nodes: int) -> Cost:
    audits = act.name == AUDIT
    share = 1 / nodes if audits else min(1.0, ENOUGH / nodes)
    found: list[Asked] = []
    for chance[0] in (0.0, 0.999_999):
        if audits:  # one does, for all
            await say_who_audits(servers, "another" if found else "node-0000")
        before = await servers.look()
        await act.act()
        found.append(await servers.asked(before))
    if audits:
        await say_who_audits(servers, "node-0000")
    turn, other = found
    return Cost(
        act.name,
        act.period_s,
        share * turn.redis + (1 - share) * other.redis,
        max(0, share * (turn.out_bytes + turn.in_bytes) + (1 - share) * (other.out_bytes + other.in_bytes)),
        share * turn.statements + (1 - share) * other.statements,
    )


def table(rest: dict[int, AtRest]) -> list[str]:
    """Commands, bytes and statements a second of all nodes, and act by act at the largest number."""
    lines = ["| nodes | Redis commands/s | Redis kB/s | SQL statements/s |", "|---:|---:|---:|---:|"]
    costs = {nodes: of.costs for nodes, of in rest.items()}
    for nodes, of in costs.items():
        redis = sum(each.commands / each.period_s for each in of) * nodes
        size = sum(each.bytes / each.period_s for each in of) * nodes
        sql = sum(each.statements / each.period_s for each in of) * nodes
        lines.append(f"| {nodes:,} | {redis:,.0f} | {size / 1_000:,.0f} | {sql:,.0f} |")
    most = max(costs)
    lines += ["", f"Act by act, of {most:,} nodes:", "", "| what | every | commands/s | kB/s | statements/s |"]
    lines.append("|---|---:|---:|---:|---:|")
    for each in sorted(costs[most], key=lambda cost: -cost.bytes / cost.period_s):
        rate = most / each.period_s
        if each.commands or each.statements:
            lines.append(
                f"| {each.name} | {each.period_s:g} s | {each.commands * rate:,.0f} | {each.bytes * rate / 1_000:,.0f} "
                f"| {each.statements * rate:,.0f} |"
            )
    last = rest[most]
    kept = f"{last.connections_to_history} to PostgreSQL, {last.connections_to_redis} to the three shards"
    lines += ["", f"Connections that a control process keeps at rest: {kept}."]
    return lines
