"""Budgets by period: a share of the seeds goes over the end of a month, so of a day, an hour and a minute, too."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from simulation.events.faults import Fault
from simulation.virtual.world import BEGINS_NS

if TYPE_CHECKING:
    from simulation.drawn.scenario import Scenario

MONTH_ENDS_S = 1_790_812_800 - BEGINS_NS // 10**9
"""So long after the usual beginning of a simulation it is midnight, and another month."""
SHARE = 0.2


def by_period(plan: Scenario) -> Scenario:
    """The plan; of some seeds with such budgets, soft ones among them, and whoever is told of their thresholds.

    Clocks are right there: a call belongs to the period in which it ends by its node's clock, and is decided by it.
    """
    drawn = random.Random(f"{plan.seed}/windows of budgets")
    if drawn.random() >= SHARE:
        return plan
    plan.late_s = MONTH_ENDS_S - drawn.uniform(0.2, 0.9) * plan.over_s
    plan.faults = [fault for fault in plan.faults if fault.kind != "clock"]
    plan.budgets = [_budget(drawn, len(plan.calls)) for _ in range(drawn.choice((1, 2, 3)))]
    plan.settings["budget"] = {"slice_percent": 5.0, **plan.settings.get("budget", {})}
    plan.settings["budget"]["on_unavailable"] = drawn.choice(("refuse", "refuse", "slice"))
    if drawn.random() < 0.7:
        plan.settings["webhook"] = {"url": "http://localhost:2/", "format": "cloudevents", "idle_s": 1.0}
    if plan.audited and drawn.random() < 0.4:  # at the moments at which there is something to tell
        plan.faults += [_at_the_history(drawn, plan) for _ in range(12)]
        plan.faults.sort()
    return plan


def _at_the_history(drawn: random.Random, plan: Scenario) -> Fault:
    """A control process that dies, or a history that does not answer, some steps later."""
    at_s, node = drawn.uniform(0.1, 1.0) * plan.over_s, drawn.randrange(plan.nodes)
    if drawn.random() < 0.5:
        return Fault(at_s, "kill", node, "control", float(drawn.randrange(1, 60)))
    return Fault(at_s, drawn.choice(("sql loses replies", "sql refuses")), amount=float(drawn.randrange(1, 4)))


def _budget(drawn: random.Random, calls: int) -> dict[str, Any]:
    """One that is reached, of what calls of w0 use."""
    unit = drawn.choice(("tokens", "input_tokens", "output_tokens", "requests"))
    most = calls * {"tokens": 20, "input_tokens": 6, "output_tokens": 14, "requests": 1}[unit]
    found = {
        "unit": unit,
        "limit": max(1, int(most * drawn.choice((0.02, 0.1, 0.3, 1.0)))),
        "period": drawn.choice(("minute", "hour", "day", "month", "rolling 1m", "total")),
        "mode": drawn.choice(("hard", "soft")),
    }
    return found | drawn.choice(({}, {"track": "*"}, {"track": "t1"}))
