"""Which seed finds which of the bugs that are sown (`sown`)."""

from __future__ import annotations

import json
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

from simulation.drawn.scenario import scenario
from simulation.runs.pool import Lost, spread
from simulation.runs.smaller import tried
from simulation.sown import MUTANTS, ROOMS
from simulation.sown.sowing import sown

FOUND = Path(__file__).parents[1] / "sown/found.json"
CALLS = 60
"""In each simulation."""
BOUND_S = 3_600.0


class Hunt(NamedTuple):
    """One bug, and where it is looked for, in this order."""

    name: str
    seeds: list[int]


class Found(NamedTuple):
    """What became of it."""

    seed: int | None
    violation: str
    tried: int
    """So many seeds."""
    took_s: float


def hunt(most: int, jobs: int) -> int:
    """Look for a seed that finds each bug: the one that found it last, those that found others, then all up to `most`.

    Those never found come last. Writes found.json; 0 where all were found.
    """
    begun_s = time.monotonic()
    known: dict[str, int] = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    fruitful = [seed for seed, _ in Counter(known.values()).most_common()]
    hunts = []
    for mutant in sorted(MUTANTS, key=lambda each: each.name not in known):
        last = [known[mutant.name]] if mutant.name in known else []
        hunts.append(Hunt(mutant.name, list(dict.fromkeys((*last, *fruitful, *range(most))))))
    found: dict[str, int] = {}
    for at, (task, told) in enumerate(spread(look, hunts, jobs=jobs, bound_s=BOUND_S), start=1):
        print(f"{at}/{len(hunts)} {task.name}: {_shown(task, told, known.get(task.name))}", flush=True)
        if isinstance(told, Found) and told.seed is not None:
            found[task.name] = told.seed
        _write({**known, **found})
    _write(found)
    again = sum(found.get(name) == seed for name, seed in known.items())
    took_s = time.monotonic() - begun_s
    print(f"{len(found)} of {len(MUTANTS)} were found in {took_s:.0f} s, {again} by the seed that found them last")
    for name in sorted({mutant.name for mutant in MUTANTS} - found.keys()):
        print(f"not found: {name}")
    print("\n".join(_table(found)))
    return 0 if len(found) == len(MUTANTS) else 1


def _table(found: dict[str, int]) -> list[str]:
    """As docs/reliability.md has it."""
    rows = [(room, len(sown), sum(mutant.name in found for mutant in sown)) for room, sown in ROOMS.items()]
    lines = ["| room | sown | found |", "|---|--:|--:|", *(f"| {room} | {n} | {done} |" for room, n, done in rows)]
    return [*lines, f"| **all** | {len(MUTANTS)} | {len(found)} |"]


def _shown(task: Hunt, told: Found | Lost, last: int | None) -> str:
    if isinstance(told, Lost):
        return told.why
    if told.seed is None:
        return f"NOT FOUND in {told.tried} seeds, {told.took_s:.0f} s"
    before = "" if last in (None, told.seed) else f" (seed {last} finds it no more; {told.tried} were tried)"
    return f"seed {told.seed}{before}, {told.took_s:.1f} s: {' '.join(told.violation.split())[:120]}"


def look(task: Hunt) -> Found:
    """One bug, in this process."""
    begun_s = time.monotonic()
    [mutant] = [each for each in MUTANTS if each.name == task.name]
    for number, seed in enumerate(task.seeds, start=1):
        with sown(mutant):
            outcome = tried(scenario(seed, calls=CALLS))
        if outcome.violation and _is_even(seed):
            return Found(seed, outcome.violation, number, time.monotonic() - begun_s)
    return Found(None, "", len(task.seeds), time.monotonic() - begun_s)


@cache
def _is_even(seed: int) -> bool:
    """Whether it keeps every promise with nothing sown: else it finds nothing."""
    return not tried(scenario(seed, calls=CALLS)).violation


def _write(found: dict[str, int]) -> None:
    FOUND.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
