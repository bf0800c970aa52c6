"""Simulations by hand: `make simulate SEEDS=1000`, and `make simulate SEED=n TRACE=1` for the story of one.

A seed that breaks a promise is made as small as it can be: fewer faults and fewer calls that still break it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from simulation.bugs import MUTANTS
from simulation.faults import Fault
from simulation.mutants import sown
from simulation.simulation import Outcome, Scenario, run, scenario

FOUND = Path(__file__).parent / "found.json"


def main() -> int:
    """0 where no promise was broken."""
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("--seeds", type=int, default=50, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="one, which is told of at length")
    parser.add_argument("--calls", type=int, default=250, help="about how many in each")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.0, help="begin no further seed after so long; 0: no bound")
    parser.add_argument(
        "--mutants", action="store_true", help="how soon each bug of mutants.py is found; kept in found.json"
    )
    parser.add_argument("--trace", action="store_true", help="the story of --seed, step by step")
    asked = parser.parse_args()
    if asked.mutants:
        return _hunt(asked.seeds)
    if asked.seed is not None:
        return _one(asked.seed, asked.calls, trace=asked.trace)
    return _many(range(asked.first, asked.first + asked.seeds), asked.calls, asked.jobs, asked.seconds)


def _hunt(most: int) -> int:
    """Look for a seed that finds each bug; begin with the one that found it last."""
    known: dict[str, int] = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    found: dict[str, int] = {}
    for mutant in sorted(MUTANTS, key=lambda each: each.name in known):
        begun = time.monotonic()
        for seed in dict.fromkeys((known.get(mutant.name, 0), *range(most))):
            with sown(mutant):
                outcome = run(scenario(seed, calls=60))
            if outcome.violation:
                found[mutant.name] = seed
                break
        told = f"seed {seed}: {outcome.violation[:150]!r}" if mutant.name in found else f"NOT FOUND in {most} seeds"
        print(f"{mutant.name} ({time.monotonic() - begun:.0f} s): {told}", flush=True)
        FOUND.write_text(json.dumps({**known, **found}, indent=1, sort_keys=True) + "\n")
    FOUND.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return 0 if len(found) == len(MUTANTS) else 1


def _one(seed: int, calls: int, *, trace: bool) -> int:
    plan = scenario(seed, calls=calls)
    outcome = run(plan)
    if outcome.violation:
        plan, outcome = smaller(plan, outcome)
    if trace:
        outcome = run(plan, tells=True)
        print("\n".join(outcome.story))
    print(plan.shown())
    print(outcome.violation or "every promise was kept", dict(sorted(outcome.counts.items())))
    return 1 if outcome.violation else 0


def _many(seeds: Sequence[int], calls: int, jobs: int, seconds: float) -> int:
    total: Counter[str] = Counter()
    broken: list[Outcome] = []
    begun, done = time.monotonic(), 0
    for outcome in _outcomes(seeds, calls, jobs, lambda: bool(seconds) and time.monotonic() - begun > seconds):
        done += 1
        total.update(outcome.counts)
        if outcome.violation:
            broken.append(outcome)
            print(f"seed {outcome.seed}: {outcome.violation}", flush=True)
    took_s = time.monotonic() - begun
    told = ", ".join(f"{count:,} {name}" for name, count in sorted(total.items()))
    print(f"{done} seeds in {took_s:.0f} s, {len(broken)} broke a promise: {told}")
    if broken:
        print(f"\nThe story of the first: make simulate SEED={broken[0].seed} TRACE=1")
    return 1 if broken else 0


def _outcomes(seeds: Sequence[int], calls: int, jobs: int, late: Callable[[], bool]) -> Any:
    if jobs == 1:
        for seed in seeds:
            if late():
                return
            yield run(scenario(seed, calls=calls))
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for start in range(0, len(seeds), 4 * jobs):
            if late():
                return
            some = seeds[start : start + 4 * jobs]
            yield from pool.map(_simulate, some, [calls] * len(some))


def _simulate(seed: int, calls: int) -> Outcome:
    return run(scenario(seed, calls=calls))


def smaller(plan: Scenario, outcome: Outcome, *, tries: int = 60) -> tuple[Scenario, Outcome]:
    """The smallest scenario found that breaks a promise too: without faults, then without calls (delta debugging)."""

    def breaks(faults: list[Fault], calls: list[Any]) -> Outcome | None:
        nonlocal tries
        tries -= 1
        found = run(_with(plan, faults, calls))
        return found if found.violation else None

    for name in ("faults", "calls"):
        parts = 2
        while tries > 0 and parts <= len(items := list(getattr(plan, name))):
            size = -(-len(items) // parts)
            for start in range(0, len(items), size):
                left = items[:start] + items[start + size :]
                faults, calls = (left, plan.calls) if name == "faults" else (plan.faults, left)
                if tries > 0 and (found := breaks(faults, calls)) is not None:
                    plan, outcome, parts = _with(plan, faults, calls), found, max(2, parts - 1)
                    break
            else:
                if size == 1:
                    break
                parts = min(2 * parts, len(items))
    return plan, outcome


def _with(plan: Scenario, faults: list[Fault], calls: list[Any]) -> Scenario:
    from msgspec.structs import replace

    return replace(plan, faults=faults, calls=calls)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # or the order of a set would be another each time
        os.execve(
            sys.executable,
            [sys.executable, "-m", "simulation.run", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
