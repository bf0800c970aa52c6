"""A failing scenario is made small: whatever it fails without is left out (delta debugging)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from simulation.drawn.scenario import Scenario
from simulation.simulation import Outcome, run

PARTS = ("faults", "deeds", "receiver", "calls", "jobs", "rates", "tuning", "settings", "budgets", "nodes", "workers")
"""What may be left out of a scenario, in the order in which it is tried: faults explain most."""


def tried(plan: Scenario) -> Outcome:
    """Run it; what else it ends in than a broken promise is told as one."""
    try:
        return run(plan)
    except Exception as error:
        return Outcome(seed=plan.seed, counts={}, digest=0, violation=f"crashed: {type(error).__name__}: {error}")


def smaller(plan: Scenario, outcome: Outcome, *, within_s: float = 60.0) -> tuple[Scenario, Outcome]:
    """A scenario as small as could be found in so long a time, and what it breaks: the same promise."""
    ends, kind = time.monotonic() + within_s, _kind(outcome.violation)

    def fails(candidate: Scenario) -> bool:
        nonlocal plan, outcome
        found = tried(candidate)
        if _kind(found.violation) != kind:
            return False
        plan, outcome = candidate, found
        return True

    before = None
    while before != plan and time.monotonic() < ends:  # without a fault fewer calls are needed, and the other way round
        before = plan
        for name in PARTS:
            _without(plan, name, fails, lambda: time.monotonic() >= ends)
    return plan, outcome


def _kind(violation: str) -> str:
    """Which promise it is about, whatever the figures: its first words."""
    first = violation.partition("\n")[0]
    words = [word for word in first.split() if not any(letter.isdigit() for letter in word)]
    return " ".join(words[:6])


def _without(plan: Scenario, name: str, fails: Callable[[Scenario], bool], late: Callable[[], bool]) -> None:
    items, parts = _items(plan, name), 2
    parts = min(parts, len(items))
    while items:
        size = -(-len(items) // parts)
        for start in range(0, len(items), size):
            if late():
                return
            left = [*items[:start], *items[start + size :]]
            if fails(candidate := _with(plan, name, left)):
                plan, items, parts = candidate, left, max(1, parts - 1)
                break
        else:
            if size == 1:
                return
            parts = min(2 * parts, len(items))


def _items(plan: Scenario, name: str) -> Sequence[Any]:
    """A part of a scenario as a list of which some may go; a number of nodes is as many of them as are beyond one."""
    value = getattr(plan, name)
    if name == "settings":
        return [(section, key, each) for section, keys in value.items() for key, each in keys.items()]
    if isinstance(value, int):
        return list(range(value - 1))
    return list(value.items()) if isinstance(value, dict) else value


def _with(plan: Scenario, name: str, left: Sequence[Any]) -> Scenario:
    value: Any = left
    if name == "settings":
        value = {}
        for section, key, each in left:
            value.setdefault(section, {})[key] = each
    elif isinstance(getattr(plan, name), int):
        value = 1 + len(left)
    elif isinstance(getattr(plan, name), dict):
        value = dict(left)
    found = replace(plan, **{name: value})
    return found if name != "nodes" else replace(found, faults=[each for each in plan.faults if each.node < value])
