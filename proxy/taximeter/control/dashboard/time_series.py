"""Cost and tokens over time: history's windows as two charts of the same groups and one table."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode

import msgspec
from markupsafe import Markup

from taximeter.control.api.parameters import written
from taximeter.control.dashboard import charts
from taximeter.control.dashboard.figures import Figures, Row, of, own_view, summed
from taximeter.control.dashboard.view import View, label, window_name
from taximeter.control.services.interfaces import HistoryReader
from taximeter.core import views
from taximeter.core.figures import count, money, places, short
from taximeter.core.times import shown
from taximeter.core.totals import Totals
from taximeter.sinks.query import Group, Ranked

MOST_BARS = 62
"""More days than that are drawn as weeks: a bar has to be wide enough to point at."""
OTHER = charts.COLOURS - 1


class Window(msgspec.Struct, frozen=True):
    """One bar's place, and its line in the table."""

    name: str
    figures: Figures
    href: str


class TimeSeries(msgspec.Struct, frozen=True):
    """Two charts of the same groups, and the table of the same windows."""

    by: str
    unit: str
    """hour, day, week or month."""
    cost: Markup
    tokens: Markup
    legend: list[Row]
    windows: list[Window]
    total: Figures
    groups: list[Group]
    """Those of the whole range, the most expensive first."""

    @property
    def places(self) -> int:
        """Decimals of the table's column of money."""
        return places(window.figures.cost for window in self.windows)


class Stack(msgspec.Struct, frozen=True):
    """What one colour stands for, and its sums by number of the window."""

    row: Row
    cells: dict[int, Totals]


async def time_series(history: HistoryReader, view: View, by: str) -> TimeSeries:
    """Cost and tokens by window and group: the six groups that cost most, and the rest in grey."""
    found = await history.ranked(view.filters, by, OTHER, view.window, view.tz.key)
    marks, unit = bars(view)
    windows = _windows(view, unit, marks, found.everything)
    labels = tuple(label(start, view.window, view.tz) for start in marks[:-1])
    stacks = _stacks(view, by, marks, found)

    def pictures() -> tuple[Markup, Markup]:
        def draw(title: str, value: Callable[[Totals], float], told: Callable[[Totals], str], axis: Any) -> Markup:
            series = tuple(_series(view, by, stack, windows, value, told) for stack in stacks)
            return charts.stacked(series, labels, title, axis)

        return (
            draw(f"Cost by {by} over time", _usd, _money, _dollars),
            draw(f"Tokens by {by} over time", _tokens, _counted, short),
        )

    cost, tokens = await asyncio.to_thread(pictures)
    legend = [stack.row for stack in stacks]
    return TimeSeries(by, unit, cost, tokens, legend, windows, summed(found.groups), found.groups)


def bars(view: View) -> tuple[list[int], str]:
    """Where bars begin, and where the last ends; and what a bar is."""
    marks = view.marks()
    if view.window != "day" or len(marks) - 1 <= MOST_BARS:
        return marks, view.window
    return [*marks[:-1:7], marks[-1]], "week"


def _windows(view: View, unit: str, marks: Sequence[int], groups: Sequence[Group]) -> list[Window]:
    cells = _by_window(marks, groups)
    return [
        Window(
            window_name(start, view.window, view.tz),
            Figures(cells.get(number) or Totals()),
            view.within(start, end)
            if unit == "hour"
            else view.url("", period=None, from_=shown(start), to=shown(end)),  # the same page, closer
        )
        for number, (start, end) in enumerate(pairwise(marks))
    ]


def _stacks(view: View, by: str, marks: Sequence[int], found: Ranked) -> list[Stack]:
    """The groups as they lie on each other, the most expensive at the bottom."""
    named: dict[str | None, list[Group]] = {group.key[by]: [] for group in found.groups[:OTHER]}
    for group in found.largest:
        named[group.key[by]].append(group)
    stacks = [
        Stack(_row(view, by, group, colour), _by_window(marks, named[group.key[by]]))
        for colour, group in enumerate(found.groups[:OTHER])
    ]
    rest = found.groups[OTHER:]
    if rest:
        others = _without(_by_window(marks, found.everything), [stack.cells for stack in stacks])
        row = Row(f"{count(len(rest))} more", summed(rest), None, None, OTHER)
        stacks.append(Stack(row if len(rest) > 1 else _row(view, by, rest[0], OTHER), others))
    return stacks


def _row(view: View, by: str, group: Group, colour: int) -> Row:
    name = group.key[by]
    return Row(name, of(group), own_view(view, by, name), view.records(**{by: name or ""}), colour)


def _without(everything: dict[int, Totals], parts: Sequence[dict[int, Totals]]) -> dict[int, Totals]:
    """What is left of each window without these parts of it."""
    return {
        number: views.less(totals, (part[number] for part in parts if number in part))
        for number, totals in everything.items()
    }


def _by_window(marks: Sequence[int], groups: Sequence[Group]) -> dict[int, Totals]:
    """Sums by number of the window."""
    found: dict[int, list[Totals]] = {}
    for group in groups:
        found.setdefault(bisect_right(marks, group.start_us or 0) - 1, []).append(group.totals)
    return {number: each[0] if len(each) == 1 else views.summed(each) for number, each in found.items()}


def _series(
    view: View,
    by: str,
    stack: Stack,
    windows: Sequence[Window],
    value: Callable[[Totals], float],
    told: Callable[[Totals], str],
) -> charts.Series:
    """One colour's bars, each a link to its window and group."""
    name = stack.row.name or "(none)"
    drawn: list[charts.Mark | None] = [None] * len(windows)
    for number, totals in stack.cells.items():
        if amount := value(totals):
            window = windows[number]
            only = stack.row.href is not None and by not in view.params
            href = f"{window.href}&{urlencode({by: written(stack.row.name or '')})}" if only else window.href
            drawn[number] = charts.Mark(amount, href, f"{window.name}, {name}: {told(totals)}")
    return charts.Series(name, tuple(drawn), stack.row.colour or 0)


def _usd(totals: Totals) -> float:
    return totals.cost_nusd / views.NUSD_PER_USD


def _tokens(totals: Totals) -> float:
    return totals.total_tokens


def _money(totals: Totals) -> str:
    return money(views.cost_usd(totals))


def _counted(totals: Totals) -> str:
    return f"{count(totals.total_tokens)} tokens"


def _dollars(usd: float) -> str:
    return f"${short(usd)}"
