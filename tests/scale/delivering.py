"""What grows with nodes, workspaces and calls when they deliver: real sinks, one journal a node, synthetic records."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from closing import closed
from ledger_fake import batch, record
from scale.servers import Servers
from taximeter.core.record import Record
from taximeter.sinks.history.sink import History
from taximeter.sinks.redis.counters import Counters
from taximeter.sinks.redis.rebuild import CountersMoved

CALLS, BATCH, CALLS_A_TRACK = 30, 15, 10
"""Records of a node's journal, of them delivered at a time, and with the same track."""
AT_ONCE = 6
"""Nodes that deliver at the same time, on a machine with few cores."""


class Stage(NamedTuple):
    """After so many nodes have delivered."""

    nodes: int
    workspaces: int
    calls: int
    commands_a_batch: float
    bytes_a_call: float
    statements_a_batch: float
    keys: int
    rows: dict[str, int]
    size_bytes: int
    took_s: float


def journal(node: int, workspaces: int) -> list[Record]:
    """What a node's calls were: three workspaces of its own choice, two models."""
    now_us = time.time_ns() // 1_000
    return [
        record(
            seq,
            journal_id=f"journal-{node:04}",
            workspace=f"of-{workspaces}-{(node * 3 + seq % 3) % workspaces}",
            track=f"track-{node}-{seq // CALLS_A_TRACK}",
            response_model=("gpt-4o-mini", "gpt-4o")[seq % 2],
            ended_at=now_us - (CALLS - seq) * 1_000,
        )
        for seq in range(1, CALLS + 1)
    ]


async def deliver(servers: Servers, node: int, workspaces: int) -> None:
    """A node's whole journal into history and Redis."""
    async with (
        closed(History(servers.history_url, f"node-{node:04}")) as history,
        closed(Counters(servers.redis_url, history=history)) as counters,
    ):
        records = journal(node, workspaces)
        for start in range(0, CALLS, BATCH):
            await history.deliver([batch(records[start : start + BATCH])])
            await _count(counters, records[: start + BATCH])


async def _count(counters: Counters, records: list[Record]) -> None:
    """As delivery does: from where Redis is, again after whatever went wrong."""
    journal_id = records[0].event_id.rpartition(":")[0]
    while True:
        try:
            at = counters.positions.at.get(journal_id, 0) or (await counters.cursors([journal_id]))[journal_id]
            if at < len(records):
                await counters.deliver([batch(records[at:])])
            return
        except CountersMoved:  # the first to come to an empty Redis sees that nothing was lost; others wait for it
            await asyncio.sleep(0.05)


async def stage(servers: Servers, first: int, nodes: int, workspaces: int) -> Stage:
    """Nodes from `first` up to `nodes` deliver; then it is counted what is there of all."""
    before, begun = await servers.look(), time.perf_counter()
    waiting = iter(range(first, nodes))

    async def several() -> None:
        for node in waiting:
            await deliver(servers, node, workspaces)

    await asyncio.gather(*(several() for _ in range(AT_ONCE)))
    took_s = time.perf_counter() - begun
    asked = await servers.asked(before)
    async with closed(History(servers.history_url)) as history:
        await history.roll_up_tags()
    batches = (nodes - first) * -(-CALLS // BATCH)
    return Stage(
        nodes,
        workspaces,
        nodes * CALLS,
        asked.redis / batches,
        (asked.in_bytes + asked.out_bytes) / ((nodes - first) * CALLS),
        asked.statements / batches,
        await servers.keys(),
        servers.rows(),
        servers.size_bytes(),
        took_s,
    )


TABLES = {
    "records": ("usage_events",),
    "roll-ups": ("usage_rollup", "usage_rollup_hour", "usage_rollup_day", "usage_rollup_month"),
    "summaries": ("usage_summary", "usage_summary_hour", "usage_summary_day", "usage_summary_month"),
    "by tag": ("usage_tags_hour", "usage_tags_day", "usage_tags_month"),
    "journals": ("journals",),
    "evidence": ("evidence_pieces", "evidence_segments"),
}


def table(stages: list[Stage]) -> list[str]:
    """One line a stage."""
    lines = [
        "| nodes | workspaces | calls | Redis commands a batch | Redis bytes a call | SQL statements a batch | "
        + " | ".join(["Redis keys", *(f"{name} (rows)" for name in TABLES)])
        + " |",
        "|" + "---:|" * (7 + len(TABLES)),
    ]
    for each in stages:
        rows = " | ".join(f"{sum(each.rows.get(name, 0) for name in names):,}" for names in TABLES.values())
        lines.append(
            f"| {each.nodes:,} | {each.workspaces:,} | {each.calls:,} | {each.commands_a_batch:.0f} "
            f"| {each.bytes_a_call:,.0f} | {each.statements_a_batch:.0f} | {each.keys:,} | {rows} |"
        )
    return lines
