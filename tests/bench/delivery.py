"""How many records a second reach all sinks, and what each costs: real journal files, Valkey, SQLite, Prometheus.

    python tests/bench/delivery.py [--records 60000]

One process delivers what is on disk already, as after an outage; CPU is this process's and, apart, Valkey's.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from bench import processes
from taximeter.config import JournalSettings
from taximeter.control.process.priority import freeze
from taximeter.core.record import Open, Operation, Outcome, Record, Source
from taximeter.delivery import Delivery
from taximeter.journal import Journal
from taximeter.node.embedded_valkey import EmbeddedValkey
from taximeter.sinks.history.sink import History
from taximeter.sinks.prometheus.cells import Metrics
from taximeter.sinks.redis.counters import Counters
from taximeter.sinks.sink import Sink

WORKSPACES, CALLS_A_TRACK = 5, 20


def now_us() -> int:
    return time.time_ns() // 1000


def write_journal(directory: Path, records: int) -> None:
    """A worker's file: an open and a close line each, a few workspaces and models, a track for every 20 calls."""
    journal = Journal(directory, node="bench", worker="1", settings=JournalSettings(fsync="never"), now_us=now_us)
    for number in range(records):
        chat = number % 4 != 3
        at = now_us()
        same: dict[str, Any] = {
            "request_id": f"req_{at:013x}{number:012x}",
            "started_at": at,
            "workspace": f"workspace-{number // CALLS_A_TRACK % WORKSPACES}",
            "track": f"track-{number // CALLS_A_TRACK}",
            "task": ("extract", "query", "keyword")[number % 3],
            "upstream": "openai",
            "provider": "openai",
            "api": "chat" if chat else "embeddings",
            "operation": Operation.LLM if chat else Operation.EMBEDDING,
            "request_model": "gpt-4o-mini" if chat else "text-embedding-3-small",
            "request_bytes": 900,
        }
        file = journal.open(Open(**same))
        record = Record(
            **same,
            ended_at=at + 900_000,
            duration_ms=900.0,
            status=200,
            outcome=Outcome.OK,
            input_source=Source.REPORTED,
            output_source=Source.REPORTED if chat else Source.NONE,
            input_tokens=400 + number % 100,
            cached_input_tokens=64 if chat else None,
            output_tokens=90 if chat else None,
            cost_nusd=114_000,
            price_ref="bench",
            response_bytes=1_200,
        )
        journal.close(file, record)
    journal.shutdown()


async def deliver(folder: Path, redis_url: str) -> tuple[float, float, float]:
    """Seconds until every record on disk is in every sink, and of CPU; then those of CPU to sum them by tag."""
    history = History(f"sqlite:///{folder}/history.db")
    await history.prepare()
    sinks: list[Sink] = [history, Counters(redis_url, history=history), Metrics(history.cursors)]
    delivery = Delivery(folder / "journal", sinks, settings=JournalSettings(), node="bench", now_us=now_us)
    begun, used_s = time.perf_counter(), cpu_s()
    running = asyncio.create_task(delivery.run())
    drained = await delivery.drain(300, ("history", "redis", "prometheus"))
    took_s, used_s = time.perf_counter() - begun, cpu_s() - used_s
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    before_tags_s = cpu_s()
    await history.roll_up_tags()
    tags_s = cpu_s() - before_tags_s
    for sink in sinks:
        await sink.close()
    if not drained.complete:
        raise RuntimeError("not everything was delivered within 300 s")
    return took_s, used_s, tags_s


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(records: int) -> str:
    """One line for the benchmark page."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processes.PROXY_CORE})
    with tempfile.TemporaryDirectory(prefix="taximeter-bench-") as name:
        folder = Path(name)
        write_journal(folder / "journal", records)
        valkey = EmbeddedValkey(folder)
        url = valkey.start()
        try:
            freeze()  # as the control process does
            valkey_before = processes.cpu(os.getpid()).by_title.get("valkey", 0.0)
            took_s, used_s, tags_s = uvloop.run(deliver(folder, url))
            valkey_s = processes.cpu(os.getpid()).by_title.get("valkey", 0.0) - valkey_before
        finally:
            valkey.stop()
            os.sched_setaffinity(0, allowed)
    return (
        f"{records:,} records on disk reached Valkey, SQLite and Prometheus in {took_s:.2f} s on one core: "
        f"{records / took_s:,.0f} records/s; CPU a record: delivery {used_s / records * 1e6:.1f} µs, "
        f"Valkey {valkey_s / records * 1e6:.1f} µs. Behind it, every 10 s, summing by track: "
        f"{tags_s / records * 1e6:.1f} µs."
    )


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--records", type=int, default=60_000)
    sys.stdout.write(measure(options.parse_args().records) + "\n")
