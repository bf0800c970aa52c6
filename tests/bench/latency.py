"""Section `latency`: what a proxy adds to a call, alone and at half of the rate that saturates Taximeter on one core.

Taximeter stands there twice: with all its processes on one core, and with a core for the worker alone, which is
`cores = "apart"`. nginx stands beside it as the control: what it adds, any proxy adds on this machine and under this
generator. Provider and generator come before all else on their core, where that is permitted; the generator says how
late it was itself.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench import paced, processes, wrk
from bench.figures import LeftOut, Spread
from bench.node import taximeter, until_delivered
from bench.paced import Latency
from bench.peers import nginx
from bench.running import Running
from bench.scenarios import UNARY
from present import present

END = b'"total_tokens": 46}}'
"""What the provider's chat answer ends with."""
ALONE_CALLS = 1_500
DIRECT, ONE_CORE, APART = "direct", "taximeter, one core", "taximeter, a core each"
STARTS: dict[str, Callable[[int, Path], Running]] = {
    "nginx": nginx,
    ONE_CORE: taximeter,
    APART: functools.partial(taximeter, cores=processes.APART_CORES, config='cores = "apart"'),
}

Ask = Callable[[str], Latency]


@dataclass(frozen=True)
class Target:
    """What is called: a proxy, or the provider itself."""

    name: str
    url: str
    running: Running | None = None


@dataclass(frozen=True)
class Row:
    """One load on one target: its latency in each round, and the CPU µs a call of a proxy's process tree."""

    load: str
    target: str
    seen: list[Latency] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


def measure(rounds: int, seconds: float) -> list[str]:
    """Lines for the page."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taximeter-bench-")))
        port = stack.enter_context(UNARY.upstream(folder, first=True))
        targets = [Target(DIRECT, f"http://127.0.0.1:{port}/v1{UNARY.path}")]
        left_out = []
        for name, start in STARTS.items():
            own = folder / name
            own.mkdir()
            try:
                running = start(port, own)
            except LeftOut as missing:
                left_out.append(f"{name}: {missing}")
                continue
            stack.callback(processes.stop, running.process)
            targets.append(Target(name, running.url + UNARY.path, running))
        half = _saturating_rate(next(each.running for each in targets if each.name == ONE_CORE), folder) / 2
        rows = [
            *_rows("one at a time", _alone, targets, rounds),
            *_rows(f"{half:,.0f} calls/s", lambda url: _steady(url, half, seconds), targets, rounds),
        ]
    return [*page(rows), "", *placed(processes.CORES), *(line for why in left_out for line in ("", f"Left out: {why}"))]


def _saturating_rate(ours: Running | None, folder: Path) -> float:
    ours = present(ours)
    lua = wrk.script(folder / "post.lua", UNARY.body, {})
    rate = wrk.run(ours.url + UNARY.path, lua, connections=64, seconds=3).rate
    until_delivered(ours)
    return rate


def _alone(url: str) -> Latency:
    return paced.one_at_a_time(url, UNARY.body, END, calls=ALONE_CALLS)


def _steady(url: str, rate: float, seconds: float) -> Latency:
    return paced.steady(url, UNARY.body, END, rate=rate, seconds=seconds)


def _rows(load: str, ask: Ask, targets: list[Target], rounds: int) -> list[Row]:
    rows = [Row(load, target.name) for target in targets]
    for _ in range(rounds):
        for row, target in zip(rows, targets, strict=True):
            if target.running is None:
                row.seen.append(ask(target.url))
                continue
            before = processes.cpu(target.running.process.pid)
            row.seen.append(ask(target.url))
            until_delivered(target.running)
            used = processes.cpu(target.running.process.pid) - before
            row.cpu_us.append(used.total_s / row.seen[-1].calls * 1e6)
    return rows


def page(rows: list[Row]) -> list[str]:
    """The table: what is added is the difference to the direct call in the same round."""
    lines = [
        "A direct call to the provider, and the same through a proxy, from the moment it was due to its last byte; the",
        "steady rate is half of what saturates Taximeter on one core, for all. What is sent late is the generator's",
        "own doing.",
        "",
        "| load | call | CPU µs a call | p50 ms | p99 ms | added p50 µs | added p99 ms | sent late p99 ms |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
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
        cpu = Spread.of(row.cpu_us).shown() if row.cpu_us else "-"
        late = f"{late_ms:.2f}" if late_ms else "-"
        lines.append(f"| {row.load} | {row.target} | {cpu} | {p50_ms:.2f} | {p99_ms:.2f} | {added} | {late} |")
    return lines


def placed(cores: int) -> list[str]:
    """Who shares a core with whom in the two set-ups, which decides what the tail is."""
    others = (
        "control and Valkey share the other core with the provider and the generator, which come before them there"
        if cores < 3
        else "control and Valkey have cores that are neither the worker's nor the load's"
    )
    return [
        "One core: worker, control and Valkey share it, and a call that comes while control delivers waits for it.",
        'A core each (`cores = "apart"`): the worker is alone on its own;',
        f"{others}.",
    ]
