"""Which seed finds which of the bugs that are sown (`bugs.py`)."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from simulation.bugs import MUTANTS
from simulation.mutants import sown
from simulation.pool import Lost, spread
from simulation.simulation import scenario
from simulation.smaller import tried

FOUND = Path(__file__).parent / "found.json"
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
    took_s: float


def hunt(most: int, jobs: int) -> int:
    """Look for a seed that finds each bug: the one that found it last, those that found others, then all up to `most`.

    Those never found come last. Writes found.json; 0 where all were found.
    """
    known: dict[str, int] = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    fruitful = [seed for seed, _ in Counter(known.values()).most_common()]
    hunts = []
    for mutant in sorted(MUTANTS, key=lambda each: each.name not in known):
        last = [known[mutant.name]] if mutant.name in known else []
        hunts.append(Hunt(mutant.name, list(dict.fromkeys((*last, *fruitful, *range(most))))))
    found: dict[str, int] = {}
    for task, told in spread(_look, hunts, jobs=jobs, bound_s=BOUND_S):
        if isinstance(told, Lost):
            print(f"{task.name}: {told.why}", flush=True)
            continue
        if told.seed is not None:
            found[task.name] = told.seed
        what = "NOT FOUND in" if told.seed is None else f"seed {told.seed}: {told.violation[:150]!r} of"
        print(f"{task.name} ({told.took_s:.0f} s): {what} {len(task.seeds)} seeds", flush=True)
        _write({**known, **found})
    _write(found)
    print(f"{len(found)} of {len(MUTANTS)} were found")
    return 0 if len(found) == len(MUTANTS) else 1


def _look(task: Hunt) -> Found:
    begun_s = time.monotonic()
    [mutant] = [each for each in MUTANTS if each.name == task.name]
    for seed in task.seeds:
        with sown(mutant):
            outcome = tried(scenario(seed, calls=CALLS))
        if outcome.violation:
            return Found(seed, outcome.violation, time.monotonic() - begun_s)
    return Found(None, "", time.monotonic() - begun_s)


def _write(found: dict[str, int]) -> None:
    FOUND.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
