"""Rates of some seeds: requests and tokens in a window, and calls at once; with windows as short as a simulation is."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from simulation.events.deeds import Deed
from simulation.events.faults import Fault

if TYPE_CHECKING:
    from simulation.drawn.scenario import Scenario

WINDOWS = (
    "taximeter.budgets.rates:WINDOW_S",
    "taximeter.budgets.rate_windows:WINDOW_S",
    "taximeter.gateway.admission.rates:WINDOW_S",
)


def draw(seed: int, calls: int, over_s: float) -> tuple[list[dict[str, Any]], int, str]:
    """The rates, how long their windows are (s), and what becomes of calls while Redis is away. Of about every third
    seed."""
    drawn = random.Random(f"{seed}/rates")
    if drawn.random() > 0.35:
        return [], 60, ""
    found, window_s = _some(drawn, calls, over_s)
    away = drawn.choice(("refuse", "refuse", "slice", "allow"))
    return found, window_s if found else 60, away if found else ""


def forgotten(plan: Scenario) -> Scenario:
    """The plan; of some seeds with rates, and a Redis that forgets or goes back while no worker ends: each tells it."""
    drawn = random.Random(f"{plan.seed}/rates forgotten")
    if drawn.random() < 0.08:
        while not (found := _some(drawn, len(plan.calls), plan.over_s))[0]:
            pass
        plan.rates, plan.window_s = found
        plan.settings["budget"] = {"on_unavailable": "refuse"}
        plan.budgets, plan.jobs, plan.deeds = [], [], []
        moments = sorted(drawn.uniform(0.2, 0.9) * plan.over_s for _ in range(2))
        kinds = [drawn.choice(("redis older", "redis older", "redis empty")) for _ in moments]
        plan.faults = [
            Fault(at_s, kind, amount=drawn.uniform(0.3, 2.0)) for at_s, kind in zip(moments, kinds, strict=True)
        ]
    return plan


def written_anew(plan: Scenario) -> Scenario:
    """The plan; of some seeds with few calls at once, and counters that an operator has written anew meanwhile."""
    drawn = random.Random(f"{plan.seed}/rates and rebuilds")
    if drawn.random() < 0.04:
        plan.rates, plan.window_s = [{"name": "r-concurrent", "concurrent": drawn.choice((1, 2))}], 2
        plan.settings["budget"] = {"on_unavailable": "refuse"}
        plan.budgets, plan.jobs, plan.faults, plan.receiver = [], [], [], []
        moments = [drawn.uniform(0.2, 0.9) * plan.over_s for _ in range(6)]
        plan.deeds = [Deed(at_s, "rebuild", drawn.randrange(plan.nodes)) for at_s in sorted(moments)]
    return plan


def _some(drawn: random.Random, calls: int, over_s: float) -> tuple[list[dict[str, Any]], int]:
    """Rates that are reached, and how long their windows are."""
    window_s = drawn.choice((2, 3, 5))
    begin = max(3, int(calls * window_s / over_s))
    """So many calls begin in a window."""
    found: list[dict[str, Any]] = []
    for kind in ("requests_per_minute", "tokens_per_minute", "concurrent"):
        if drawn.random() < 0.6:
            most = {"requests_per_minute": begin, "tokens_per_minute": 40 * begin, "concurrent": 6}[kind]
            rate = {"name": f"r-{kind}", kind: drawn.randrange(max(1, most // 4), most)}
            rate |= drawn.choice(({}, {"workspace": "w0"}, {"track": "*"}, {"workspace": "w0", "track": "t1"}))
            found.append(rate)
    return found, window_s
