"""A node that leaves in good order: its supervisor is told to stop, and nothing of it is started any more.

Workers end what they have begun, control delivers it, and ends. What is left of it is a directory, which an operator
has another node adopt, or forgets: then nothing may be missing, open or held.
"""

from __future__ import annotations

import asyncio
import random
from contextvars import Context
from typing import TYPE_CHECKING

from simulation.actors.client import Plan
from simulation.events.faults import Fault
from simulation.events.later import draw as draw_jobs
from simulation.events.machines import adopt, is_done
from taximeter.budgets.slice_files import ENDED, FOLDER

if TYPE_CHECKING:
    from simulation.actors.node import Node
    from simulation.drawn.scenario import Scenario
    from simulation.simulation import Simulation

KIND = "leaves"
ENDS_S = 60.0
"""So long after they were told to stop what is left of a node's processes is killed."""


def departing(plan: Scenario) -> Scenario:
    """The plan, or with the last of several nodes leaving, in a share of the seeds; in two thirds of them with what it
    may have to give back then: slices of which calls took while Redis was away, or claims on what is billed later."""
    drawn = random.Random(f"{plan.seed}/in good order")
    if plan.nodes < 2 or plan.profile or drawn.random() > 0.35:
        return plan
    at_s = drawn.uniform(0.4, 1.0) * plan.over_s
    plan.faults.append(Fault(round(at_s, 4), KIND, plan.nodes - 1, "", float(drawn.random() < 0.4)))
    _holding(drawn, plan, drawn.choice(("", "slices", "claims")), at_s)
    plan.faults.sort()
    return plan


def lost(plan: Scenario) -> Scenario:
    """The plan, or in a share of the seeds with the last of several nodes lost for good while it holds such things: who
    adopts its directory has to settle what it had claimed, and let go of its slices, once."""
    drawn = random.Random(f"{plan.seed}/lost with what it holds")
    taken = any(fault.kind in (KIND, "lost node") for fault in plan.faults)
    if plan.nodes < 2 or plan.profile or taken or drawn.random() > 0.3:
        return plan
    at_s = drawn.uniform(0.4, 1.0) * plan.over_s
    plan.faults.append(Fault(round(at_s, 4), "lost node", plan.nodes - 1))
    _holding(drawn, plan, drawn.choice(("slices", "claims")), at_s)
    plan.faults.sort()
    return plan


def _holding(drawn: random.Random, plan: Scenario, has: str, at_s: float) -> None:
    """At that moment the last node may hold such things."""
    if has == "slices":
        plan.settings["budget"] = {**plan.settings.get("budget", {}), "on_unavailable": "slice", "slice_percent": 5.0}
        plan.budgets = plan.budgets or [{"unit": "tokens", "limit": drawn.randrange(2_000, 9_000)}]
        away_s, back_s = drawn.choice((0.2, 0.4, 2.0)), at_s - drawn.uniform(0.0, 0.4)
        plan.faults.append(Fault(max(0.0, back_s - away_s), "redis down", amount=away_s))
        for n in drawn.sample(range(len(plan.calls)), min(12, len(plan.calls))):
            call = plan.calls[n]._replace(at_s=max(0.0, back_s - drawn.random() * min(0.2, away_s)), workspace="w0")
            plan.calls[n] = call._replace(where=call.where // plan.nodes * plan.nodes + plan.nodes - 1)
    elif has == "claims":
        attempts = (draw_jobs(f"{plan.seed}/in good order {n}", plan.over_s, 2) for n in range(100))
        plan.jobs, plan.collects = next(found for found in attempts if found[0])
        plan.jobs = [
            job._replace(polls=tuple(_late(drawn, poll, at_s, plan.nodes) for poll in job.polls)) for job in plan.jobs
        ]


def _late(drawn: random.Random, poll: Plan, at_s: float, nodes: int) -> Plan:
    """Maybe of the node that leaves, a moment before it does: there is hardly time to settle what it reads."""
    if drawn.random() < 0.5:
        return poll
    return poll._replace(at_s=at_s - drawn.uniform(0.02, 0.4), where=poll.where // nodes * nodes + nodes - 1)


def begin(simulation: Simulation, fault: Fault) -> None:
    """It is told to stop, where it runs."""
    node = simulation.nodes[fault.node]
    if node.off or node.restoring:
        return
    simulation.world.counts["faults"] += 1
    simulation.world.tell(f"FAULT {fault}")
    node.leaving = node.retiring = node.restoring = True
    simulation.loop.create_task(_leave(simulation, fault, node), context=Context())


async def _leave(simulation: Simulation, fault: Fault, node: Node) -> None:
    until_s = simulation.loop.time() + ENDS_S
    while any(not process.name.endswith("/control") for process in node.processes):
        for worker in node.workers.values():
            node.run_in(worker.process, worker.stopping.set)
        await asyncio.sleep(0.1)
        if simulation.loop.time() > until_s:
            _kill(node)
    control = node.control
    if control is not None:
        control.process.ends = True
        node.run_in(control.process, control.stopping.set)
        while control.process.alive and simulation.loop.time() < until_s + ENDS_S:
            await asyncio.sleep(0.1)
    _kill(node)
    node.off = node.lost = True
    whole = control is not None and control.ended_whole
    node.restoring = False
    simulation.world.counts["nodes that left"] += 1
    if whole and not fault.amount:
        simulation.world.tell(f"{node.name} has left, and nothing of it is needed any more")
        simulation.world.counts["nodes that left nothing"] += 1
        node.adopted = True
        return
    await adopt(simulation, node, simulation.nodes[0])


def _kill(node: Node) -> None:
    for process in list(node.processes):
        node.died(process)


def left_nothing(simulation: Simulation, node: Node) -> bool:
    """What an operator sees of a control process that has come to its end: all was delivered, and no worker died that
    had slices, which would have to be let go later."""
    try:
        slices = simulation.disk.names(str(node.directory / FOLDER))
    except FileNotFoundError:
        slices = {}
    return is_done(simulation, node) and all(name.endswith(ENDED) for name in slices)
