"""Some files of a node refuse while the others do as they should: another file system, a quota, a bad sector.

Drawn from a random stream of its own, for a share of the seeds. These are faults of disks whose role is the part of a
path that they strike.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from simulation.events.faults import Fault
from simulation.virtual.disk import CONTROLS, STATUS

if TYPE_CHECKING:
    from simulation.drawn.scenario import Scenario

PARTS = {".jsonl": 4, "/journal/": 3, CONTROLS: 4, STATUS: 3, "/journal/gone/": 1, "/journal/aside/": 1, "/slices/": 2}
"""How often each is drawn."""
KINDS = ("disk full", "disk write errors", "disk read errors", "disk fsync errors")


def refusing(plan: Scenario) -> Scenario:
    """The plan, or in a share of the seeds with some files that refuse now and then."""
    drawn = random.Random(f"{plan.seed}/paths")
    if plan.profile or drawn.random() > 0.12:
        return plan
    for _ in range(drawn.choice((1, 2, 4))):
        part = drawn.choices(list(PARTS), list(PARTS.values()))[0]
        at_s, node = drawn.uniform(0.0, plan.over_s), drawn.randrange(plan.nodes)
        fault = Fault(round(at_s, 4), drawn.choice(KINDS), node, part, round(drawn.uniform(0.1, 3.0), 4))
        plan.faults.append(fault)
        if drawn.random() < 0.5:
            role = drawn.choice(("control", "worker0"))
            plan.faults.append(Fault(round(at_s + drawn.uniform(0.0, fault.amount), 4), "kill", node, role))
    plan.faults.sort()
    return plan
