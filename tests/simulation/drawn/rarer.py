"""More misfortunes that have to come together (see `profiles`), each drawn from a random stream of its own: one that is
added changes no seed but those that are about it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simulation.actors.client import Plan
from simulation.events.deeds import Deed
from simulation.events.faults import Fault
from simulation.events.later import draw as draw_jobs

if TYPE_CHECKING:
    from simulation.drawn.scenario import Scenario

Drawn = random.Random
FIRST = 100
"""Of those that are about what is in `LATER`."""

BOUNDS = {
    "taximeter.control.services.owed:AT_ONCE": (1, 3),
    "taximeter.delivery.verify:AT_ONCE": (1, 2),
    "taximeter.sinks.history.write.evidence:SEGMENT_RECORDS": (3, 10),
    "taximeter.sinks.history.write.evidence:MANY_PIECES": (2, 5),
    "taximeter.sinks.history.write.owed_upkeep:BITE": (1, 2),
    "taximeter.sinks.history.write.tag_rollups:FIRST_BITE": (1, 7),
    "taximeter.sinks.webhook.store:CUT_AT_ONCE": (1, 2),
}
"""Bounds of the product that a short simulation never meets (as scenario.TUNING): smaller ones."""


def struck(plan: Scenario) -> Scenario:
    """The plan, or what becomes of it where its seed is about one of these."""
    for share, make in (*RARER, *(LATER if plan.seed >= FIRST else ())):
        drawn = random.Random(f"{plan.seed}/{make.__name__}")
        if drawn.random() < share:
            make(drawn, plan)
            plan.profile = make.__name__.strip("_").replace("_", " ")
            plan.faults.sort()
            break
    return plan


def _bounds_are_small(drawn: Drawn, plan: Scenario) -> None:
    """Whatever is done piece by piece has many pieces."""
    plan.tuning |= {name: drawn.choice(sizes) for name, sizes in BOUNDS.items()}


def _calls_live_on_slices(drawn: Drawn, plan: Scenario) -> None:
    """Redis is away while more calls come than a budget holds; they take of slices. When it is back others come. In
    requests, as of tokens calls use far less than they may."""
    _plainly(plan)
    plan.budgets = [{"unit": "requests", "limit": max(5, int(len(plan.calls) * drawn.uniform(0.3, 0.7)))}]
    plan.settings["budget"] = {"on_unavailable": "slice", "slice_percent": drawn.choice((20.0, 40.0))}
    at_s, away_s = drawn.uniform(3.0, 4.0), drawn.uniform(0.5, 2.5)
    plan.over_s = at_s + away_s + 3.0
    plan.faults = [Fault(at_s, "redis down", amount=away_s)]
    if drawn.random() < 0.5:
        kind, when_s = drawn.choice(("kill", "stop")), at_s + away_s * drawn.uniform(0.5, 1.2)
        plan.faults.append(Fault(when_s, kind, drawn.randrange(plan.nodes), "worker0"))
    if drawn.random() < 0.5:
        plan.faults.append(Fault(at_s + away_s, "redis loses replies", amount=3))
    _bursts(drawn, plan, [at_s + 0.05, at_s + away_s - 0.2, at_s + away_s + 0.1, at_s + away_s + 1.0])
    few = 2 * plan.nodes  # who has had calls that a budget is about is given a slice of it, as long as there is room
    early = [call._replace(at_s=1.2 + 0.3 * n, where=n) for n, call in enumerate(plan.calls[:few])]
    plan.calls = early + plan.calls[few:]


def _no_settlement_is_taken(drawn: Drawn, plan: Scenario) -> None:
    """History refuses as something is about to be settled. When it takes things again, delivery still waits, and what
    was settled then has not arrived when it is settled the next time."""
    _plainly(plan)
    plan.over_s = max(plan.over_s, 8.0)
    for tries in range(100):
        plan.jobs, plan.collects = draw_jobs(plan.seed + 1_000_003 * tries, plan.over_s, 2)
        if sum(len(job.polls) for job in plan.jobs) > 4:
            break
    looks = [poll.at_s for job in plan.jobs for poll in job.polls]
    plan.tuning["taximeter.control.services.corrections:DRAIN_S"] = 1
    moments = [drawn.choice(looks) + drawn.uniform(0.1, 0.9) for _ in range(5)]
    plan.faults = [Fault(at_s, "sql refuses", amount=drawn.randrange(7, 14)) for at_s in moments]


def _words_about_rates_are_lost(drawn: Drawn, plan: Scenario) -> None:
    """What calls have used is told to windows that are nearly full, and whether they heard of it nobody knows."""
    _plainly(plan)
    plan.rates, plan.window_s = [{"name": "r-tokens", "tokens_per_minute": drawn.randrange(150, 500)}], 5
    plan.settings["budget"] = {"on_unavailable": "refuse"}
    plan.over_s, plan.tuning = 7.0, {}
    plan.faults = [Fault(drawn.uniform(0.5, 7.0), "redis loses replies", amount=1) for _ in range(60)]
    _bursts(drawn, plan, [0.6, 1.2, 1.9, 2.7, 3.6, 4.6])


def _a_part_of_a_workspace_is_lost(drawn: Drawn, plan: Scenario) -> None:
    """One of the slots that a split workspace is counted in is emptied."""
    _plainly(plan)
    plan.settings["redis"] = {"split": {"w0": drawn.choice((2, 3))}}
    plan.audited = drawn.random() < 0.5
    at_s = drawn.uniform(0.4, 0.8) * plan.over_s
    plan.faults = [Fault(at_s, "redis part gone", amount=1)]
    if not plan.audited:  # then it is noticed as long as its writer and its control live
        plan.nodes, plan.workers = 1, 1
        plan.settings["journal"] |= {"roll_bytes": 1 << 26}
        plan.tuning.pop("taximeter.sinks.redis.positions:REMEMBERED", None)
        if random.Random(f"{plan.seed}/part of old journals").random() < 0.5:  # whose cursors nobody remembers
            plan.settings["journal"] |= {"roll_bytes": 1_200}
            plan.tuning["taximeter.sinks.redis.counters:_JOURNALS"] = 1
    elif drawn.random() < 0.5:
        plan.faults.append(Fault(at_s + drawn.uniform(-0.1, 0.1), "kill", 0, "control"))


def _redis_forgets_what_limits_go_by(drawn: Drawn, plan: Scenario) -> None:
    """It is empty as a budget or a rate is nearly used up, and control stands still: nobody writes it anew."""
    _plainly(plan)
    most, which = max(4, int(len(plan.calls) * drawn.uniform(0.2, 0.5))), drawn.randrange(3)
    if which != 0:
        plan.budgets = [{"unit": "requests", "limit": most if which == 1 else 2 * most}]
    if which != 1:
        plan.rates = [{"name": "r-requests", "requests_per_minute": most}]
    plan.settings["budget"], plan.window_s = {"on_unavailable": "refuse"}, 5
    plan.over_s, at_s = 8.0, drawn.uniform(3.0, 4.0)
    forgets = drawn.choice(("redis empty", "redis older"))
    plan.faults = [Fault(at_s, forgets, amount=drawn.uniform(0.3, 2.0))]
    plan.faults += [Fault(at_s - 0.05, "stall", node, "control", 2.0) for node in range(plan.nodes)]
    _bursts(drawn, plan, [at_s - 1.0, at_s - 0.6, at_s + 0.02, at_s + 0.3, at_s + 0.9])


def _a_sink_is_behind_as_files_go(drawn: Drawn, plan: Scenario) -> None:
    """Redis is slow, gets a few records at a time, and journals are not kept; or control begins anew in the midst."""
    _plainly(plan)
    plan.settings["journal"] |= {"roll_bytes": 4_000, "keep_s": 0.0}
    plan.tuning |= {"taximeter.delivery.shipper:BATCH_RECORDS": 3, "taximeter.delivery.follow:BUFFER_RECORDS": 4}
    plan.over_s = 8.0
    plan.faults = [Fault(1.0, "redis slow", amount=9.0)]
    if drawn.random() < 0.5:
        moments = [drawn.uniform(1.5, 8.0) for _ in range(5)]
        plan.faults += [Fault(at_s, "kill", node, "control") for at_s in moments for node in range(plan.nodes)]


def _another_writes_anew_what_history_lacks(drawn: Drawn, plan: Scenario) -> None:
    """A node has counted what history does not take yet, another writes counters anew, and then no call comes."""
    _plainly(plan)
    plan.nodes, plan.workers, plan.over_s = 2, 1, 8.0
    plan.settings["journal"] |= {"roll_bytes": drawn.choice((1_200, 4_000)), "keep_s": 0.0}
    plan.calls = [call._replace(where=1) for call in plan.calls]
    at_s = drawn.uniform(3.0, 4.0)
    _bursts(drawn, plan, [at_s - 1.0, at_s - 0.3])
    plan.faults = [Fault(at_s - drawn.uniform(0.2, 0.4), "sql refuses", amount=drawn.randrange(6, 12))]
    plan.deeds = [Deed(at_s + 0.1 * n, "rebuild", 0) for n in range(4)]


def _history_is_away_when_the_power_fails(drawn: Drawn, plan: Scenario) -> None:
    """Redis knows more of a journal than is left of it, and than history has."""
    _plainly(plan)
    plan.nodes = 1
    plan.settings["journal"] |= {
        "fsync": drawn.choice(("never", "interval")),
        "roll_bytes": drawn.choice((1_500, 1 << 26)),
    }
    for n in range(2):
        at_s = (0.35 + 0.4 * n + drawn.uniform(0.0, 0.15)) * plan.over_s
        plan.faults.append(Fault(at_s - drawn.uniform(0.2, 0.8), "sql down", amount=drawn.uniform(0.9, 1.6)))
        plan.faults.append(Fault(at_s, "power", 0, amount=drawn.uniform(0.2, 0.8)))


def _slices_outlive_what_redis_knew(drawn: Drawn, plan: Scenario) -> None:
    """Calls take of slices while Redis is away, and are slow; it comes back without what it knew."""
    _plainly(plan)
    plan.budgets = [{"unit": "tokens", "limit": drawn.randrange(2_000, 6_000)}]
    plan.settings["budget"] = {"on_unavailable": "slice", "slice_percent": 40.0}
    plan.nodes, at_s, away_s = 1, drawn.uniform(3.0, 4.0), drawn.uniform(0.5, 1.5)
    plan.over_s = at_s + away_s + 6.0
    kind = drawn.choice(("redis empty", "redis older"))
    plan.faults = [
        Fault(at_s, "redis down", amount=away_s),
        Fault(at_s + away_s, kind, amount=away_s + drawn.uniform(0.5, 2.0)),
    ]
    _bursts(drawn, plan, [at_s + 0.05, at_s + away_s - 0.3, at_s + away_s + 2.0])
    plan.calls = _served_early(plan, [_slow(drawn, call) for call in plan.calls])


def _control_stands_still_over_a_dead_worker(drawn: Drawn, plan: Scenario) -> None:
    """Its slices may be let go when it goes on, and what its calls used of them is not counted yet."""
    _plainly(plan)
    plan.budgets = [{"unit": "tokens", "limit": drawn.randrange(2_000, 6_000)}]
    plan.settings["budget"] = {"on_unavailable": "slice", "slice_percent": 40.0}
    plan.nodes, at_s = 1, drawn.uniform(3.0, 4.0)
    plan.over_s = at_s + 15.0
    plan.faults = [
        Fault(at_s, "redis down", amount=2.0),
        Fault(at_s + 1.0, "kill", 0, "worker0"),
        Fault(at_s + 1.0 + drawn.uniform(0.55, 0.9), "stall", 0, "control", drawn.uniform(10.0, 12.0)),
    ]
    _bursts(drawn, plan, [at_s + 0.05, at_s + 0.4])  # what comes later would have other slices
    plan.calls = _served_early(plan, plan.calls)


def _redis_goes_back_when_all_is_quiet(drawn: Drawn, plan: Scenario) -> None:
    """No record comes any more with which somebody would find that out."""
    _plainly(plan)
    plan.audited, plan.nodes, plan.workers = False, 1, 1
    plan.settings["journal"] |= {"roll_bytes": 1 << 26, "keep_s": drawn.choice((3.0, 3_600.0))}
    plan.calls = [call._replace(at_s=call.at_s * 0.6) for call in plan.calls]
    plan.over_s += 3.0
    plan.faults = [Fault(plan.over_s - 0.5, "redis older", amount=drawn.uniform(0.4, 0.8) * plan.over_s)]


def _workers_die_with_calls_at_once(drawn: Drawn, plan: Scenario) -> None:
    """Some calls at once are allowed, and those of workers that died are none."""
    _plainly(plan)
    plan.rates, plan.window_s = [{"name": "r-concurrent", "concurrent": drawn.randrange(3, 8)}], 2
    plan.settings["budget"] = {"on_unavailable": "refuse"}
    plan.faults = [Fault(drawn.uniform(0.1, 1.0) * plan.over_s, "kill", 0, "worker0") for _ in range(5)]
    plan.calls = [_slow(drawn, call) for call in plan.calls]


def _statements_follow_each_other(drawn: Drawn, plan: Scenario) -> None:
    """Of one workspace, while calls of their periods come on: each corrects those before it by what is not stated."""
    _plainly(plan)
    plan.deeds = [
        Deed(plan.over_s * (0.2 + 0.2 * n), "close", drawn.randrange(plan.nodes), workspace="w0", quarters=quarters)
        for n, quarters in enumerate(((-1, 2), (-8, -7), (-12, -11), (-16, -15)))
    ]


def _slow(drawn: Drawn, call: Plan) -> Plan:
    """Maybe of an answer that takes its time."""
    return call._replace(fate="slow") if call.fate == "ok" and drawn.random() < 0.6 else call


def _served_early(plan: Scenario, calls: list[Plan]) -> list[Plan]:
    """The first some of them by themselves: who has had calls of a budget is given a slice of it."""
    few = 2 * plan.nodes
    return [call._replace(at_s=1.2 + 0.3 * n, where=n) for n, call in enumerate(calls[:few])] + calls[few:]


def _plainly(plan: Scenario) -> None:
    """Nothing else goes wrong."""
    plan.faults, plan.deeds, plan.jobs, plan.budgets, plan.rates, plan.receiver = [], [], [], [], [], []
    plan.collects, plan.forwards, plan.audited = False, False, True
    plan.calls = [call._replace(key="") for call in plan.calls]
    plan.settings["journal"] |= {"on_error": "refuse"}
    plan.settings.pop("budget", None)


def _bursts(drawn: Drawn, plan: Scenario, moments: list[float]) -> None:
    """All calls are w0's, and come in bursts."""
    plan.calls = sorted(
        (
            call._replace(
                workspace="w0",
                key=call.key if call.workspace == "w0" else "",  # another's would be of another workspace
                at_s=min(plan.over_s, drawn.choice(moments) + drawn.random() * 0.3),
            )
            for call in plan.calls
        ),
        key=lambda call: call.at_s,
    )


RARER: tuple[tuple[float, Callable[[random.Random, Any], None]], ...] = (
    (0.03, _bounds_are_small),
    (0.02, _calls_live_on_slices),
    (0.02, _no_settlement_is_taken),
    (0.02, _words_about_rates_are_lost),
    (0.02, _a_part_of_a_workspace_is_lost),
    (0.02, _redis_forgets_what_limits_go_by),
    (0.01, _a_sink_is_behind_as_files_go),
    (0.02, _another_writes_anew_what_history_lacks),
)
LATER: tuple[tuple[float, Callable[[random.Random, Any], None]], ...] = (
    (0.02, _history_is_away_when_the_power_fails),
    (0.02, _slices_outlive_what_redis_knew),
    (0.02, _control_stands_still_over_a_dead_worker),
    (0.02, _redis_goes_back_when_all_is_quiet),
    (0.02, _workers_die_with_calls_at_once),
    (0.02, _statements_follow_each_other),
)
"""These leave the first hundred seeds what they were: most bugs that are sown were found by one of them."""
