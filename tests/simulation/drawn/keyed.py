"""Proxy keys: of a share of the seeds some clients present one, and some one that opens nothing."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

from simulation.actors.client import Plan
from taximeter.keys.rule import Keys, ProxyKey, digest, make

if TYPE_CHECKING:
    from simulation.drawn.scenario import Scenario

SHARE = 0.2
UNKNOWN = "k-unknown"
REVOKED = "k-revoked"
STRANGERS = (UNKNOWN, REVOKED)
"""Keys that open nothing."""


def secret(key_id: str) -> bytes:
    """What a client presents of it."""
    return make(hashlib.sha256(key_id.encode()).digest()).encode()


def ring() -> Keys:
    """What every worker knows: two keys of each workspace."""
    names = [f"k-w{n}-{which}" for n in range(5) for which in "ab"]
    found = [ProxyKey(id=name, sha256=digest(secret(name)), workspace=name.split("-")[1]) for name in names]
    return Keys([*found, ProxyKey(id=REVOKED, sha256=digest(secret(REVOKED)), workspace="w0", revoked_at=1)])


def with_keys(plan: Scenario) -> Scenario:
    """The plan; of some seeds with calls that present keys, and budgets by key."""
    drawn = random.Random(f"{plan.seed}/keyholders")
    if drawn.random() >= SHARE:
        return plan

    def keyed(call: Plan) -> Plan:
        key = drawn.choice(("", f"k-{call.workspace}-a", f"k-{call.workspace}-a", f"k-{call.workspace}-b"))
        return call._replace(key=drawn.choice(STRANGERS) if drawn.random() < 0.04 else key)

    plan.forwards = drawn.random() < 0.5
    plan.calls = [keyed(call) for call in plan.calls]
    jobs = []
    for job in plan.jobs:
        asked = keyed(job.asked)
        polls = tuple(poll._replace(key=asked.key if poll.workspace == asked.workspace else "") for poll in job.polls)
        jobs.append(job._replace(asked=asked, polls=polls))
    plan.jobs = jobs
    if drawn.random() < 0.6 and plan.audited:
        most = len(plan.calls) * 20
        limit = max(1, int(most * drawn.choice((0.05, 0.2, 0.6))))
        plan.budgets = [*plan.budgets, {"unit": "tokens", "limit": limit, "key_id": drawn.choice(("*", "*", "k-w0-a"))}]
        plan.settings["budget"] = {"on_unavailable": "refuse", "slice_percent": 5.0, **plan.settings.get("budget", {})}
    return plan
