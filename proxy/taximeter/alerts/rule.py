"""What is worth an alert, what has been told of it, and what is on its way. Pure.

Of each subject at most one alert in a period, also over restarts and with several nodes; what has an end is told to be
over, once.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Literal

import msgspec

Kind = Literal["budget", "breaker", "unpriced", "sink", "journal", "deadletter", "reconcile"]
Channel = Literal["email", "webhook"]

OVER_AFTER_US = 60_000_000
"""What has been well for so long is over: what comes and goes is one alert."""
KEPT_US = 400 * 86_400_000_000
"""What is told once only is remembered for so long: as long as counters of days."""
FIRST_WAIT_S, LONGEST_WAIT_S = 5.0, 900.0
"""Back-off of what could not be sent, doubled each time."""
GIVEN_UP_US = 3 * 86_400_000_000
"""A letter that nobody took for so long is given up."""
MOST_LETTERS = 1_000
"""Waiting at once; beyond it the oldest is given up."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is so now."""

    kind: Kind
    subject: str
    """What it is about, the same as long as it lasts."""
    title: str
    """One line."""
    text: str
    """What it means, and what to do."""
    workspace: str = ""
    """Whose it is; "": the node's."""
    once: bool = False
    """Told once for ever: its subject names the period it is about."""
    ends: bool = True
    """Where it is no longer so, that is told too."""
    shared: bool = False
    """All nodes see it; else it is about this node."""


class Told(msgspec.Struct, kw_only=True):
    """What has been told of a subject by an alert of the settings."""

    alert: str
    kind: Kind
    subject: str
    title: str
    text: str
    workspace: str = ""
    told_at: int
    """µs since epoch, as all moments."""
    ours: bool = True
    """This node told it; else another did."""
    once: bool = False
    ends: bool = True
    gone_at: int = 0
    """Since when it is well; 0: it is not."""
    over: bool = False
    """That has been told too, or need not be."""


class Letter(msgspec.Struct, kw_only=True):
    """An alert on its way to one receiver; body and id are the same at every attempt."""

    id: str
    alert: str
    channel: Channel
    kind: str
    subject: str
    title: str
    text: str
    workspace: str
    over: bool
    """It says that something is over."""
    to: list[str]
    """E-mail: who has not got it yet."""
    created_at: int
    attempts: int = 0
    next_at: int = 0
    problem: str = ""


class State(msgspec.Struct, kw_only=True):
    """All that is remembered, as in `<data_dir>/alerts.json`."""

    told: list[Told] = []
    letters: list[Letter] = []
    given_up: int = 0


class Plan(msgspec.Struct, kw_only=True):
    """One alert of the settings: what of what it tells to whom."""

    name: str
    kinds: frozenset[str]
    email_to: tuple[str, ...]
    webhook: bool
    period_us: int


def key_of(alert: str, kind: str, subject: str) -> str:
    """By which nodes agree who tells."""
    return sha256("\n".join((alert, kind, subject)).encode()).hexdigest()[:32]


def known(told: Iterable[Told], plan: Plan) -> dict[tuple[str, str], Told]:
    """What an alert told, by (kind, subject)."""
    return {(each.kind, each.subject): each for each in told if each.alert == plan.name}


def due(told: Told | None, condition: Condition, plan: Plan, now_us: int) -> bool:
    """Whether a condition is to be told now."""
    if told is None:
        return True
    return not condition.once and now_us - told.told_at >= plan.period_us


def letters(plan: Plan, told: Told, *, over: bool, now_us: int) -> list[Letter]:
    """What goes out of it: one e-mail for all, one webhook."""
    channels: list[tuple[Channel, list[str]]] = [("email", list(plan.email_to))] if plan.email_to else []
    if plan.webhook:
        channels.append(("webhook", []))
    end = ":over" if over else ""
    return [
        Letter(
            id=f"{key_of(told.alert, told.kind, told.subject)}:{told.told_at}:{channel}{end}",
            alert=plan.name,
            channel=channel,
            kind=told.kind,
            subject=told.subject,
            title=f"Over: {told.title}" if over else told.title,
            text="This is over.\n\n" + told.text if over else told.text,
            workspace=told.workspace,
            over=over,
            to=to,
            created_at=now_us,
        )
        for channel, to in channels
    ]


def wait_s(attempts: int) -> float:
    """How long to wait after the n-th failure."""
    return float(min(LONGEST_WAIT_S, FIRST_WAIT_S * (1 << min(attempts - 1, 16))))


def kept(told: Told, plans: dict[str, Plan], now_us: int) -> bool:
    """Whether it has to be remembered any longer."""
    if told.ends and not told.over and not told.once:
        return told.alert in plans
    period_us = plans[told.alert].period_us if told.alert in plans else 0
    return now_us - told.told_at < (KEPT_US if told.once else max(period_us, 86_400_000_000))
