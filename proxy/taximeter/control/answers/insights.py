"""The answers of the analytics as values, and how history's sums become them. Pure; the command line uses them too.

Money that is not known is null, as everywhere; a ratio without a before is null and not infinite.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from taximeter.control.answers.groups import GroupName
from taximeter.core import analytics, views
from taximeter.core.prices import Card
from taximeter.core.times import local, shown
from taximeter.core.totals import Totals
from taximeter.sinks.query import Filters, Group

DAY_US = 86_400_000_000
TREND_DAYS = 7
PEAK_DAYS = 30
FORECAST_DAYS = 84
"""How far back a forecast and its test look."""
BUSIEST = 5

CardOf = Callable[[str, str, int], Card | None]


class UsageSums(msgspec.Struct, frozen=True):
    """What is compared."""

    requests: int
    total_tokens: int
    estimated_cost_usd: Decimal | None


class Trend(msgspec.Struct, kw_only=True):
    """One group now and before. Changes are fractions of before (0.1: ten per cent more); null without a before."""

    workspace: GroupName = UNSET
    track: GroupName = UNSET
    document: GroupName = UNSET
    task: GroupName = UNSET
    model: GroupName = UNSET
    provider: GroupName = UNSET
    operation: GroupName = UNSET
    key_id: GroupName = UNSET
    end_user: GroupName = UNSET
    service_tier: GroupName = UNSET
    now: UsageSums
    before: UsageSums
    requests_change: float | None
    tokens_change: float | None
    cost_change: float | None


class Trends(msgspec.Struct, kw_only=True):
    """`GET /usage/trends`: a range against the one of the same length before it."""

    from_: str | None = msgspec.field(name="from")
    to: str | None
    before_from: str | None
    before_recorded_from: str | None
    """Null: the range before is whole. Else nothing is recorded before this day, which lies in the range before, so
    that a change compares with a part of it."""
    complete: bool = True
    lag_seconds: float = 0.0
    total: Trend
    groups: list[Trend]
    """The largest change of cost first."""


class HourOfDay(msgspec.Struct, kw_only=True):
    """An hour of the day, over all days of the range."""

    hour: int
    usage: UsageSums
    share: float | None
    """Of the range's requests."""


class BusyHour(msgspec.Struct, kw_only=True):
    """One single hour."""

    start: str | None
    end: str | None
    usage: UsageSums


class Peaks(msgspec.Struct, kw_only=True):
    """`GET /usage/peaks`: at what hours of the day calls end, in the query's time zone."""

    from_: str | None = msgspec.field(name="from")
    to: str | None
    tz: str
    complete: bool = True
    lag_seconds: float = 0.0
    hours: list[HourOfDay]
    """All 24."""
    busiest: list[BusyHour]
    """The single hours with most requests."""


class Forecast(msgspec.Struct, kw_only=True):
    """`GET /usage/forecast`: this month's cost until its end, and how far off such forecasts were so far."""

    month: str
    tz: str
    complete: bool = True
    lag_seconds: float = 0.0
    spent_usd: Decimal
    """This month until now, of priced calls."""
    unpriced_requests: int
    days_left: int
    """After today."""
    days_in_month: int
    basis_days: int
    """Whole days the forecast is made from: since the day after the first call, at most 84."""
    month_end_usd: Decimal | None
    """Null with less than a week of data."""
    low_usd: Decimal | None
    high_usd: Decimal | None
    backtests: int
    """On how many days of the data so far the same forecast could be compared with what came."""
    mean_error: float | None
    """Mean absolute error of these as a fraction of what came; null where none could be tried."""
    bias: float | None
    """Mean signed error; above 0: too much was foretold."""
    method: str = "each day to come costs the mean of the same weekday in the last 4 weeks; today at least what it has"


class Alternative(msgspec.Struct, kw_only=True):
    """The same tokens at another model's list price. Nothing more: not that it could have done the work."""

    provider: str
    model: str
    estimated_cost_usd: Decimal
    difference_usd: Decimal
    """Below 0: it would have cost less."""


class TaskAlternatives(msgspec.Struct, kw_only=True):
    """One task's LLM calls and the prices of others for the same tokens, the lowest first."""

    task: str | None
    models: list[str]
    """`provider/model` that did the work."""
    requests: int
    input_tokens: int
    output_tokens: int
    estimated_cost_usd: Decimal
    left_out_requests: int
    """Calls of models of which some have no known cost: they are not compared."""
    alternatives: list[Alternative]


class Alternatives(msgspec.Struct, kw_only=True):
    """`GET /usage/alternatives`."""

    from_: str | None = msgspec.field(name="from")
    to: str | None
    complete: bool = True
    lag_seconds: float = 0.0
    meaning: str = "the same tokens at another model's list price; nothing is said of whether it could do the work"
    compared: list[str]
    unpriced: list[str]
    """`provider/model` that were to be compared and have no price."""
    tasks: list[TaskAlternatives]


def ranged(filters: Filters, now_us: int, place: ZoneInfo, days: int) -> Filters:
    """The filters with both ends: `to` not after now; without `from` it is `days` before."""
    to_us = now_us if filters.to_us is None else min(filters.to_us, now_us)
    from_us = max(0, _days_before(to_us, place, days)) if filters.from_us is None else filters.from_us
    return replace(filters, from_us=min(from_us, to_us), to_us=to_us)


def before(filters: Filters) -> Filters:
    """The range of the same length that ends where this one begins."""
    from_us, to_us = filters.from_us or 0, filters.to_us or 0
    return replace(filters, from_us=max(0, 2 * from_us - to_us), to_us=from_us)


def earlier(filters: Filters) -> Filters:
    """Everything before the range before."""
    return replace(filters, from_us=None, to_us=before(filters).from_us)


def recorded_from(filters: Filters, earlier: Sequence[Group], days: Sequence[Group]) -> int | None:
    """The day on which recording began, where it is one of `before(filters)` but the first; None: that range is whole.

    `earlier`: all there is before it; `days`: its days.
    """
    if any(group.totals.requests or group.details.corrections for group in earlier):
        return None
    begun_us = min((group.start_us or 0 for group in days if group.totals.requests), default=None)
    return None if begun_us is None or begun_us <= (before(filters).from_us or 0) else begun_us


def trends(
    filters: Filters, now: Sequence[Group], then: Sequence[Group], recorded_from_us: int | None = None
) -> Trends:
    """`now` and `then` hold the same group-by of `filters` and of `before(filters)`."""
    found: dict[tuple[str | None, ...], tuple[list[Totals], list[Totals]]] = {}
    names: tuple[str, ...] = ()
    for side, groups in enumerate((now, then)):
        for group in groups:
            names = tuple(group.key)
            found.setdefault(tuple(group.key.values()), ([], []))[side].append(group.totals)
    trend = {key: _trend(views.summed(new), views.summed(old)) for key, (new, old) in found.items()}
    for key, each in trend.items():
        for name, value in zip(names, key, strict=True):
            setattr(each, name, value)
    return Trends(
        from_=shown(filters.from_us),
        to=shown(filters.to_us),
        before_from=shown(before(filters).from_us),
        before_recorded_from=shown(recorded_from_us),
        total=_trend(views.summed(group.totals for group in now), views.summed(group.totals for group in then)),
        groups=sorted(trend.values(), key=_moved, reverse=True) if names else [],
    )


def peaks(filters: Filters, hourly: Sequence[Group], tz: str) -> Peaks:
    """`hourly`: the sums of each hour of the range."""
    place = ZoneInfo(tz)
    of_day: list[list[Totals]] = [[] for _ in range(24)]
    for group in hourly:
        of_day[local(group.start_us or 0, place).hour].append(group.totals)
    all_requests = sum(group.totals.requests for group in hourly)
    hours = []
    for hour, parts in enumerate(of_day):
        total = views.summed(parts)
        portion = total.requests / all_requests if all_requests else None
        hours.append(HourOfDay(hour=hour, usage=_sums(total), share=portion))
    busiest = sorted(hourly, key=lambda group: (-group.totals.requests, group.start_us or 0))[:BUSIEST]
    return Peaks(
        from_=shown(filters.from_us),
        to=shown(filters.to_us),
        tz=tz,
        hours=hours,
        busiest=[
            BusyHour(start=shown(group.start_us), end=shown(group.end_us), usage=_sums(group.totals))
            for group in busiest
        ],
    )


def forecast_filters(filters: Filters, now_us: int, place: ZoneInfo) -> Filters:
    """The days a forecast of this month looks at: FORECAST_DAYS and all of this month, until now."""
    today = _midnight(now_us, place)
    start = min(today - timedelta(days=FORECAST_DAYS), today.replace(day=1))
    return replace(filters, from_us=_us(start), to_us=now_us)


def forecast(daily: Sequence[Group], now_us: int, tz: str) -> Forecast:
    """`daily`: the sums of each local day of `forecast_filters`."""
    place = ZoneInfo(tz)
    today = _midnight(now_us, place)
    by_day = {local(group.start_us or 0, place).date(): group.totals for group in daily}
    earliest = (today - timedelta(days=FORECAST_DAYS)).date()
    first = min(by_day, default=today.date())
    first = earliest if first <= earliest else first + timedelta(days=1)  # the day of the first call is not whole
    days = [
        by_day[day].cost_nusd if (day := first + timedelta(days=number)) in by_day else 0
        for number in range((today.date() - first).days)
    ]
    this_month = views.summed(totals for day, totals in by_day.items() if day >= today.date().replace(day=1))
    spent = this_month.cost_nusd
    month_days = monthrange(today.year, today.month)[1]
    left = month_days - today.day
    today_nusd = by_day[today.date()].cost_nusd if today.date() in by_day else 0
    told = analytics.forecast(days, today_nusd, left)
    tried = None if told is None else told.backtest
    return Forecast(
        month=f"{today:%Y-%m}",
        tz=tz,
        spent_usd=views.usd(spent),
        unpriced_requests=this_month.unpriced_requests,
        days_left=left,
        days_in_month=month_days,
        basis_days=len(days),
        month_end_usd=_added(spent, None if told is None else told.rest_nusd),
        low_usd=_added(spent, None if told is None else told.low_nusd),
        high_usd=_added(spent, None if told is None else told.high_nusd),
        backtests=0 if tried is None else tried.times,
        mean_error=None if tried is None else tried.error,
        bias=None if tried is None else tried.bias,
    )


def alternatives(
    filters: Filters, groups: Sequence[Group], asked: Iterable[tuple[str, str]], card_of: CardOf, at_us: int
) -> Alternatives:
    """`groups`: LLM sums by task, provider, model. Compared are the models among them, and those `asked` for."""
    used = [(group.key["provider"] or "", group.key["model"] or "") for group in groups if group.totals.llm_requests]
    cards = {name: card_of(*name, at_us) for name in dict.fromkeys([*sorted(set(used)), *asked])}
    priced = {name: card for name, card in cards.items() if card is not None}
    by_task: dict[str | None, list[Group]] = {}
    for group in groups:
        by_task.setdefault(group.key["task"], []).append(group)
    tasks = [_of_task(task, parts, priced) for task, parts in by_task.items()]
    return Alternatives(
        from_=shown(filters.from_us),
        to=shown(filters.to_us),
        compared=["/".join(name) for name in priced],
        unpriced=["/".join(name) for name, card in cards.items() if card is None],
        tasks=sorted((each for each in tasks if each.requests), key=lambda each: -each.estimated_cost_usd),
    )


def _of_task(task: str | None, groups: Sequence[Group], cards: dict[tuple[str, str], Card]) -> TaskAlternatives:
    known = [group for group in groups if not group.totals.unpriced_requests and group.totals.llm_requests]
    total = views.summed(group.totals for group in known)
    found = []
    for (provider, model), card in cards.items():
        costs = [analytics.at_price(card, group.totals) for group in known]
        if not known or any(cost is None for cost in costs):
            continue
        nusd = sum(cost for cost in costs if cost is not None)
        found.append(
            Alternative(
                provider=provider,
                model=model,
                estimated_cost_usd=views.usd(nusd),
                difference_usd=views.usd(nusd - total.cost_nusd),
            )
        )
    return TaskAlternatives(
        task=task,
        models=sorted({f"{group.key['provider']}/{group.key['model']}" for group in known}),
        requests=total.llm_requests,
        input_tokens=total.llm_input_tokens,
        output_tokens=total.llm_output_tokens,
        estimated_cost_usd=views.usd(total.cost_nusd),
        left_out_requests=sum(group.totals.llm_requests for group in groups) - total.llm_requests,
        alternatives=sorted(found, key=lambda each: (each.estimated_cost_usd, each.provider, each.model)),
    )


def _trend(now: Totals, then: Totals) -> Trend:
    return Trend(
        now=_sums(now),
        before=_sums(then),
        requests_change=_change(now.requests, then.requests),
        tokens_change=_change(now.total_tokens, then.total_tokens),
        cost_change=_change(now.cost_nusd, then.cost_nusd),
    )


def _sums(totals: Totals) -> UsageSums:
    return UsageSums(totals.requests, totals.total_tokens, views.cost_usd(totals))


def _moved(trend: Trend) -> tuple[Decimal, int]:
    cost = (trend.now.estimated_cost_usd or Decimal(0)) - (trend.before.estimated_cost_usd or Decimal(0))
    return abs(cost), abs(trend.now.total_tokens - trend.before.total_tokens)


def _change(now: int, then: int) -> float | None:
    return None if then == 0 else round(now / then - 1, 6)


def _added(spent_nusd: int, rest_nusd: int | None) -> Decimal | None:
    return None if rest_nusd is None else views.usd(spent_nusd + rest_nusd)


def _midnight(us: int, place: ZoneInfo) -> datetime:
    return local(us, place).replace(hour=0, minute=0, second=0, microsecond=0)


def _days_before(us: int, place: ZoneInfo, days: int) -> int:
    return _us(local(us, place) - timedelta(days=days))


def _us(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond
