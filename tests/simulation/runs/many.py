"""Many seeds, one after the other or side by side: what they come to together, and which of them fail."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from simulation.drawn.scenario import Scenario, scenario
from simulation.runs.pool import Lost, spread
from simulation.runs.smaller import smaller, tried
from simulation.simulation import Outcome

LONG = 8
"""Every fourth seed has so many times the calls and the faults, in twice the time: crowded, and cheaper a call."""
MADE_SMALLER = 3
"""So many failing seeds of a run are made smaller; the others can be, one by one."""
PROGRESS_S = 5.0
FORMERLY = {
    "letters": "posts to the webhook",
    "seals": "signed roots of evidence",
    "objects": "calls billed later",
    "known lost": "records known to be lost",
    "faults met": "requests and commits that met a fault",
}
"""What is counted, as files of earlier runs call it."""


class Task(NamedTuple):
    """One seed."""

    seed: int
    calls: int
    """About how many, in a short one."""


class Sums(msgspec.Struct, forbid_unknown_fields=True):
    """What runs come to, to be added up over many of them."""

    seeds: int = 0
    next_seed: int = 0
    """Behind the last one."""
    core_s: float = 0.0
    """Seconds of processor time."""
    counts: dict[str, int] = {}
    """What was counted: calls, faults (drawn, and those of them that struck), kills, records, commits …"""
    broken: dict[str, str] = {}
    """Seed -> what it breaks."""

    def __post_init__(self) -> None:
        for former, name in FORMERLY.items():
            if former in self.counts:
                self.counts[name] = self.counts.get(name, 0) + self.counts.pop(former)

    def add(self, task: Task, told: tuple[Outcome, float] | Lost) -> str:
        """Count one seed; returns what it breaks."""
        self.seeds += 1
        self.next_seed = max(self.next_seed, task.seed + 1)
        if isinstance(told, Lost):
            violation = told.why
        else:
            outcome, took_s = told
            self.core_s += took_s
            self.counts = dict(Counter(self.counts) + Counter(outcome.counts))
            violation = outcome.violation
        if violation:
            self.broken[str(task.seed)] = violation
        return violation

    def shown(self) -> str:
        """In a sentence."""
        told = ", ".join(f"{count:,} {name}" for name, count in sorted(self.counts.items()))
        calls_s = self.counts.get("calls", 0) / self.core_s if self.core_s else 0.0
        broke = f"{len(self.broken)} broke a promise"
        return f"{self.seeds:,} seeds, {broke}: {told}; {calls_s:,.0f} calls a second of processor time"


def drawn(task: Task) -> Scenario:
    """What a seed draws here."""
    if task.seed % 4 != 3:
        return scenario(task.seed, calls=task.calls)
    return scenario(task.seed, calls=LONG * task.calls, faults=LONG * 25, over=2.0)


def _simulate(task: Task) -> tuple[Outcome, float]:
    begun_s = time.process_time()
    plan = drawn(task)
    outcome = tried(plan)
    outcome.counts["faults drawn"] = len(plan.faults)
    return outcome, time.process_time() - begun_s


def many(
    count: int,
    first: int | None,
    *,
    calls: int,
    jobs: int,
    seconds: float,
    bound_s: float,
    smaller_s: float,
    file: Path | None,
    adds: bool,
) -> int:
    """Run them; 0 where no promise was broken. `seconds`: begin none after so long; `bound_s`: for one of them."""
    sums = earlier(file) if file is not None and adds else Sums()
    first, begun_s, broken = sums.next_seed if first is None else first, time.monotonic(), dict[Task, str]()
    told_s = begun_s

    def tasks() -> Iterator[Task]:
        for seed in range(first, first + count):
            if seconds and time.monotonic() - begun_s > seconds:
                return
            yield Task(seed, calls)

    interrupted = False
    try:
        for task, told in spread(_simulate, tasks(), jobs=jobs, bound_s=bound_s):
            if violation := sums.add(task, told):
                broken[task] = violation
                print(f"seed {task.seed}: {violation}", flush=True)
            if time.monotonic() - told_s > PROGRESS_S:
                told_s = time.monotonic()
                _write(file, sums)
                if sys.stderr.isatty():
                    said = f"{task.seed - first + 1} of {count} seeds, {len(broken)} failed"
                    print(f"\r{said} ", end="", file=sys.stderr)
    except KeyboardInterrupt:
        interrupted = True
    _write(file, sums)
    print(f"{time.monotonic() - begun_s:.0f} s: {sums.shown()}", flush=True)
    if interrupted:
        raise KeyboardInterrupt
    _explain(broken, jobs, smaller_s)
    return 1 if broken else 0


def earlier(file: Path) -> Sums:
    """What earlier runs wrote there; nothing, where there is no file. Raises ValueError where something else did."""
    if not file.exists():
        return Sums()
    return msgspec.json.decode(file.read_bytes(), type=Sums)


def _write(file: Path | None, sums: Sums) -> None:
    if file is not None:
        new = file.with_name(f".{file.name}.new")  # whoever is interrupted leaves the sums of before
        new.write_bytes(msgspec.json.format(msgspec.json.encode(sums), indent=1) + b"\n")
        new.replace(file)


def _explain(broken: dict[Task, str], jobs: int, within_s: float) -> None:
    """The smallest scenario that fails as these do, for some of them."""
    some = [(task, within_s) for task in sorted(broken)[:MADE_SMALLER]]
    for (task, _), found in spread(_smaller, some, jobs=jobs, bound_s=3 * within_s + 60):
        told = f"could not be made smaller: {found.why}" if isinstance(found, Lost) else found
        print(f"\nseed {task.seed} {told}\nIts story: make simulate SEED={task.seed} TRACE=1", flush=True)
    if len(broken) > len(some):
        print(f"\n{len(broken) - len(some)} more failed; of one: make simulate SEED=n TRACE=1")


def _smaller(asked: tuple[Task, float]) -> str:
    task, within_s = asked
    outcome = tried(plan := drawn(task))
    if not outcome.violation:
        return "failed, and does not fail again: something is not of the seed"
    plan, outcome = smaller(plan, outcome, within_s=within_s)
    return f"fails as well when made so small:\n{plan.shown()}\n{outcome.violation}"
