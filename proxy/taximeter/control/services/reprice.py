"""Pricing a period again from the usage kept with each record; what differs becomes `correction` records (DESIGN §9).

A record's cost is what was written at its close plus its corrections, so doing this twice changes nothing the second
time, and after a failure the rest is what a second run finds. Knows no HTTP and no terminal.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Protocol

import msgspec
from msgspec.structs import replace

from taximeter.core import totals, views
from taximeter.core.correction import correction
from taximeter.core.record import Record
from taximeter.core.times import shown
from taximeter.sinks.query import Filters


class Prices(Protocol):
    """What a call costs (see `taximeter.pricebook`)."""

    def cost(self, record: Record) -> tuple[int | None, str | None]: ...

    def why(self, record: Record) -> str | None: ...


class Exports(Protocol):
    """Every record of a period (see sinks.history)."""

    def export(self, filters: Filters, chunk: int = 2_000) -> AsyncIterator[list[Record]]: ...


class Change(msgspec.Struct, kw_only=True):
    """What pricing again does to one model's calls; money in nano-USD."""

    provider: str = ""
    model: str = ""
    requests: int = 0
    """Calls looked at."""
    corrected: int = 0
    """Of these, calls whose cost differs."""
    unpriced: int = 0
    """Of these, calls that may have been billed and have no cost now; it stays what it was."""
    unpriced_reasons: dict[str, int] = {}
    """How many of these for which reason (`taximeter.core.prices.Why`)."""
    not_billed: int = 0
    """Of these, calls that were refused or failed: they need no price."""
    before_nusd: int = 0
    after_nusd: int = 0


class RepricedModel(msgspec.Struct, kw_only=True):
    """A change as answered."""

    provider: str | None = None
    model: str | None = None
    requests: int
    corrected: int
    unpriced: int
    unpriced_reasons: dict[str, int]
    not_billed: int
    before_usd: Decimal
    after_usd: Decimal
    difference_usd: Decimal


class RepriceResponse(msgspec.Struct, kw_only=True):
    """`POST /reprice`: by model, and in all."""

    from_: str | None = msgspec.field(name="from")
    to: str | None
    dry_run: bool
    """True: nothing was written."""
    models: list[RepricedModel]
    total: RepricedModel


def costs(answer: RepriceResponse) -> tuple[dict[str, object], dict[str, object]]:
    """What the audit log says of it: what was, what is."""
    total = answer.total
    return {"cost_usd": total.before_usd}, {"cost_usd": total.after_usd, "corrected": total.corrected}


async def reprice(
    history: Exports, prices: Prices, filters: Filters, write: Callable[[Record], None] | None
) -> list[Change]:
    """Price every call of a period again; `write` gets a correction for each whose cost differs (None: nobody does).

    History must hold every correction written before. Whatever `write` raises ends it; what was written counts.
    """
    so_far = await _corrections(history, filters)
    changes: dict[tuple[str, str], Change] = {}
    async for records in history.export(replace(filters, kind="usage")):
        for record in records:
            key = record.provider, record.model
            change = changes.setdefault(key, Change(provider=key[0], model=key[1]))
            corrected = _one(record, so_far.get((record.request_id, record.attempt, record.line)), prices, change)
            if corrected is not None and write is not None:
                write(corrected)
    return sorted(changes.values(), key=lambda change: (-abs(change.after_nusd - change.before_nusd), change.model))


async def _corrections(history: Exports, filters: Filters) -> dict[tuple[str, int, str | None], tuple[int, int]]:
    """(request_id, attempt, line) -> sums of its corrections: of its cost, of what its budgets are charged. They carry
    the moment of the call they correct."""
    found: dict[tuple[str, int, str | None], tuple[int, int]] = {}
    async for records in history.export(replace(filters, kind="correction")):
        for record in records:
            key = record.request_id, record.attempt, record.line
            cost_nusd, charged_nusd = found.get(key, (0, 0))
            found[key] = cost_nusd + (record.cost_nusd or 0), charged_nusd + (record.charged_cost_nusd or 0)
    return found


def _one(record: Record, so_far: tuple[int, int] | None, prices: Prices, change: Change) -> Record | None:
    """Add a call to its model's change; its correction, where there is something to correct."""
    known = [part for part in (record.cost_nusd, None if so_far is None else so_far[0]) if part is not None]
    before_nusd = sum(known) if known else None
    after_nusd, ref = prices.cost(record)
    change.requests += 1
    change.before_nusd += before_nusd or 0
    change.after_nusd += (before_nusd if after_nusd is None else after_nusd) or 0
    if after_nusd is None:
        why = prices.why(record)
        if why is None:
            change.not_billed += 1
        else:
            change.unpriced += 1
            change.unpriced_reasons[why] = change.unpriced_reasons.get(why, 0) + 1
        return None
    if after_nusd == before_nusd:
        return None
    change.corrected += 1
    first = before_nusd is None and _counts_as_unpriced(record)
    corrected = correction(record, after_nusd - (before_nusd or 0), ref, first=first)
    if record.charged_tokens is None and record.charged_cost_nusd is not None:  # only its price had not been known
        charged_nusd = record.charged_cost_nusd + (0 if so_far is None else so_far[1])
        corrected = replace(corrected, charged_cost_nusd=-charged_nusd or None, tags=record.tags)
    return corrected


def _counts_as_unpriced(record: Record) -> bool:
    cell = totals.empty()
    totals.add(cell, record)
    return cell[totals.UNPRICED] > 0


def response(changes: list[Change], filters: Filters, *, dry_run: bool) -> RepriceResponse:
    """The changes as answered; the total is the sum of the models."""
    total = Change()
    for name in ("requests", "corrected", "unpriced", "not_billed", "before_nusd", "after_nusd"):
        setattr(total, name, sum(getattr(change, name) for change in changes))
    for change in changes:
        for why, number in change.unpriced_reasons.items():
            total.unpriced_reasons[why] = total.unpriced_reasons.get(why, 0) + number
    return RepriceResponse(
        from_=shown(filters.from_us),
        to=shown(filters.to_us),
        dry_run=dry_run,
        models=[_shown(change) for change in changes],
        total=_shown(total),
    )


def _shown(change: Change) -> RepricedModel:
    return RepricedModel(
        provider=change.provider or None,
        model=change.model or None,
        requests=change.requests,
        corrected=change.corrected,
        unpriced=change.unpriced,
        unpriced_reasons=change.unpriced_reasons,
        not_billed=change.not_billed,
        before_usd=views.usd(change.before_nusd),
        after_usd=views.usd(change.after_nusd),
        difference_usd=views.usd(change.after_nusd - change.before_nusd),
    )
