"""A node brings its `[[export]]` to what history has by itself."""

import asyncio
import csv
import json
import time
from decimal import Decimal

import pytest

from control_plane import record
from ledger import batch
from nodes import node
from taximeter.sinks.history.sink import History
from waits import until

pytestmark = pytest.mark.xdist_group("processes")


def test_a_node_exports_by_itself_and_the_command_finds_nothing_left_to_do(tmp_path):
    now_us = time.time_ns() // 1_000

    async def used_before():
        history = History(f"sqlite:///{tmp_path}/data/history.db")
        await history.deliver(
            [batch([record(n, cost_nusd=27_000 + n, ended_at=now_us - 1) for n in range(3)], "j1", 0)]
        )
        await history.close()

    (tmp_path / "data").mkdir(mode=0o700)
    asyncio.run(used_before())
    month = time.strftime("%Y-%m", time.gmtime((now_us - 1) // 10**6))
    asked = [{"to": "finance", "formats": ["csv", "focus"]}]
    with node(tmp_path, TAXIMETER_EXPORT=json.dumps(asked)) as running:
        runtime = running.start()
        charges = tmp_path / f"finance/{month}/usage.focus.csv"
        until((charges.parent / f"{charges.name}.json").exists, "the export", runtime.pid)
        rows = list(csv.DictReader(charges.read_text().splitlines()))
        assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal("0.000081003")
        done = running.run("export", "--monthly", "finance", "--format", "csv", "--format", "focus")
        assert done.returncode == 0, done.stderr
        told = [line for line in done.stdout.splitlines() if line.startswith(month)]
        assert told == [f"{month}/usage.{kind}: is as history is, 3 records" for kind in ("csv", "focus.csv")]
