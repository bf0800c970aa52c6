"""What is worth an alert: thresholds of budgets when they are reached; breakers, prices, sinks, journal and what was
given up as long as they are so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from taximeter.alerts.rule import Condition
from taximeter.breaker.rule import Trip, clock, why
from taximeter.budgets.rule import shown_amount
from taximeter.budgets.thresholds import ThresholdReached
from taximeter.config.settings import AlertSettings
from taximeter.core.errors import TaximeterError
from taximeter.core.figures import count
from taximeter.core.globs import glob
from taximeter.reconcile import rule as reconciling
from taximeter.reconcile.service import Standing
from taximeter.sinks.health import DeliveryHealth
from taximeter.sinks.query import Filters, Group, Window

UNPRICED_US, QUARTER_US = 60_000_000, 900_000_000
STALE_ATTEMPTS = 5
"""A comparison that failed so often in a row, which takes half an hour, is told of."""
MOST_MODELS = 100
"""Told of at once, those with the most calls."""


class Sums(Protocol):
    """History's part."""

    async def usage(
        self, filters: Filters, group_by: Sequence[str] = (), window: Window | None = None, tz: str = "UTC"
    ) -> list[Group]: ...


class Sources:
    """Where it is looked."""

    def __init__(
        self,
        *,
        node: str,
        trips: Callable[[], list[Trip]],
        history: Sums,
        health: Callable[[], DeliveryHealth],
        dead_letters: Callable[[], int],
        standings: Callable[[], Sequence[Standing]] = tuple,
        now_us: Callable[[], int],
    ) -> None:
        self._node = node
        self._trips = trips
        self._history = history
        self._health = health
        self._dead_letters = dead_letters
        self._standings = standings
        self._now_us = now_us
        self._unpriced_groups: dict[str, tuple[int, list[Group]]] = {}
        """Alert -> when history was asked last, and what it said."""

    async def of(self, alert: AlertSettings) -> list[Condition]:
        """What an alert of the settings tells of, as it is now; what cannot be found out now is left out."""
        found: list[Condition] = []
        concerns = glob(alert.workspace)
        if "sink" in alert.on:
            found += sinks(self._health(), alert.sink_behind_s, self._node)
        if "journal" in alert.on:
            found += journal(self._health(), self._node)
        if "deadletter" in alert.on:
            found += given_up(self._health(), self._dead_letters(), self._node)
        if "breaker" in alert.on:
            found += [breaker(trip) for trip in self._trips() if concerns(trip.workspace)]
        if "reconcile" in alert.on:
            found += reconciled(self._standings())
        if "unpriced" in alert.on:
            found += await self._unpriced(alert)
        return found

    async def _unpriced(self, alert: AlertSettings) -> list[Condition]:
        """Asked of sums by quarters of an hour, once a minute: no single record is read for it."""
        now_us = self._now_us()
        asked_us, groups = self._unpriced_groups.get(alert.name, (0, []))
        if now_us - asked_us >= UNPRICED_US:
            since_us = (now_us - int(alert.period_s * 1_000_000)) // QUARTER_US * QUARTER_US
            try:
                groups = await self._history.usage(Filters(from_us=since_us), ("provider", "model"))
            except TaximeterError:  # a history that is down is told of as a sink
                groups = []
            self._unpriced_groups[alert.name] = now_us, groups
        counted = [(each.totals.unpriced_requests, each.key["provider"], each.key["model"]) for each in groups]
        worst = sorted((each for each in counted if each[0]), key=lambda each: -each[0])
        return [unpriced(provider or "?", model or "?", calls) for calls, provider, model in worst[:MOST_MODELS]]


def budget(reached: ThresholdReached) -> Condition:
    """So much of a budget is used; told when it is noticed, which is once."""
    allowance, limit = reached.allowance, reached.allowance.budget
    when = "" if limit.period == "total" else f" ({reached.period})"
    unknown = (
        f", {shown_amount(reached.charged, limit.unit)} are charged without being known" if reached.charged else ""
    )
    effect = "Calls beyond it are refused." if limit.mode == "hard" else "It is soft: calls go on."
    return Condition(
        kind="budget",
        subject=reached.key,
        workspace=limit.workspace,
        title=f"{reached.percent} % of the budget of {allowance.named} is used",
        text=f"{shown_amount(reached.spent, limit.unit)} of {shown_amount(limit.limit, limit.unit)} are spent{unknown}"
        f"{when}, budget {limit.id}. {effect}",
        once=True,
        ends=False,
        shared=True,
    )


def breaker(trip: Trip) -> Condition:
    """A runaway that is stopped."""
    name = trip.place.shown
    return Condition(
        kind="breaker",
        subject=trip.id,
        workspace=trip.workspace,
        title=f"Breaker {trip.breaker}: {name} is stopped",
        text=f"It used {why(trip)}. Its calls are refused until {clock(trip.until)}, or until somebody lets it go on: "
        f"taximeter breaker reset {trip.id}",
        shared=True,
    )


def unpriced(provider: str, model: str, calls: int) -> Condition:
    """A model without a price."""
    return Condition(
        kind="unpriced",
        subject=f"{provider}/{model}",
        title=f"No price is known for {provider}/{model}",
        text=f"{count(calls)} calls have no cost, and are in no budget in USD. Add a price to prices.toml, then run "
        "`taximeter reprice`.",
        ends=False,
        shared=True,
    )


def reconciled(standings: Sequence[Standing]) -> Iterator[Condition]:
    """Providers whose figures differ from ours, and those that cannot be asked."""
    for each in standings:
        run, judged = each.run, each.settings.figures
        furthest = reconciling.worst(each.compared, judged)
        if each.state == "differs" and furthest is not None:
            coverage = furthest.coverage
            passed = "" if coverage is None else f" {coverage:.2%} of what they tell passed here."
            yield Condition(
                kind="reconcile",
                subject=f"{run.name}:differs",
                title=f"Reconcile {run.name}: {furthest.figure.removesuffix('_nusd')} differs by {furthest.ratio:.2%}",
                text=f"From {run.from_day} until before {run.to_day}.{passed} See: taximeter reconcile {run.name}",
                shared=True,
            )
        if run.problem and run.attempts >= STALE_ATTEMPTS:
            yield Condition(
                kind="reconcile",
                subject=f"{run.name}:fails",
                title=f"Reconcile {run.name} fails",
                text=f"It was tried {run.attempts} times, and is tried again: {run.problem}",
                shared=True,
            )


def sinks(health: DeliveryHealth, behind_s: float, node: str) -> Iterator[Condition]:
    """Sinks that are behind."""
    for name, sink in health.sinks.items():
        if sink.lag_seconds > behind_s:
            failing = f" It fails with: {sink.failing}" if sink.failing else ""
            records = "" if sink.lag_records is None else f" {count(sink.lag_records)} records wait."
            yield Condition(
                kind="sink",
                subject=f"{node}:{name}",
                title=f"{name} is {'down' if sink.failing else 'behind'} on node {node}",
                text=f"It has not got what ended {sink.lag_seconds:,.0f} s ago.{records}{failing} Nothing is lost: it "
                "gets everything once it takes it.",
            )


def journal(health: DeliveryHealth, node: str) -> Iterator[Condition]:
    """Journals that cannot be written, or not be read."""
    if not health.journal_healthy:
        yield Condition(
            kind="journal",
            subject=f"{node}:write",
            title=f"The journal of node {node} cannot be written",
            text="Records wait in memory, and are lost if the process ends now. Is the disk full, or gone?",
        )
    for file, reason in health.halted.items():
        yield Condition(
            kind="journal",
            subject=f"{node}:{file}",
            title=f"A journal file of node {node} is not delivered",
            text=f"{file}: {reason}. What is in it is in no figure until somebody looks.",
        )


def given_up(health: DeliveryHealth, dead_letters: int, node: str) -> Iterator[Condition]:
    """What was given up, and waits for somebody to say so."""
    if dead_letters:
        yield Condition(
            kind="deadletter",
            subject=f"{node}:webhook",
            title=f"The webhook of node {node} has given up {count(dead_letters)} letters",
            text="The billing backend has not taken them. See: taximeter webhook list, taximeter webhook resend",
        )
    for name, sink in health.sinks.items():
        if sink.set_aside_records:
            yield Condition(
                kind="deadletter",
                subject=f"{node}:{name}",
                title=f"{name} could not take {count(sink.set_aside_records)} records of node {node}",
                text="They are set aside, and missing in its figures. See: taximeter deadletters list",
            )
