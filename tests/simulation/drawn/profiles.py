"""Misfortunes that have to come together to do harm: a share of the seeds is about one such set of them.

What chance alone would bring together once in thousands of seeds is drawn here at once. The rest of such a seed is as
ever: its calls, most of its settings, who goes first.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simulation.events.deeds import Deed
from simulation.events.faults import Fault

if TYPE_CHECKING:
    from simulation.drawn.scenario import Scenario

SHARE = 0.35
Drawn = random.Random


def profiled(plan: Scenario) -> Scenario:
    """The plan, or what becomes of it where its seed is one of those."""
    drawn = random.Random(f"{plan.seed}/profile")
    if drawn.random() < SHARE:
        make = drawn.choice(PROFILES)
        plan.profile = make.__name__.strip("_").replace("_", " ")
        plan.jobs, plan.deeds, plan.rates = [], [], []
        make(drawn, plan)
        plan.faults.sort()
    return plan


def _a_workspace_is_lost(drawn: Drawn, plan: Scenario) -> None:
    """A shard of a Redis Cluster fails over to a replica that never heard of w0; control may not remember either."""
    plan.audited = False
    plan.settings.pop("redis", None)  # a part of one that is split is missed as its journals come only, or by the audit
    at_s = drawn.uniform(0.4, 0.7) * plan.over_s
    plan.faults = [Fault(at_s, "redis workspace gone")]
    for node in range(plan.nodes):
        if drawn.random() < 0.5:
            plan.faults.append(Fault(at_s + drawn.uniform(-0.2, 0.1), "kill", node, "control"))
    if drawn.random() < 0.6:  # what Redis has counted history has not
        plan.faults.append(Fault(at_s - drawn.uniform(0.2, 1.5), "sql down", amount=drawn.uniform(0.5, 3.0)))
    for n in range(-min(plan.nodes, len(plan.calls)), 0):  # who counts there next finds it out, and nobody before
        plan.calls[n] = plan.calls[n]._replace(workspace="w0", at_s=plan.over_s, where=-n)


def _a_workspace_goes_back(drawn: Drawn, plan: Scenario) -> None:
    """The replica had heard of some of it. That is noticed as long as its writer and its control live."""
    plan.audited, plan.nodes, plan.workers = False, 1, 1
    plan.settings["journal"] |= {"roll_bytes": 1 << 26}
    plan.tuning.pop("taximeter.sinks.redis.positions:REMEMBERED", None)
    at_s = drawn.uniform(0.4, 0.7) * plan.over_s
    plan.faults = [Fault(at_s, "redis workspace older", amount=drawn.uniform(0.3, 2.0))]
    if drawn.random() < 0.5:
        plan.faults.append(Fault(at_s + drawn.uniform(-0.1, 0.1), "redis loses replies", amount=3))


def _two_rebuild_at_once(drawn: Drawn, plan: Scenario) -> None:
    """Redis is slow, and comes back empty or is written anew by hand while two nodes count; who does it may stand still
    until the other one takes over."""
    plan.audited, plan.nodes = False, 2
    at_s = drawn.uniform(1.5, 3.0)
    plan.tuning["taximeter.sinks.redis.rebuild:_KEYS_A_CALL"] = 1
    plan.settings["journal"]["roll_bytes"] = 1_200  # a journal a call
    slow_s = drawn.uniform(1.5, 4.0)
    plan.faults = [Fault(at_s, "redis slow", amount=slow_s)]
    if drawn.random() < 0.4:
        plan.faults.append(Fault(at_s, "redis empty"))
    else:
        plan.deeds = [Deed(at_s + 0.01, "rebuild", 0)]
    if drawn.random() < 0.5:
        stands_s = drawn.uniform(10.2, 11.5)
        plan.faults.append(Fault(at_s + drawn.uniform(0.3, slow_s), "stall", 0, "control", stands_s))
        plan.deeds.append(Deed(at_s + stands_s, "rebuild", 1))
        plan.faults.append(Fault(at_s + stands_s, "redis slow", amount=3.0))
        _stretch(plan, at_s + 16.0)


def _killed_on_a_full_disk(drawn: Drawn, plan: Scenario) -> None:
    """Lenient, with room for two lines: what a worker cannot write goes with it, and it has said how much that is."""
    plan.settings["journal"] |= {"on_error": "pass", "buffer_records": 2}
    plan.workers, plan.faults, at_s = 1, [], 0.3
    while at_s < plan.over_s:
        at_s += drawn.uniform(0.3, 1.0)
        full_s = drawn.uniform(0.3, 1.2)
        plan.faults.append(Fault(at_s, "disk full", 0, amount=full_s))
        at_s += full_s
        # The next one starts where the disk has room again, and has a status file.
        plan.faults.append(Fault(at_s - drawn.uniform(0.01, 0.19), "kill", 0, "worker0"))
        at_s += 1.0


def _redis_lags_behind(drawn: Drawn, plan: Scenario) -> None:
    """Journals end, and go as soon as they may, while Redis lacks a record or two of them."""
    plan.settings["journal"] |= {"keep_s": 0.0, "roll_bytes": 4_000}
    for name in ("taximeter.delivery.follow:BATCH_RECORDS", "taximeter.delivery.shipper:BATCH_RECORDS"):
        plan.tuning[name] = drawn.choice((1, 2))
    plan.workers, plan.faults = 2, []
    for _ in range(14):
        at_s = drawn.uniform(0.2, 1.0) * plan.over_s
        kind = drawn.choice(("redis down", "redis loses requests", "redis slow"))
        amount = float(drawn.randrange(1, 4)) if "loses" in kind else drawn.uniform(0.3, 4.0)
        plan.faults.append(Fault(at_s, kind, amount=amount))
    for n in range(6):
        plan.faults.append(Fault(drawn.uniform(0.2, 1.0) * plan.over_s, "stop", n % plan.nodes, f"worker{n % 2}"))


def _many_at_once(drawn: Drawn, plan: Scenario) -> None:
    """Bursts of calls under a budget that holds a few of them, and now and then a worker dies with some in flight."""
    plan.budgets = [{"unit": "tokens", "limit": drawn.randrange(80, 400)}]
    if drawn.random() < 0.5:
        plan.budgets.append({"unit": "input_tokens", "limit": drawn.randrange(40, 200), "track": "*"})
    plan.settings["budget"] = {"on_unavailable": "refuse"}
    bursts = [2.0 + drawn.random() * max(1.0, plan.over_s - 3.0) for _ in range(4)]
    plan.calls = sorted(
        (
            call._replace(workspace="w0", at_s=min(plan.over_s, drawn.choice(bursts) + drawn.random() * 0.3))
            for call in plan.calls
        ),
        key=lambda call: call.at_s,
    )
    plan.faults = [
        Fault(at_s + drawn.uniform(0.05, 0.5), "kill", drawn.randrange(plan.nodes), "worker0")
        for at_s in bursts
        if drawn.random() < 0.5
    ]


def _dead_before_it_was_read(drawn: Drawn, plan: Scenario) -> None:
    """Control has much to read, a bite at a time, while a worker writes its last lines and dies."""
    plan.nodes, plan.workers, plan.faults = 1, 2, []
    plan.tuning["taximeter.journal.tail:SLAB_BYTES"] = 1_500
    plan.tuning["taximeter.delivery.follow:BUFFER_RECORDS"] = 1_000
    plan.settings["journal"]["roll_bytes"] = 1 << 26
    begins_s, ends = 2.0, []
    while begins_s < plan.over_s:
        stands_s = drawn.uniform(1.0, 2.0)
        plan.faults.append(Fault(begins_s, "stall", 0, "control", stands_s))
        steps = float(drawn.randrange(6))
        plan.faults.append(Fault(begins_s + stands_s + drawn.uniform(0, 0.0008), "kill", 0, "worker0", steps))
        ends.append((begins_s, begins_s + stands_s))
        begins_s += stands_s + 1.5
    calls = []
    for n, call in enumerate(plan.calls):
        since_s, ends_s = ends[n % len(ends)]
        burst_s = ends_s + drawn.uniform(-0.0002, 0.001)
        calls.append(call._replace(at_s=burst_s if n // len(ends) % 3 == 0 else drawn.uniform(since_s, ends_s - 0.4)))
    plan.calls = sorted(calls, key=lambda call: call.at_s)


def _the_receiver_is_unwell(drawn: Drawn, plan: Scenario) -> None:
    """The webhook's: it refuses, is away, or takes a letter and nobody is told."""
    form = drawn.choice(("segments", "cloudevents"))
    plan.settings["webhook"] = {"url": "http://localhost:2/", "format": form, "idle_s": 1.0}
    moods = ("down", "refuses", "refuses", "loses the answer")
    plan.receiver = [(second + drawn.random(), drawn.choice(moods)) for second in range(int(plan.over_s))]


def _stretch(plan: Scenario, over_s: float) -> None:
    """The same calls over a longer time."""
    longer = over_s / plan.over_s
    plan.calls = [call._replace(at_s=call.at_s * longer) for call in plan.calls]
    plan.over_s = over_s


PROFILES: tuple[Callable[[random.Random, Any], None], ...] = (
    _a_workspace_is_lost, _a_workspace_goes_back, _two_rebuild_at_once, _killed_on_a_full_disk, _redis_lags_behind,
    _many_at_once, _dead_before_it_was_read, _the_receiver_is_unwell,
)  # fmt: skip
