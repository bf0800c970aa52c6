"""What one Valkey core and one PostgreSQL take: CPU of the server by what it is asked, not the time it took here."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import NamedTuple

import psycopg
from redis.asyncio import Redis

from bench.delivery import write_journal
from closing import closed
from ledger_fake import batch, record
from postgres import Postgres
from taximeter.budgets.reservations import Reservations, Reserved
from taximeter.budgets.rule import Allowance, Budget
from taximeter.core.record import Record
from taximeter.sinks.history.sink import History
from taximeter.sinks.redis.client import RedisServer
from taximeter.sinks.redis.counters import Counters
from valkeys import known

TICKS = os.sysconf("SC_CLK_TCK")


class Counted(NamedTuple):
    """Of the counters, by how many records come at a time."""

    records_a_batch: int
    commands_a_thousand: float
    """Sent by us, the watermark's included; what scripts do inside is not."""
    cpu_us_a_batch: float


def calls(count: int, journal_id: str, workspace: str, first: int = 1) -> list[Record]:
    """Chats of one workspace, a track for every ten."""
    now_us = time.time_ns() // 1_000
    return [
        record(
            seq,
            journal_id=journal_id,
            workspace=workspace,
            track=f"{journal_id}-{seq // 10}",
            task="query",
            ended_at=now_us,
        )
        for seq in range(first, first + count)
    ]


async def counting(url: str, records_a_batch: int, batches: int = 400) -> Counted:
    """One hot workspace: each batch is a script call and a watermark's."""
    async with Redis.from_url(url, decode_responses=True) as client, closed(Counters(url)) as counters:
        await client.flushall()
        await counters.cursors(["j"])
        sent = [batch(calls(records_a_batch, "j", "hot", first=1 + n * records_a_batch)) for n in range(batches)]
        await counters.deliver(sent[:1])
        commands, cpu = await _commands(client), await _cpu_s(client)
        for each in sent[1:]:
            await counters.deliver([each])
        cpu, commands = await _cpu_s(client) - cpu, await _commands(client) - commands
    return Counted(
        records_a_batch,
        commands / ((batches - 1) * records_a_batch) * 1_000,
        cpu / (batches - 1) * 1e6,
    )


async def deciding(url: str, calls: int = 4_000) -> float:
    """CPU of Valkey, in µs, of one decision about a hard budget of a workspace (reserving; not the record's)."""
    budget = Budget(id="b1", workspace="hot", unit="usd", period="month", limit=10**15)
    now_us = time.time_ns() // 1_000
    server = RedisServer(url)
    async with Redis.from_url(url, decode_responses=True) as client:
        await client.flushall()
        await known(client, "hot", budgets=[budget])
        reservations = Reservations(server)
        await reservations.reserve("first#1", [(Allowance(budget, ()), 10)], now_us)
        cpu = await _cpu_s(client)
        for start in range(0, calls, 64):
            answers = await asyncio.gather(
                *(
                    reservations.reserve(f"r{n}#1", [(Allowance(budget, ()), 10)], now_us)
                    for n in range(start, min(start + 64, calls))
                )
            )
            assert all(type(answer) is Reserved for answer in answers)
        cpu = await _cpu_s(client) - cpu
        await reservations.close()
    return cpu / calls * 1e6


async def _commands(client: Redis) -> int:
    told = await client.info("commandstats")
    return sum(int(told.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))


async def _cpu_s(client: Redis) -> float:
    told = await client.info("cpu")
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


class Writing(NamedTuple):
    """Of PostgreSQL: so many nodes that deliver at once, each its own journal, as fast as it takes them."""

    nodes: int
    records_a_batch: int
    same: bool
    """All of one workspace."""
    batches_a_s: float
    records_a_s: float
    cpu_us_a_record: float
    """Of the server's processes."""


async def writing(postgres: Postgres, nodes: int, records_a_batch: int, *, same: bool, for_s: float = 2.0) -> Writing:
    """Into a database of its own, whose commits wait for the disk."""
    url = postgres.database()
    histories = [History(url, f"n{n}") for n in range(nodes)]
    await histories[0].prepare()
    done = 0

    async def one(number: int, history: History, until: float) -> None:
        nonlocal done
        journal_id, at, workspace = f"j{number}", 0, "hot" if same else f"own-{number}"
        while time.perf_counter() < until:
            sent = batch(calls(records_a_batch, journal_id, workspace, first=at + 1))
            await history.deliver([sent])
            at += records_a_batch
            done += 1

    now = time.perf_counter()
    await asyncio.gather(*(one(n, each, now) for n, each in enumerate(histories)))
    for number, each in enumerate(histories):  # connected, and every name known
        await each.deliver([batch(calls(records_a_batch, f"w{number}", "hot" if same else f"own-{number}"))])
    begun, cpu = time.perf_counter(), _cpu_of(postgres)
    done = 0
    await asyncio.gather(*(one(n, each, begun + for_s) for n, each in enumerate(histories)))
    took_s, cpu = time.perf_counter() - begun, _cpu_of(postgres) - cpu
    for each in histories:
        await each.close()
    records = done * records_a_batch
    return Writing(nodes, records_a_batch, same, done / took_s, records / took_s, cpu / max(1, records) * 1e6)


async def record_bytes(postgres: Postgres, records: int = 20_000) -> float:
    """What a record takes in PostgreSQL, its indexes and its part of the roll-ups by tag included."""
    url = postgres.database()
    async with closed(History(url)) as history:
        await history.deliver([batch(calls(1_000, "first", "hot"))])
        before = _size(url)
        for start in range(0, records, 1_000):
            await history.deliver([batch(calls(1_000, "j", "hot", first=start + 1))])
        await history.roll_up_tags()
        return (_size(url) - before) / records


def _size(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        (size,) = connection.execute("select pg_database_size(current_database())").fetchone() or (0,)
    return int(size)


def durable(postgres: Postgres) -> None:
    """Have commits wait for the disk, as a server's do that is to keep something."""
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute("alter system set fsync = on")
        connection.execute("select pg_reload_conf()")


def _cpu_of(postgres: Postgres) -> float:
    """CPU seconds of the server and its children, those that have ended too."""
    pid = (postgres.folder / "data" / "postmaster.pid").read_text().split()[0]
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == pid:
            total += int(fields[11]) + int(fields[12])
        elif stat.parent.name == pid:
            total += sum(map(int, fields[11:15]))
    return total / TICKS


def journal_bytes(folder: Path, records: int = 2_000) -> float:
    """Bytes of a worker's file for one call: its open and its close line."""
    write_journal(folder, records)
    return sum(file.stat().st_size for file in folder.glob("*.jsonl")) / records
