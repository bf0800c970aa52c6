"""How long the dashboard's pages take, and what they leave in memory: on a history as `generate_history.py` makes it.

Every chart is drawn anew, as when calls end between two looks; then the time of a page of which nothing has changed.

python tests/bench/generate_history.py sqlite:////tmp/bench/history.db --records 1_000_000
python tests/bench/pages.py sqlite:////tmp/bench/history.db
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from bench.generate_history import END_US
from control_plane import ControlPlane
from taximeter.control.dashboard import charts, warm
from taximeter.sinks.history.sink import History
from taximeter.sinks.query import Filters

ROUNDS = 15
PAGES = (
    "/", "/?tz=Europe/Berlin", "/?period=90d", "/?period=365d&by=model", "/dashboard/workspaces/workspace-000",
    "/dashboard/records", "/dashboard/analytics", "/dashboard/performance", "/dashboard/performance?period=90d",
    "/dashboard/live", "/dashboard/health",
)  # fmt: skip


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096 / 2**20


async def measure(url: str) -> None:
    history = History(url)
    await history.prepare()
    records, _ = await history.events(Filters(workspace="workspace-000", task="index"), 1)
    track = (f"/dashboard/workspaces/workspace-000/tracks/{records[0].track}",) if records else ()
    request = (f"/dashboard/requests/{records[0].request_id}",) if records else ()
    with tempfile.TemporaryDirectory() as folder:
        async with ControlPlane(Path(folder), history, now_us=lambda: END_US - 1) as control:
            warm()  # as the control process does soon after its start
            before = resident_mib()
            print("| page | first ms | median ms | CPU ms | nothing changed: CPU ms | bytes |")
            print("|---|---:|---:|---:|---:|---:|")
            for path in (*PAGES, *track, *request):
                taken_ms, cpu = [], time.process_time()
                for _ in range(ROUNDS):
                    charts.stacked.cache_clear()
                    started = time.perf_counter()
                    answer = await control.client.get(path)
                    taken_ms.append((time.perf_counter() - started) * 1_000)
                    assert answer.status_code == 200, answer.text
                cpu_ms = (time.process_time() - cpu) / ROUNDS * 1_000
                again = time.process_time()
                for _ in range(ROUNDS):
                    await control.client.get(path)
                again_ms = (time.process_time() - again) / ROUNDS * 1_000
                first, median = taken_ms[0], statistics.median(taken_ms)
                times = " | ".join(f"{ms:.0f}" for ms in (first, median, cpu_ms, again_ms))
                print(f"| {path} | {times} | {len(answer.content):,} |")
            print(f"\nMemory: {before:.0f} MiB before the first page, {resident_mib():.0f} MiB after all.")
    await history.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    asyncio.run(measure(parser.parse_args().url))


if __name__ == "__main__":
    main()
