"""What the pages show, gathered from history: totals beside those before, series for charts, rows for tables.

Figures come from the same questions as `GET /usage`, so a page and the API agree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode

import msgspec
from markupsafe import Markup
from msgspec.structs import replace

from taximeter.control.dashboard import charts
from taximeter.control.dashboard.asked import View, last_days, path, same_time_before, window_name
from taximeter.control.ports import History
from taximeter.control.times import shown
from taximeter.core import views
from taximeter.core.figures import count, money, short
from taximeter.core.totals import Totals
from taximeter.sinks.history.query import Filters, Group

OTHER = charts.COLOURS - 1
ROWS = 12
"""Groups a table shows; the rest is one row."""
RECENT = 1_000
"""The newest records among which a workspace's recent tracks are looked for: all of a long range would take seconds."""
TRACKS = 12


class Figures(msgspec.Struct, frozen=True):
    """Sums, as tiles and tables show them."""

    totals: Totals

    @property
    def cost(self) -> Decimal | None:
        return views.cost_usd(self.totals)

    @property
    def input_tokens(self) -> int:
        totals = self.totals
        return totals.llm_input_tokens + totals.embedding_tokens + totals.rerank_tokens


class Today(msgspec.Struct, frozen=True):
    """Today so far, beside yesterday until the same time and yesterday in all."""

    now: Figures
    then: Figures
    whole: Figures
    now_href: str
    whole_href: str


class Row(msgspec.Struct, frozen=True):
    """A group in a table. `href`: its own view; `records`: what it is made of."""

    name: str | None
    figures: Figures
    href: str | None
    records: str | None
    colour: int | None = None


class Table(msgspec.Struct, frozen=True):
    """Groups of one name, the most expensive first."""

    name: str
    rows: list[Row]
    total: Figures


class Window(msgspec.Struct, frozen=True):
    """One window of the table behind a chart."""

    name: str
    figures: Figures
    href: str


class OverTime(msgspec.Struct, frozen=True):
    """Two charts of the same groups, and the table of the same windows."""

    by: str
    cost: Markup
    tokens: Markup
    legend: list[Row]
    windows: list[Window]
    total: Figures


def summed(groups: Iterable[Group]) -> Figures:
    """Several groups as one."""
    return Figures(views.summed(group.totals for group in groups))


async def sums(history: History, filters: Filters) -> Figures:
    """All of it as one."""
    return summed(await history.usage(filters))


async def today(history: History, view: View) -> Today:
    """Today and yesterday of the same filters, whatever the page's range."""
    midnight, next_us = last_days(view.now_us, view.tz, 1)
    before, _ = last_days(view.now_us, view.tz, 2)
    then_us = same_time_before(view.now_us, view.tz)
    ranges = ((midnight, next_us), (before, then_us), (before, midnight))
    now, then, whole = await asyncio.gather(
        *(sums(history, replace(view.filters, from_us=start, to_us=end)) for start, end in ranges)
    )
    return Today(now, then, whole, view.within(midnight, next_us), view.within(before, midnight))


async def table(history: History, view: View, name: str) -> Table:
    """The groups of `name`, at most ROWS of them and the rest as one."""
    groups = sorted(await history.usage(view.filters, (name,)), key=_weight)
    shown_groups = groups if len(groups) <= ROWS + 1 else groups[:ROWS]
    rows = [
        Row(
            name=group.key[name],
            figures=Figures(group.totals),
            href=_own_view(view, name, group.key[name]),
            records=view.records(**{name: group.key[name] or ""}),
        )
        for group in shown_groups
    ]
    if len(shown_groups) < len(groups):
        rest = groups[len(shown_groups) :]
        rows.append(Row(f"{count(len(rest))} more", summed(rest), None, None))
    return Table(name, rows, summed(groups))


async def over_time(history: History, view: View, by: str) -> OverTime:
    """Cost and tokens by window and group: the six groups that cost most, and the rest in grey."""
    marks = view.marks()
    place = {start: number for number, start in enumerate(marks[:-1])}
    groups = await history.usage(view.filters, (by,), view.window, view.tz.key)
    named: dict[str | None, list[Group]] = {}
    for group in groups:
        named.setdefault(group.key[by], []).append(group)
    ranked = sorted(named, key=lambda name: _heaviest(named[name]))
    shown_names, rest = (ranked, []) if len(ranked) < charts.COLOURS else (ranked[:OTHER], ranked[OTHER:])
    parts = [(name, named[name], number) for number, name in enumerate(shown_names)]
    stacks: list[tuple[Row, list[tuple[int, Totals]]]] = [
        (
            Row(name, summed(found), _own_view(view, by, name), view.records(**{by: name or ""}), colour),
            [(place[group.start_us or 0], group.totals) for group in found],
        )
        for name, found, colour in parts
    ]
    if rest:
        found = [group for name in rest for group in named[name]]
        at: dict[int, list[Totals]] = {}
        for group in found:
            at.setdefault(place[group.start_us or 0], []).append(group.totals)
        stacks.append(
            (
                Row(f"{count(len(rest))} more", summed(found), None, None, OTHER),
                [(number, views.summed(totals)) for number, totals in at.items()],
            )
        )
    windows = _windows(view, marks, groups)
    labels = [window.name for window in windows]

    def draw(title: str, value: Any, told: Any, axis: Any) -> Markup:
        series = []
        for row, cells in stacks:
            drawn: list[charts.Mark | None] = [None] * len(labels)
            for number, totals in cells:
                if amount := value(totals):
                    text = f"{labels[number]}, {row.name or '(none)'}: {told(totals)}"
                    drawn[number] = charts.Mark(amount, _bar_link(view, windows[number].href, by, row), text)
            series.append(charts.Series(row.name or "(none)", drawn, row.colour or 0))
        return charts.stacked(series, labels, title, axis)

    def pictures() -> tuple[Markup, Markup]:
        return (
            draw(
                f"Cost by {by} over time", _usd, lambda each: money(views.cost_usd(each)), lambda usd: f"${short(usd)}"
            ),
            draw(f"Tokens by {by} over time", _tokens, lambda each: f"{count(each.total_tokens)} tokens", short),
        )

    cost, tokens = await asyncio.to_thread(pictures)
    return OverTime(by, cost, tokens, [row for row, _ in stacks], windows, summed(groups))


async def recent_tracks(history: History, view: View, workspace: str) -> list[tuple[Row, int]]:
    """The tracks used last, each with all it has used and when it was used last (µs)."""
    records, _ = await history.events(Filters(workspace=workspace, to_us=view.to_us), RECENT)
    last: dict[str, int] = {}
    for record in records:
        if record.track is not None and len(last) < TRACKS:
            last.setdefault(record.track, record.ended_at)
    if not last:
        return []
    groups = await history.usage(Filters(workspace=workspace, track=list(last)), ("track",))
    by_name = {group.key["track"]: Figures(group.totals) for group in groups}
    return [
        (Row(name, by_name[name], path("workspaces", workspace, "tracks", name), None), at)
        for name, at in last.items()
        if name in by_name
    ]


def _windows(view: View, marks: Sequence[int], groups: Sequence[Group]) -> list[Window]:
    totals: dict[int, list[Totals]] = {}
    for group in groups:
        totals.setdefault(group.start_us or 0, []).append(group.totals)
    return [
        Window(
            window_name(start, view.window, view.tz),
            Figures(views.summed(totals.get(start, ()))),
            _narrower(view, start, end),
        )
        for start, end in pairwise(marks)
    ]


def _narrower(view: View, start_us: int, end_us: int) -> str:
    """A window's own view: the same page for a day or month, the records for an hour."""
    if view.window == "hour":
        return view.within(start_us, end_us)
    return view.url("", period=None, from_=shown(start_us), to=shown(end_us))


def _bar_link(view: View, href: str, by: str, row: Row) -> str:
    """A window's view of one group."""
    if row.href is None:
        return href
    return f"{href}&{urlencode({by: row.name or ''})}" if by not in view.params else href


def _own_view(view: View, name: str, value: str | None) -> str:
    if name == "workspace" and value is not None:
        return view.url(path("workspaces", value), workspace=None, by=None)
    return view.url("", **{name: value or ""})


def _weight(group: Group) -> tuple[Any, ...]:
    return -group.totals.cost_nusd, -group.totals.total_tokens, -group.totals.requests, str(list(group.key.values()))


def _heaviest(groups: Sequence[Group]) -> tuple[Any, ...]:
    cost = sum(group.totals.cost_nusd for group in groups)
    return -cost, -sum(group.totals.total_tokens for group in groups), str(groups[0].key)


def _usd(totals: Totals) -> float:
    return totals.cost_nusd / views.NUSD_PER_USD


def _money(totals: Totals) -> str:
    return money(views.cost_usd(totals))


def _tokens(totals: Totals) -> int:
    return totals.total_tokens
