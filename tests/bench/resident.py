"""Sections `memory` and `start`: what open streams cost a worker, how soon a node is ready, what it takes idle."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from bench import processes, streams
from bench.node import taximeter
from bench.scenarios import Streams, chat

SLOW = Streams("slow", "/chat/completions", chat(stream=True), 1, ["--chunks", "16", "--chunk-ms", "500"])
"""8 s each, so that all of a thousand are open at once."""


def memory(count: int = 1_000) -> list[str]:
    """What an open, slow stream costs the worker. Lines for the page."""
    with tempfile.TemporaryDirectory(prefix="taximeter-bench-") as name:
        folder = Path(name)
        with SLOW.upstream(folder) as port:
            running = taximeter(port, folder)
            try:
                url, pid = running.url + SLOW.path, running.process.pid
                streams.many(url, SLOW.body, count=4, while_open=lambda: None)
                before = processes.pss_bytes(pid)["worker"]
                open_now: list[int] = []
                streams.many(
                    url,
                    SLOW.body,
                    count=count,
                    while_open=lambda: open_now.append(processes.pss_bytes(pid)["worker"]),
                )
            finally:
                processes.stop(running.process)
    each_kb = (open_now[0] - before) / count / 1024
    megabytes = f"{before / 2**20:.0f} → {open_now[0] / 2**20:.0f} MB"
    return [f"{count:,} slow streams open at once: worker PSS {megabytes}, {each_kb:.1f} KB a stream."]


def start(times: int = 5) -> list[str]:
    """From `taximeter serve` to ready with the embedded Valkey, on all cores, and what the idle node takes."""
    took_s, pss = [], []
    for _ in range(times):
        with tempfile.TemporaryDirectory(prefix="taximeter-bench-") as name:
            begun = time.monotonic()
            running = taximeter(processes.free_port(), Path(name), cores=processes.ALL_CORES)
            took_s.append(time.monotonic() - begun)
            pss.append(processes.pss_bytes(running.process.pid))
            processes.stop(running.process)
    [idle] = [each for each in pss if sum(each.values()) == statistics.median_high(sum(one.values()) for one in pss)][
        :1
    ]
    parts = ", ".join(f"{title} {used / 2**20:.0f}" for title, used in sorted(idle.items(), key=lambda item: -item[1]))
    return [
        f"Ready {statistics.median(took_s):.2f} s after the command (median of {times}, longest {max(took_s):.2f} s); "
        f"idle it takes {sum(idle.values()) / 2**20:.0f} MB PSS: {parts}."
    ]
