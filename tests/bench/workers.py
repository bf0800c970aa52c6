"""Section `workers`: two workers beside one, where there are cores for both, for control and for the load."""

from __future__ import annotations

import functools
import statistics

from bench import processes, rounds
from bench.figures import LeftOut, Measured, Spread, of_proxy
from bench.node import taximeter
from bench.scenarios import UNARY

ENOUGH_CORES = 4
"""A core for each worker, one for control with Valkey, one for the provider and the load."""


def measure(turns: int, seconds: float, cores: int = processes.CORES) -> list[str]:
    """Lines for the page. Raises LeftOut where there are too few cores."""
    if cores < ENOUGH_CORES:
        raise LeftOut(f"two workers, control and the load need {ENOUGH_CORES} cores, this machine has {cores}")
    free = f"1-{cores - 1}"  # all but the load's
    starts = {
        name: functools.partial(taximeter, name=name, cores=free, config=f"workers = {count}")
        for name, count in (("1 worker", 1), ("2 workers", 2))
    }
    return page(rounds.compare(UNARY, starts, rounds=turns, seconds=seconds), free)


def page(measured: Measured, cores: str) -> list[str]:
    """The rates side by side; how many times one worker's is the ratio within a round."""
    one, two = (of_proxy(measured.turns, name) for name in ("1 worker", "2 workers"))
    times = Spread.of(more.load.rate / less.load.rate for less, more in zip(one, two, strict=True))
    return [
        f"Nodes on cores {cores}, the load on another.",
        "",
        "| node | calls/s | × 1 worker | p99 ms |",
        "|---|---:|---:|---:|",
        *(
            f"| {turns[0].proxy} | {Spread.of(turn.load.rate for turn in turns).shown()} | {shown} "
            f"| {statistics.median(turn.load.p99_ms for turn in turns):.2f} |"
            for turns, shown in ((one, "1"), (two, times.shown(2)))
        ),
    ]
