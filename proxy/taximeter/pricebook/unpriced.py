"""Calls that have no cost: why, and a warning for each model without a price."""

from __future__ import annotations

import logging
from typing import Protocol

from taximeter.core.prices import Card, Why, figures_of, rates_for, uses_of
from taximeter.core.record import IMPOSSIBLE, IN_PART, Operation, Outcome, Record

_log = logging.getLogger("taximeter.prices")

_NOT_BILLED = frozenset((Outcome.REFUSED, Outcome.UPSTREAM_UNREACHABLE, Outcome.UPSTREAM_ERROR))
_NOT_SENT = frozenset((Outcome.REFUSED, Outcome.UPSTREAM_UNREACHABLE))
_BILLED = frozenset(("audio", "images"))
"""Of the calls that are neither chat nor embedding nor rerank, those that are billed whatever their answer tells."""
_WARNED = 1_000
"""Most models warned about; one line each."""


class Lists(Protocol):
    """See `taximeter.pricebook.lists`."""

    def missing(self, record: Record) -> Why: ...


class Book(Protocol):
    """Where cards are looked up (see `taximeter.pricebook.book`)."""

    @property
    def lists(self) -> Lists: ...

    def find(self, record: Record) -> Card | None: ...


def why(record: Record, book: Book) -> Why | None:
    """Why a call has no cost; None where nothing is billed as far as anybody knows (it was refused, or failed)."""
    if record.outcome in _NOT_BILLED:
        return None
    if record.deferred is not None:
        return Why.DEFERRED
    if record.cost_note == IMPOSSIBLE:
        return Why.USAGE_IMPOSSIBLE
    if record.cost_note == IN_PART:
        return Why.USE_WITHOUT_PRICE
    if record.inconsistent:
        return Why.USAGE_INCONSISTENT
    if all(figure is None for figure in figures_of(record)):
        billed = record.operation is not Operation.OTHER or record.api in _BILLED
        return Why.USAGE_UNKNOWN if billed else None
    card = book.find(record)
    if card is None:
        return book.lists.missing(record)
    rates = rates_for(card, record)
    if rates is None:
        return Why.SIZE_WITHOUT_PRICE
    if any(uses and rate is None for uses, rate in uses_of(rates, record)):
        return Why.USE_WITHOUT_PRICE
    return Why.FIGURE_UNKNOWN


class Warnings:
    """One log line for each model, tier, speed and region without a price."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str, str]] = set()

    def warn(self, record: Record) -> None:
        """Say it, unless it was said, or nothing was used that would need a price."""
        used = any(figure is not None for figure in figures_of(record))
        if not used or record.outcome in _NOT_SENT:
            return
        named = (("service tier", record.service_tier), ("speed", record.speed), ("region", record.region))
        which = "".join(f" in {kind} {name!r}" for kind, name in named if name)
        what = (record.provider, record.model, which)
        if what in self._told or len(self._told) >= _WARNED:
            return
        self._told.add(what)
        _log.warning(
            "no price for %s/%s%s: calls are recorded without cost; add it to prices.toml, then `taximeter reprice`",
            *what,
        )
