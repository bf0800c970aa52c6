"""Section `latency`: what a proxy adds to a call, alone and at half of the rate that saturates Taximeter.

nginx stands beside it as the control: what it adds, any proxy adds on this machine and under this generator. Provider
and generator come before all else on their core, where that is permitted; the generator says how late it was itself.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import paced, processes, wrk
from bench.figures import LeftOut, Spread
from bench.node import taximeter, until_delivered
from bench.paced import Latency
from bench.peers import nginx
from bench.running import Running
from bench.scenarios import UNARY

END = b'"total_tokens": 46}}'
"""What the provider's chat answer ends with."""
ALONE_CALLS = 1_500
DIRECT = "direct"

Ask = Callable[[str], Latency]


@dataclass(frozen=True)
class Row:
    """One load on one target: its latency in each round."""

    load: str
    target: str
    seen: list[Latency]


def measure(rounds: int, seconds: float) -> list[str]:
    """Lines for the page."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taximeter-bench-")))
        port = stack.enter_context(UNARY.upstream(folder, first=True))
        ours = taximeter(port, folder)
        stack.callback(processes.stop, ours.process)
        targets = {DIRECT: f"http://127.0.0.1:{port}/v1{UNARY.path}"}
        left_out = []
        try:
            floor = nginx(port, folder)
        except LeftOut as missing:
            left_out.append(f"nginx: {missing}")
        else:
            stack.callback(processes.stop, floor.process)
            targets["nginx"] = floor.url + UNARY.path
        targets["taximeter"] = ours.url + UNARY.path
        half = _saturating_rate(ours, folder) / 2
        rows = [
            *_rows("one at a time", _alone, targets, ours, rounds),
            *_rows(f"{half:,.0f} calls/s", lambda url: _steady(url, half, seconds), targets, ours, rounds),
        ]
    return [*page(rows), *(line for why in left_out for line in ("", f"Left out: {why}"))]


def _saturating_rate(ours: Running, folder: Path) -> float:
    lua = wrk.script(folder / "post.lua", UNARY.body, {})
    rate = wrk.run(ours.url + UNARY.path, lua, connections=64, seconds=3).rate
    until_delivered(ours)
    return rate


def _alone(url: str) -> Latency:
    return paced.one_at_a_time(url, UNARY.body, END, calls=ALONE_CALLS)


def _steady(url: str, rate: float, seconds: float) -> Latency:
    return paced.steady(url, UNARY.body, END, rate=rate, seconds=seconds)


def _rows(load: str, ask: Ask, targets: dict[str, str], ours: Running, rounds: int) -> list[Row]:
    rows = [Row(load, target, []) for target in targets]
    for _ in range(rounds):
        for row in rows:
            row.seen.append(ask(targets[row.target]))
            until_delivered(ours)
    return rows


def page(rows: list[Row]) -> list[str]:
    """The table: what is added is the difference to the direct call in the same round."""
    lines = [
        "A direct call to the provider, and the same through a proxy, from the moment it was due to its last byte; the",
        "steady rate is half of what saturates Taximeter, for all. What is sent late is the generator's own doing.",
        "",
        "| load | call | p50 ms | p99 ms | added p50 µs | added p99 ms | sent late p99 ms |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    direct = {row.load: row.seen for row in rows if row.target == DIRECT}
    for row in rows:
        added = "- | -"
        if row.target != DIRECT:
            pairs = list(zip(row.seen, direct[row.load], strict=True))
            median_us = Spread.of((seen.p50_ms - plain.p50_ms) * 1000 for seen, plain in pairs)
            tail_ms = Spread.of(seen.p99_ms - plain.p99_ms for seen, plain in pairs)
            added = f"{median_us.shown()} | {tail_ms.shown(2)}"
        p50_ms = statistics.median(seen.p50_ms for seen in row.seen)
        p99_ms = statistics.median(seen.p99_ms for seen in row.seen)
        late_ms = statistics.median(seen.late_p99_ms for seen in row.seen)
        late = f"{late_ms:.2f}" if late_ms else "-"
        lines.append(f"| {row.load} | {row.target} | {p50_ms:.2f} | {p99_ms:.2f} | {added} | {late} |")
    return lines
