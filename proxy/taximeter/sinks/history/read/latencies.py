"""How long calls took: percentiles of every single value where these are few, else of the histograms that are kept.

Never of a sample. Which of the two it was is said with the figures.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from operator import add
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, Table, and_, bindparam, func, select

from taximeter.core.latency import PERCENTILES, STEPS, of_histogram, of_values
from taximeter.core.record import Outcome
from taximeter.sinks.history.conditions import Shape, on_names, on_records, shape, values
from taximeter.sinks.history.schema import (
    DAY_S,
    HOUR_S,
    LATENCY_DAY,
    LATENCY_HOUR,
    MEASURES,
    STEP_COLUMNS,
    US,
    Big,
    classes,
    events,
    series,
)
from taximeter.sinks.history.sums import within
from taximeter.sinks.query import SERIES, TAGS, Filters, Latency, Spread, Timing

FEW = 20_000
"""Records up to which every value is read: some 100 ms."""
MOST = 200_000
"""The same where the histograms do not know a filter."""
HOURLY_S = 3 * DAY_S
"""Up to such a range the histograms of hours are read as they are, else those of days and what hours they lack."""

_STARTS = 5_000
"""Moments in one statement; SQLite takes 32,766 parameters."""
_GROUP, _WHOLE = -1, -2

Key = str | None


class _Told(msgspec.Struct):
    """What is read of `detail`."""

    ttft_ms: float | None = None
    stream: bool = False


_decode = msgspec.json.Decoder(_Told).decode


class _Place(NamedTuple):
    """Whose values: of a window, or of a group over the whole range."""

    window: int
    """Its number, or _GROUP, or _WHOLE."""
    key: Key
    measure: int


def of_records(connection: Connection, filters: Filters, by: str, marks: Sequence[int]) -> Latency:
    """Exact: of each value that is recorded."""
    found: dict[_Place, list[float]] = {}
    given = values(filters) | {"start_us": marks[0], "end_us": marks[-1]}
    for ended_at, key, duration_us, detail in connection.execute(_values_query(shape(filters), by), given):
        window = min(bisect_right(marks, ended_at), len(marks) - 1) - 1
        known = (None if duration_us is None else duration_us / 1_000, _ttft_ms(detail))
        for measure, ms in enumerate(known):
            if ms is not None:
                of_all = (
                    _Place(window, None, measure),
                    _Place(_GROUP, key or None, measure),
                    _Place(_WHOLE, None, measure),
                )
                for place in of_all:
                    found.setdefault(place, []).append(ms)
    for ms_of in found.values():
        ms_of.sort()
    spreads = {
        place: Spread(len(each), *(of_values(each, percentile) for percentile in PERCENTILES))
        for place, each in found.items()
    }
    return Latency(basis="records", **_timings(spreads, marks))


def of_histograms(connection: Connection, filters: Filters, by: str, marks: Sequence[int], since_us: int) -> Latency:
    """Of the hours that begin in each window."""
    hours_s = [-(-mark // (HOUR_S * US)) * HOUR_S for mark in marks]
    counted: dict[_Place, list[int]] = {}
    for place, sign, counts in chain(_windows(connection, filters, hours_s), _groups(connection, filters, by, hours_s)):
        into = counted.setdefault(place, [0] * STEPS)
        for at, number in enumerate(counts):
            into[at] += sign * number
    for place, counts in list(counted.items()):
        if place.window >= 0:
            whole = counted.setdefault(_Place(_WHOLE, None, place.measure), [0] * STEPS)
            whole[:] = map(add, whole, counts)
    spreads = {
        place: Spread(sum(each), *(of_histogram(each, percentile) for percentile in PERCENTILES))
        for place, each in counted.items()
        if any(each)
    }
    return Latency(basis="histogram", since_us=since_us, **_timings(spreads, marks))


def unknown() -> Latency:
    """There are too many records to read, and no histogram of just these."""
    nothing = Timing(duration=Spread(0), ttft=Spread(0))
    return Latency(basis="unknown", total=nothing, windows=[], groups=[])


def known_to_histograms(filters: Filters) -> bool:
    """Whether the histograms know every filter."""
    return all(name in SERIES for name, _ in shape(filters))


def _timings(spreads: dict[_Place, Spread], marks: Sequence[int]) -> dict[str, Any]:
    def timing(window: int, key: Key = None, start_us: int | None = None) -> Timing:
        duration, ttft = (spreads.get(_Place(window, key, at), Spread(0)) for at in range(len(MEASURES)))
        return Timing(key=key, start_us=start_us, duration=duration, ttft=ttft)

    windows = sorted({place.window for place in spreads if place.window >= 0})
    keys = sorted(
        {place.key for place in spreads if place.window == _GROUP}, key=lambda key: (key is not None, key or "")
    )
    return {
        "total": timing(_WHOLE),
        "windows": [timing(window, start_us=marks[window]) for window in windows],
        "groups": [timing(_GROUP, key) for key in keys],
    }


Part = tuple[_Place, int, Sequence[int]]
"""A histogram, whose it is, and whether it is added (1) or taken away (-1)."""


def _windows(connection: Connection, filters: Filters, hours_s: Sequence[int]) -> Iterator[Part]:
    """What makes up the windows: of long ones the days of UTC from the midnight next to where one begins to that next
    to where it ends, and at each mark the hours that are missing in one window and too much in the other."""
    if hours_s[-1] - hours_s[0] <= HOURLY_S:
        for start_s, measure, counts in _read(connection, filters, LATENCY_HOUR, range_s=(hours_s[0], hours_s[-1])):
            yield _Place(bisect_right(hours_s, start_s) - 1, None, measure), 1, counts
        return
    days_s = list(map(_midnight_s, hours_s))
    for start_s, measure, counts in _read(connection, filters, LATENCY_DAY, range_s=(days_s[0], days_s[-1])):
        yield _Place(bisect_right(days_s, start_s) - 1, None, measure), 1, counts
    strips: dict[int, list[int]] = {}
    for number, (hour_s, day_s) in enumerate(zip(hours_s, days_s, strict=True)):
        for at_s in range(min(hour_s, day_s), max(hour_s, day_s), HOUR_S):
            strips.setdefault(at_s, []).append(number)
    for start_s, measure, counts in _read(connection, filters, LATENCY_HOUR, starts_s=list(strips)) if strips else ():
        for number in strips[start_s]:
            sign = 1 if start_s < days_s[number] else -1
            if number < len(hours_s) - 1:
                yield _Place(number, None, measure), sign, counts
            if number > 0:
                yield _Place(number - 1, None, measure), -sign, counts


def _groups(connection: Connection, filters: Filters, by: str, hours_s: Sequence[int]) -> Iterator[Part]:
    """What makes up the groups of the whole range."""
    first_s, last_s = hours_s[0], hours_s[-1]
    pieces = [(LATENCY_HOUR, first_s, last_s, 1)]
    if last_s - first_s > HOURLY_S:
        one_s, other_s = _midnight_s(first_s), _midnight_s(last_s)
        pieces = [(LATENCY_DAY, one_s, other_s, 1)]
        pieces += [(LATENCY_HOUR, min(first_s, one_s), max(first_s, one_s), 1 if first_s < one_s else -1)]
        pieces += [(LATENCY_HOUR, min(last_s, other_s), max(last_s, other_s), 1 if other_s < last_s else -1)]
    for table, start_s, end_s, sign in pieces:
        if start_s < end_s:
            for key, measure, counts in _read(connection, filters, table, range_s=(start_s, end_s), by=by):
                yield _Place(_GROUP, key or None, measure), sign, counts


def _midnight_s(at_s: int) -> int:
    """The midnight of UTC that is nearest."""
    return (at_s + DAY_S // 2) // DAY_S * DAY_S


def _read(
    connection: Connection,
    filters: Filters,
    table: Table,
    *,
    range_s: tuple[int, int] | None = None,
    starts_s: Sequence[int] = (),
    by: str | None = None,
) -> Iterator[tuple[Any, int, Sequence[int]]]:
    """(start or group, measure, counts) of the cells that begin in a range, or at just these moments."""
    given: dict[str, Any] = values(filters)
    for some in (
        (starts_s[at : at + _STARTS] for at in range(0, len(starts_s), _STARTS)) if range_s is None else (None,)
    ):
        given |= {"starts_s": some} if range_s is None else {"start_s": range_s[0], "end_s": range_s[1]}
        for row in connection.execute(_cells_query(table, shape(filters), by, range_s is None), given):
            yield row[0], row[1], row[2:]


@lru_cache(maxsize=200)
def _cells_query(table: Table, asked: Shape, by: str | None, picked: bool) -> Select[Any]:
    inside: ColumnElement[bool] = table.c.start_s.in_(bindparam("starts_s", expanding=True))
    if not picked:
        inside = and_(table.c.start_s >= bindparam("start_s"), table.c.start_s < bindparam("end_s"))
    if asked:
        inside = and_(inside, table.c.series_no.in_(select(series.c.series_no).where(on_names(series, asked))))
    key: ColumnElement[Any] = table.c.start_s if by is None else series.c[by]
    sums = [func.sum(table.c[name]).cast(Big).label(name) for name in STEP_COLUMNS]
    query = select(key, table.c.measure, *sums).where(inside).group_by(key, table.c.measure)
    return query if by is None else query.join(series, series.c.series_no == table.c.series_no)


@lru_cache(maxsize=200)
def _values_query(asked: Shape, by: str) -> Select[Any]:
    """Of the calls that ended well: when, the group, duration, detail."""
    well = select(classes.c.class_no).where(classes.c.kind == "usage", classes.c.outcome == Outcome.OK.value)
    of_tag = by in TAGS
    key: ColumnElement[Any] = events.c[by] if of_tag else series.c[by]
    query = select(events.c.ended_at, key, events.c.duration_us, events.c.detail)
    if not of_tag:
        query = query.join(series, series.c.series_no == events.c.series_no)
    return query.where(within(True, True), on_records(asked), events.c.class_no.in_(well))


def _ttft_ms(detail: str) -> float | None:
    try:
        told = _decode(detail)
    except (ValueError, TypeError, RecursionError):
        return None
    return told.ttft_ms if told.stream else None  # earlier versions wrote it of whole answers too
