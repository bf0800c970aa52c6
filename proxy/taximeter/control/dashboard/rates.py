"""How calls went and how long they took: by window, by group and in all, with the charts of it.

What we refused is no error: nothing failed. An error rate is of the attempts that were sent.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec
from markupsafe import Markup

from taximeter.control.dashboard import charts
from taximeter.control.dashboard.sorting import Sorting
from taximeter.control.dashboard.time_series import bars
from taximeter.control.dashboard.view import FAILED, View, label, window_name
from taximeter.control.services.interfaces import HistoryReader
from taximeter.core.figures import count, milliseconds, rate, short
from taximeter.core.times import shown
from taximeter.sinks.query import Basis, Group, Spread, Timing

COLUMNS = ("name", "calls", "errors", "rate", "p50", "p95", "p99", "ttft")
"""What the table of groups can be sorted by."""
ROWS = 24
NOTHING = Timing(duration=Spread(0), ttft=Spread(0))
PERCENTILES = ("p50", "p95", "p99")
_COLOURS = {"p50": 2, "p95": 1, "p99": 5}
"""Of a percentile's line; green, orange, red of the palette."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """The attempts of a window or group, or all; with how long those took that ended well."""

    name: str | None
    href: str
    """Its records, or the same page closer."""
    failed_href: str
    refused_href: str
    attempts: int = 0
    failed: int = 0
    refused: int = 0
    timing: Timing = NOTHING

    @property
    def rate(self) -> float | None:
        """The part that failed of those sent; None: none was."""
        sent = self.attempts - self.refused
        return self.failed / sent if sent > 0 else None

    @property
    def well(self) -> int:
        return self.attempts - self.failed - self.refused


class Performance(msgspec.Struct, frozen=True, kw_only=True):
    """All of the page's figures."""

    unit: str
    basis: Basis
    since_us: int
    total: Rates
    windows: list[Rates]
    groups: list[Rates]
    further: int
    """Groups that are not shown."""
    requests: Markup
    errors: Markup
    duration: Markup
    ttft: Markup


async def performance(history: HistoryReader, view: View, by: str, sort: Sorting) -> Performance:
    """How the calls of a page's query went."""
    marks, unit = bars(view)
    windows, groups, latency = await asyncio.gather(
        history.usage(view.filters, (), view.window, view.tz.key),
        history.usage(view.filters, (by,)),
        history.latency(view.filters, by, marks),
    )
    timings = {timing.start_us: timing for timing in latency.windows}
    of_group = {timing.key: timing for timing in latency.groups}
    drawn = [
        _window(view, unit, start, end, found, timings.get(start, NOTHING))
        for (start, end), found in zip(pairwise(marks), _by_window(marks, windows), strict=True)
    ]
    rows = [_group(view, by, group, of_group.get(group.key[by], NOTHING)) for group in groups]
    rows = in_order(rows, sort)
    labels = tuple(label(start, view.window, view.tz) for start in marks[:-1])
    pictures = await asyncio.to_thread(_pictures, drawn, labels)
    return Performance(
        unit=unit,
        basis=latency.basis,
        since_us=latency.since_us,
        total=_rates(view, None, groups, latency.total, view.records(), {}),
        windows=[each for each in drawn if each.attempts],
        groups=rows[:ROWS],
        further=max(0, len(rows) - ROWS),
        requests=pictures[0],
        errors=pictures[1],
        duration=pictures[2],
        ttft=pictures[3],
    )


def in_order(rows: Iterable[Rates], sort: Sorting) -> list[Rates]:
    """By a column; what is not known last, whichever way."""
    of: dict[str, Callable[[Rates], Any]] = {
        "name": lambda row: (row.name or "").lower(),
        "calls": lambda row: row.attempts,
        "errors": lambda row: row.failed,
        "rate": lambda row: row.rate,
        "p50": lambda row: row.timing.duration.p50_ms,
        "p95": lambda row: row.timing.duration.p95_ms,
        "p99": lambda row: row.timing.duration.p99_ms,
        "ttft": lambda row: row.timing.ttft.p95_ms,
    }
    value = of[sort.by]
    usual = sorted(rows, key=lambda row: (-row.attempts, row.name or ""))
    known = [row for row in usual if value(row) is not None]
    return sorted(known, key=value, reverse=sort.descending) + [row for row in usual if value(row) is None]


def _by_window(marks: Sequence[int], groups: Iterable[Group]) -> list[list[Group]]:
    found: list[list[Group]] = [[] for _ in marks[:-1]]
    for group in groups:
        found[min(bisect_right(marks, group.start_us or 0), len(marks) - 1) - 1].append(group)
    return found


def _window(view: View, unit: str, start: int, end: int, groups: Sequence[Group], timing: Timing) -> Rates:
    records = view.within(start, end)
    closer = records if unit == "hour" else view.url("", period=None, from_=shown(start), to=shown(end))
    ranged = {"period": None, "from_": shown(start), "to": shown(end)}
    return _rates(view, window_name(start, view.window, view.tz), groups, timing, closer, ranged)


def _group(view: View, by: str, group: Group, timing: Timing) -> Rates:
    named = {by: group.key[by] or ""}
    return _rates(view, group.key[by], [group], timing, view.records(**named), named)


def _rates(
    view: View, name: str | None, groups: Sequence[Group], timing: Timing, href: str, named: Mapping[str, str | None]
) -> Rates:
    refused = sum(group.details.refused for group in groups)
    return Rates(
        name=name,
        href=href,
        failed_href=view.records(**{**named, "outcome": FAILED}),
        refused_href=view.records(**{**named, "outcome": "refused"}),
        attempts=sum(group.details.attempts for group in groups),
        failed=sum(group.totals.errors for group in groups) - refused,
        refused=refused,
        timing=timing,
    )


def _pictures(windows: Sequence[Rates], labels: tuple[str, ...]) -> tuple[Markup, Markup, Markup, Markup]:
    """Calls by how they went, the error rate, time to the end, time to the first token."""
    ways = (
        charts.Series("ended well", _marks(windows, lambda each: each.well, lambda each: each.href), 2),
        charts.Series("failed", _marks(windows, lambda each: each.failed, lambda each: each.failed_href), 5),
        charts.Series("refused by us", _marks(windows, lambda each: each.refused, lambda each: each.refused_href), 6),
    )
    shares = tuple(
        None
        if each.rate is None
        else charts.Mark(
            each.rate * 100, each.failed_href, f"{each.name}: {rate(each.rate)} failed, {count(each.failed)}"
        )
        for each in windows
    )
    return (
        charts.stacked(ways, labels, "Calls over time, by how they went", short),
        charts.lines((charts.Series("error rate", shares, 5),), labels, "Error rate over time", _percent),
        charts.lines(_percentiles(windows, "duration"), labels, "Time to the end over time", _time),
        charts.lines(_percentiles(windows, "ttft"), labels, "Time to the first token over time", _time),
    )


def _marks(
    windows: Sequence[Rates], value: Callable[[Rates], int], href: Callable[[Rates], str]
) -> tuple[charts.Mark | None, ...]:
    return tuple(
        charts.Mark(amount, href(each), f"{each.name}: {count(amount)}") if (amount := value(each)) else None
        for each in windows
    )


def _percentiles(windows: Sequence[Rates], measure: str) -> tuple[charts.Series, ...]:
    found = []
    for name in PERCENTILES:
        marks = []
        for each in windows:
            ms = getattr(getattr(each.timing, measure), f"{name}_ms")
            told = f"{each.name}, {name}: {milliseconds(ms)}"
            marks.append(None if ms is None else charts.Mark(ms, each.href, told))
        found.append(charts.Series(name, tuple(marks), _COLOURS[name]))
    return tuple(found)


def _time(ms: float) -> str:
    return milliseconds(ms) if ms else "0"


def _percent(value: float) -> str:
    return f"{short(value)} %"
