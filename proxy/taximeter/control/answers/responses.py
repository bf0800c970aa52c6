"""The answers of the usage API as values, and how history's sums become them. Pure; the command line uses them too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from taximeter.control.answers.groups import GroupPart
from taximeter.core import views
from taximeter.core.pricecodes import PriceCodesBill
from taximeter.core.record import Record
from taximeter.core.times import shown
from taximeter.core.totals import Totals
from taximeter.core.views import Metrics, ModelSums, TokenUsage, UsageInfo
from taximeter.sinks.cells import Details
from taximeter.sinks.query import Filters, Group, TrackPart

encode = msgspec.json.Encoder(decimal_format="number").encode
"""JSON with money as exact decimal numbers: a float would drift."""


class UsageGroup(GroupPart, kw_only=True, gc=False):
    """One group's usage: the names grouped by (null: the calls carry none), then the sums."""

    usage: UsageInfo
    estimated_cost_usd: Decimal | None
    """Of the calls that have a price; null where none has."""
    unpriced_requests: int
    charge_usd: Decimal | UnsetType | None = UNSET
    """What the customers pay, of the calls whose charge is known; null where it is of none. Left out: there is no
    `[[plan]]`, or it is not for this reader."""
    uncharged_requests: int | UnsetType = UNSET
    """Calls without a charge: no plan says one, the price is not known, or it depends on a statement's volume."""


class UsageAggregateResponse(msgspec.Struct, kw_only=True):
    """`GET /usage`: totals, and the groups and windows they are the sum of."""

    from_: str | None = msgspec.field(name="from")
    """First moment included; null: from the beginning."""
    to: str | None
    """First moment no longer included; null: until now."""
    filters: dict[str, str | list[str]]
    complete: bool
    """Every call that had ended when this was asked is in these figures."""
    lag_seconds: float
    usage: UsageInfo
    estimated_cost_usd: Decimal | None
    unpriced_requests: int
    charge_usd: Decimal | UnsetType | None = UNSET
    uncharged_requests: int | UnsetType = UNSET
    charge_note: str | UnsetType | None = UNSET
    """Why a charge is not known that a plan says."""
    groups: list[UsageGroup]
    series: list[UsageGroup]
    """One entry a window, and a group where grouped."""


class TrackResponse(msgspec.Struct, kw_only=True):
    """`GET /usage/tracks/{track}`: three views of the same calls."""

    track: str
    workspace: str | None
    """Null: no call of this track is known yet."""
    complete: bool
    lag_seconds: float
    in_flight: int
    """Calls of the track that have not ended, on this node."""
    first_at: str | None
    last_at: str | None
    token_usage: TokenUsage
    metrics: Metrics
    usage: UsageInfo
    estimated_cost_usd: Decimal | None
    unpriced_requests: int
    documents: dict[str, TokenUsage]
    price_codes: PriceCodesBill | UnsetType = UNSET
    """Where `price_codes=1` asked for it: what you charge for the same tokens, at the prices of `[price_codes]`."""


class EventsPage(msgspec.Struct, kw_only=True):
    """Records, newest first, and the cursor of the page after."""

    data: list[dict[str, Any]]
    next_page: str | None


def aggregate(
    groups: Sequence[Group],
    filters: Filters,
    group_by: Sequence[str],
    *,
    windowed: bool,
) -> UsageAggregateResponse:
    """History's finest sums as an answer; totals and groups are added up from them, so they always agree."""
    total = views.summed(group.totals for group in groups)
    by_key: dict[tuple[str | None, ...], list[Group]] = {}
    for group in groups:
        by_key.setdefault(tuple(group.key.values()), []).append(group)
    return UsageAggregateResponse(
        from_=shown(filters.from_us),
        to=shown(filters.to_us),
        filters=named(filters),
        complete=True,
        lag_seconds=0.0,
        usage=views.usage(total),
        estimated_cost_usd=views.cost_usd(total),
        unpriced_requests=total.unpriced_requests,
        groups=[_part(views.summed(each.totals for each in same), same[0].key) for same in by_key.values()]
        if group_by
        else [],
        series=rows(groups) if windowed else [],
    )


def rows(groups: Sequence[Group]) -> list[UsageGroup]:
    """Groups as answers have them, each with its window where it has one."""
    moment = cache(shown)  # each is the start or the end of many groups
    return [
        _part(group.totals, group.key, moment(group.start_us) or UNSET, moment(group.end_us) or UNSET)
        for group in groups
    ]


def track(
    parts: Sequence[TrackPart],
    *,
    name: str,
    workspace: str | None,
    in_flight: int = 0,
    complete: bool = True,
    lag_seconds: float = 0.0,
) -> TrackResponse:
    """One track's parts as an answer."""
    total = views.summed(part.totals for part in parts)
    llm = [part for part in parts if part.operation == "llm"]
    documents = sorted({part.document for part in parts if part.document is not None})
    return TrackResponse(
        track=name,
        workspace=workspace,
        complete=complete,
        lag_seconds=lag_seconds,
        in_flight=in_flight,
        first_at=shown(min((part.first_us for part in parts), default=None)),
        last_at=shown(max((part.last_us for part in parts), default=None)),
        token_usage=views.token_usage(_models(parts)),
        metrics=views.metrics(
            views.summed(part.totals for part in llm),
            details_of(part.details for part in llm),
            views.main_model(_models(llm), "llm"),
        ),
        usage=views.usage(total),
        estimated_cost_usd=views.cost_usd(total),
        unpriced_requests=total.unpriced_requests,
        documents={
            document: views.token_usage(_models(part for part in parts if part.document == document))
            for document in documents
        },
    )


COLUMNS: tuple[str, ...] = (*Record.__struct_fields__[:-1], "cost_usd", "usage")
"""Every name of a shown record, in order (DESIGN §3, and the cost in USD)."""


def record(one: Record) -> dict[str, Any]:
    """A record as shown: its own names, times in RFC 3339, and `cost_usd` beside `cost_nusd`; null is not known."""
    row: dict[str, Any] = {name: getattr(one, name) for name in Record.__struct_fields__}
    usage = row.pop("usage")
    row["started_at"], row["ended_at"] = shown(one.started_at), shown(one.ended_at)
    row["cost_usd"] = None if one.cost_nusd is None else views.usd(one.cost_nusd)
    row["usage"] = usage
    return row


def _part(
    totals: Totals, key: dict[str, Any], start: str | UnsetType = UNSET, end: str | UnsetType = UNSET
) -> UsageGroup:
    return UsageGroup(
        start=start,
        end=end,
        usage=views.usage(totals),
        estimated_cost_usd=views.cost_usd(totals),
        unpriced_requests=totals.unpriced_requests,
        **key,
    )


def _models(parts: Iterable[TrackPart]) -> list[ModelSums]:
    return [ModelSums(part.operation, part.model, part.totals) for part in parts]


def details_of(details: Iterable[Details]) -> Details:
    """Several details as one."""
    total = Details()
    for each in details:
        for name in Details.__struct_fields__:
            setattr(total, name, getattr(total, name) + getattr(each, name))
    return total


def named(filters: Filters) -> dict[str, str | list[str]]:
    """The filters in force, as asked."""
    given: dict[str, str | list[str]] = {}
    for name in Filters.__struct_fields__:
        value = getattr(filters, name)
        if name not in ("from_us", "to_us") and value is not None:
            values = [value] if isinstance(value, str) else list(value)
            given[name] = values[0] if len(values) == 1 else values
    return given
