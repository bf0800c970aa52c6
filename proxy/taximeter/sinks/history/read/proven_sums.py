"""Whether roll-ups are the sums of the records that are there, series by series, and each coarser one of the finer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection, Table, select

from taximeter.core.bounds import FOREVER_US, MAX_SUM
from taximeter.sinks.cells import FIELDS, empty, merge
from taximeter.sinks.history.exact import of_any_size
from taximeter.sinks.history.marks import APART, EVENTS, since_us
from taximeter.sinks.history.rows import summary_key
from taximeter.sinks.history.schema import (
    DAY_S,
    HOUR_S,
    LEVELS,
    MONTH,
    QUARTER,
    QUARTER_S,
    SUMMARIES,
    SUMMARY_LEVELS,
    US,
    events,
    series,
    summaries,
)
from taximeter.sinks.history.sums import SERIES_NO, Windows, record_sums
from taximeter.sinks.history.windows import level_start_s
from taximeter.sinks.query import SERIES, Filters

Cells = dict[tuple[int, int], list[int]]
"""(start, in s since epoch; number of the series) -> sums."""

_MONTH_S = 32 * DAY_S
"""From a month's first moment, the next month has begun by then."""
_WIDTHS = {QUARTER_S: "quarter of an hour", HOUR_S: "hour", DAY_S: "day"}


class Differing(NamedTuple):
    """Of a stretch of time, sums that are not those of what they are made of."""

    level: str
    """quarter of an hour | hour | day | month"""
    start_s: int
    summary: bool = False
    """A coarser one, by some of the names only."""


@of_any_size
def differing(connection: Connection, from_us: int, to_us: int) -> list[Differing]:
    """Those that lie in a period as a whole. Records are asked from where all of them are there, and refusals are told
    apart; roll-ups are held against each other from their beginning."""
    first_s, end_s = -(-from_us // US), min(to_us, FOREVER_US) // US
    proven_s = -(-max(since_us(connection, EVENTS), since_us(connection, APART)) // US)
    numbers = _summary_numbers(connection)
    found: list[Differing] = []
    for month_s, days in _months(connection, first_s, end_s):
        by_day, summed_by_day = (_cells(connection, levels[2], month_s, month_s + _MONTH_S) for levels in _BOTH)
        for day_s in days:
            begin_s, until_s = max(day_s, first_s), min(day_s + DAY_S, end_s)
            quarters = _cells(connection, QUARTER, day_s, day_s + DAY_S)
            records = _of_records(connection, max(begin_s, proven_s), until_s)
            found += _other(records, quarters, QUARTER_S, max(begin_s, proven_s), until_s)
            found += _coarser(connection, LEVELS, quarters, by_day, begin_s, until_s)
            summed = _summed(quarters, numbers)
            kept = _cells(connection, SUMMARY_LEVELS[0], day_s, day_s + DAY_S)
            wrong = _other(summed, kept, QUARTER_S, begin_s, until_s)
            wrong += _coarser(connection, SUMMARY_LEVELS, summed, summed_by_day, begin_s, until_s)
            found += [each._replace(summary=True) for each in wrong]
        end_of_month_s = level_start_s(MONTH.name, month_s + _MONTH_S)
        if month_s >= first_s and end_of_month_s <= end_s:
            for levels, cells, summary in ((LEVELS, by_day, False), (SUMMARY_LEVELS, summed_by_day, True)):
                inside = {place: cell for place, cell in cells.items() if place[0] < end_of_month_s}
                kept = _cells(connection, levels[3], month_s, month_s + 1)
                if not _same(_rolled(inside, partial(level_start_s, MONTH.name)), kept):
                    found.append(Differing("month", month_s, summary))
    return found


_BOTH = (LEVELS, SUMMARY_LEVELS)


def _months(connection: Connection, first_s: int, end_s: int) -> Iterator[tuple[int, list[int]]]:
    """The months, and the days of each, of which anything is there: a moment that somebody wrote may be in any year."""
    starts: set[int] = set()
    for table in (*LEVELS, *SUMMARY_LEVELS):
        day = (table.c.start_s // DAY_S * DAY_S).label("day")
        inside = (table.c.start_s >= first_s - _MONTH_S) & (table.c.start_s < end_s)
        starts.update(connection.execute(select(day).where(inside).distinct()).scalars())
    day = (events.c.ended_at // (DAY_S * US) * DAY_S).label("day")
    inside = (events.c.ended_at >= first_s * US) & (events.c.ended_at < end_s * US)
    starts.update(connection.execute(select(day).where(inside).distinct()).scalars())
    months: dict[int, list[int]] = {}
    for day_s in sorted(starts):
        months.setdefault(level_start_s(MONTH.name, day_s), []).append(day_s)
    for month_s, days in months.items():
        yield month_s, [day_s for day_s in days if day_s + DAY_S > first_s]


def _cells(connection: Connection, table: Table, first_s: int, end_s: int) -> Cells:
    asked = select(table.c.start_s, table.c.series_no, *(table.c[field] for field in FIELDS))
    rows = connection.execute(asked.where(table.c.start_s >= first_s, table.c.start_s < end_s))
    return {(row[0], row[1]): list(row[2:]) for row in rows}


def _of_records(connection: Connection, first_s: int, end_s: int) -> Cells:
    """Of the whole quarters of an hour in a stretch."""
    first_s, end_s = -(-first_s // QUARTER_S) * QUARTER_S, end_s // QUARTER_S * QUARTER_S
    cells: Cells = {}
    if first_s < end_s:
        windows = Windows(first_s * US, QUARTER_S * US)
        for part in record_sums(connection, Filters(), first_s * US, end_s * US, (SERIES_NO,), windows):
            place = first_s + part.window * QUARTER_S, int(part.key[0] or 0)
            merge(cells.setdefault(place, empty()), part.cell)
    return cells


def _summary_numbers(connection: Connection) -> Mapping[int, Sequence[int]]:
    """Series -> the summaries that its records are in; -1 for one that is not there."""
    names = [summaries.c[name] for name in SERIES]
    stored = connection.execute(select(summaries.c.series_no, summaries.c.kept, *names))
    known = {tuple(row[1:]): row[0] for row in stored}
    rows = connection.execute(select(series.c.series_no, *(series.c[name] for name in SERIES)))
    return {row[0]: [known.get(summary_key(kept, tuple(row[1:])), -1) for kept in SUMMARIES] for row in rows}


def _summed(quarters: Cells, numbers: Mapping[int, Sequence[int]]) -> Cells:
    cells: Cells = {}
    for (start_s, number), cell in quarters.items():
        for summary in numbers.get(number, (-1,)):
            merge(cells.setdefault((start_s, summary), empty()), cell)
    return cells


def _coarser(
    connection: Connection, levels: Sequence[Table], quarters: Cells, by_day: Cells, first_s: int, end_s: int
) -> list[Differing]:
    """Hours and the day of a day's quarters of an hour."""
    day_s = first_s // DAY_S * DAY_S
    hours = _rolled(quarters, lambda at_s: at_s // HOUR_S * HOUR_S)
    found = _other(hours, _cells(connection, levels[1], day_s, day_s + DAY_S), HOUR_S, first_s, end_s)
    mine = {place: cell for place, cell in by_day.items() if place[0] == day_s}
    return found + _other(_rolled(hours, lambda _: day_s), mine, DAY_S, first_s, end_s)


def _rolled(cells: Cells, start_of: Callable[[int], int]) -> Cells:
    rolled: Cells = {}
    for (start_s, number), cell in cells.items():
        merge(rolled.setdefault((start_of(start_s), number), empty()), cell)
    return rolled


def _other(made: Cells, kept: Cells, width_s: int, first_s: int, end_s: int) -> list[Differing]:
    """The stretches of this width, of those that lie in the period as a whole, in which any series has other sums."""
    starts = {
        place[0]
        for place in made.keys() | kept.keys()
        if first_s <= place[0] and place[0] + width_s <= end_s and not _alike(made.get(place), kept.get(place))
    }
    return [Differing(_WIDTHS[width_s], start_s) for start_s in sorted(starts)]


def _same(made: Cells, kept: Cells) -> bool:
    return all(_alike(made.get(place), kept.get(place)) for place in made.keys() | kept.keys())


def _alike(made: Sequence[int] | None, kept: Sequence[int] | None) -> bool:
    """Whether sums are the same; one that stands at its bound is at least so much."""
    made, kept = made or empty(), kept or empty()
    return made == kept or all(mine == sum_ or abs(sum_) >= MAX_SUM for mine, sum_ in zip(made, kept, strict=True))
