"""Rates: no window, however it lies, has more of what reached the provider than the limit, nor is more there at once.

A call was admitted between the moment it was asked for and the moment it reached the provider. Those of which both lie
in one window were admitted in it.
"""

from __future__ import annotations

from bisect import bisect
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from simulation.audit.journals import Said
from simulation.audit.uneven import NotYet, Uneven

if TYPE_CHECKING:
    from simulation.actors.client import Caller
    from simulation.simulation import Simulation

LEASE_S = 60
"""docs/limits.md: a call at once of which nobody says for so long that it goes on counts no more."""


TOLD_S = 0.25 + 0.1
"""docs/limits.md: within a quarter of a second a Redis that forgot or went back is told what was admitted; a trip."""


class Stay(NamedTuple):
    """One call at the provider (s)."""

    asked_s: float
    reached_s: float
    over_s: float
    tokens: int


def compare(simulation: Simulation, records: list[Said]) -> None:
    """Raises Uneven; NotYet for what may still come."""
    settings = simulation.nodes[0].settings
    if not settings.rate:
        return
    refused = [caller for caller in simulation.callers if caller.status == 429 and b"The rate " in caller.got]
    simulation.world.counts["refused by a rate"] = len(refused)
    redis_was_away = any(fault.kind.startswith("redis") for fault in simulation.plan.faults)
    _nobody_is_left(simulation, records, NotYet if redis_was_away else Uneven)
    if settings.budget.on_unavailable == "allow" and redis_was_away:
        return
    # What a worker admitted that is gone nobody can tell a Redis again that forgot it: then calls are compared with
    # those that were asked for since, of which it knows.
    some_died = any(each.process.ended_s < simulation.plan.over_s for each in simulation.callers)
    forgot_s = sorted(simulation.redis.forgot_s) if some_died else []
    for rate in simulation.plan.rates:
        for value, stays in _by_value(simulation, rate).items():
            for known in range(len(forgot_s) + 1):
                since = [stay for stay in stays if bisect(forgot_s, stay.asked_s) == known]
                _within(simulation, rate, value, since)


def short(simulation: Simulation) -> str:
    """A window that knows of fewer tokens than were billed of what began in it; "": none. Looked at when a script has
    run, of workspaces whose Redis forgot nothing, and of calls that went well from end to end."""
    now_s, window_s = simulation.world.now_s(), simulation.plan.window_s
    for rate in simulation.plan.rates:
        if "tokens_per_minute" not in rate or "track" in rate or simulation.redis_forgot:
            continue
        billed: dict[str, int] = defaultdict(int)
        for caller in simulation.callers:
            plan = caller.plan
            bill = simulation.provider.bills.get(plan.marker)
            went_well = plan.fate in ("ok", "slow") and plan.leaves_after_s is None and caller.process.alive
            if bill is not None and went_well and _concerned(rate, caller) and caller.asked_s > now_s - window_s + 1:
                billed[plan.workspace] += bill.prompt_tokens + bill.output_tokens
        for workspace, tokens in billed.items():
            key = f"tm:{{{workspace}}}:rate:tokens:{rate['name']}".encode()
            if (known := sum(map(int, simulation.redis.model.keys.get(key, {}).values()))) < tokens:
                return f"{key.decode()} knows of {known} tokens, and {tokens} were billed that began in it"
    return ""


def _by_value(simulation: Simulation, rate: dict[str, Any]) -> dict[str, list[Stay]]:
    found: dict[str, list[Stay]] = defaultdict(list)
    provider = simulation.provider
    for caller in simulation.callers:
        plan = caller.plan
        if plan.marker not in provider.reached_s or not _concerned(rate, caller):
            continue
        if any(at_s <= provider.reached_s[plan.marker] <= at_s + TOLD_S for at_s in simulation.redis.forgot_s):
            continue  # it may have been admitted by a worker that had nothing to tell
        bill = provider.bills[plan.marker]
        stay = Stay(
            caller.asked_s,
            provider.reached_s[plan.marker],
            min(provider.over_s.get(plan.marker, float("inf")), caller.process.ended_s),
            bill.prompt_tokens + bill.output_tokens,
        )
        found[f"{plan.workspace} {plan.track if rate.get('track') == '*' else ''}"].append(stay)
    return found


def _concerned(rate: dict[str, Any], caller: Caller) -> bool:
    """Whether a rate is about a call; a look at what was promised costs nothing, and is none of it."""
    plan, track = caller.plan, rate.get("track", "")
    if plan.method == b"GET" or rate.get("workspace", "*") not in ("*", plan.workspace):
        return False
    return not track or (plan.track is not None and track in ("*", plan.track))


def _within(simulation: Simulation, rate: dict[str, Any], value: str, stays: list[Stay]) -> None:
    window_s, budget = simulation.plan.window_s, simulation.nodes[0].settings.budget
    lives = sum(node.lives for node in simulation.nodes)

    def most(name: str) -> int:
        share = max(1, int(rate[name] * budget.slice_percent / 100)) if budget.on_unavailable == "slice" else 0
        return int(rate[name]) + lives * share

    for first in stays:
        begun = [s for s in stays if s.asked_s >= first.asked_s and s.reached_s <= first.asked_s + window_s]
        if "requests_per_minute" in rate and len(begun) > most("requests_per_minute"):
            raise Uneven(f"{len(begun)} requests of {value} in {window_s} s reached the provider: {rate}: {begun}")
        tokens = sum(stay.tokens for stay in begun)
        if "tokens_per_minute" in rate and tokens > most("tokens_per_minute"):
            raise Uneven(f"{tokens} tokens of {value} in {window_s} s reached the provider: {rate}: {begun}")
        there = [s for s in stays if s.reached_s <= first.reached_s < s.over_s]
        if "concurrent" in rate and len(there) > most("concurrent"):
            raise Uneven(f"{len(there)} calls of {value} at once were at the provider: {rate}: {there}")


def _nobody_is_left(simulation: Simulation, records: list[Said], error: type[Uneven]) -> None:
    """At rest no call is there any more, though its worker may have died: where it did so after it had recorded how the
    call ended, and before it could tell, at the latest when its lease ends."""
    now_s = simulation.world.wall_ns() / 1e9
    dead = {said["request_id"] for said in records if said["outcome"] == "interrupted"}
    for key, value in simulation.redis.model.keys.items():
        if b":rate:calls:" in b":" + key and (left := [call for call, at in value.items() if at > now_s - LEASE_S]):
            told = any(call.decode().partition("#")[0] in dead for call in left)
            raise (error if told else NotYet)(f"Redis: at rest {key.decode()} still has {left}")
