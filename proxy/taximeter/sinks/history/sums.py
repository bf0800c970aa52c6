"""Sums straight from single records: SQL groups those that add up alike, and core.totals.add is asked once a class.

For what the roll-ups cannot answer: ragged ends of a range, tracks, documents, end users. Rows out, no policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Table, and_, false, func, or_, select, true

from taximeter.core import totals
from taximeter.core.record import Operation, Outcome, Record, Source
from taximeter.sinks.history.cells import COUNTS, SUMMED
from taximeter.sinks.history.query import FOREVER_US, SERIES, TAGS, Filters, Names
from taximeter.sinks.history.rows import TELLING
from taximeter.sinks.history.schema import CLASS, classes, events, series

_FIGURES = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "reasoning_output_tokens",
    "search_units",
    "cost_nusd",
)


class Part(msgspec.Struct):
    """Sums of the records with one key in one unit of time."""

    names: dict[str, str | None]
    window: int
    """Number of the window in the run."""
    cell: list[int]
    first_us: int
    last_us: int


def matches(column: ColumnElement[Any], names: Names, none: ColumnElement[bool]) -> ColumnElement[bool]:
    """The column is one of the names; "" among them: or it carries none."""
    if names is None:
        return true()
    wanted = [names] if isinstance(names, str) else list(names)
    chosen = column.in_([name for name in wanted if name])
    return or_(chosen, none) if "" in wanted else chosen


def names_filter(numbered: Table, filters: Filters) -> ColumnElement[bool]:
    """Conditions on `usage_series` or `usage_summaries`."""
    given = (matches(numbered.c[name], getattr(filters, name), numbered.c[name] == "") for name in SERIES)
    return and_(true(), *given)


def by_series(filters: Filters) -> bool:
    """Whether any name of a series is asked for."""
    return any(getattr(filters, name) is not None for name in SERIES)


def record_filter(filters: Filters) -> ColumnElement[bool]:
    """Conditions on `usage_events` beside range and series."""
    tags = (*TAGS, "request_id")
    given = [matches(events.c[name], getattr(filters, name), events.c[name].is_(None)) for name in tags]
    of_class = [matches(classes.c[name], getattr(filters, name), false()) for name in ("outcome", "kind")]
    if filters.outcome is not None or filters.kind is not None:
        given.append(events.c.class_no.in_(select(classes.c.class_no).where(*of_class)))
    return and_(true(), *given)


RECORD_NAMES = (*TAGS, "request_id", "outcome", "kind")
"""Filters that only single records can answer."""


def in_series(filters: Filters) -> ColumnElement[bool]:
    """The event belongs to one of the series the filters name."""
    if not by_series(filters):
        return true()
    return events.c.series_no.in_(select(series.c.series_no).where(names_filter(series, filters)))


def within(start_us: int, end_us: int) -> list[ColumnElement[bool]]:
    """The range; an open end is left out, lest SQLite takes the index on time for the way to everything."""
    bounds = []
    if start_us > 0:
        bounds.append(events.c.ended_at >= start_us)
    if end_us < FOREVER_US:
        bounds.append(events.c.ended_at < end_us)
    return bounds


def parts(
    connection: Connection,
    filters: Filters,
    start_us: int,
    end_us: int,
    group_by: Sequence[str],
    width_us: int,
    further: ColumnElement[bool] | None = None,
) -> Iterator[Part]:
    """Sums of single records of [start_us, end_us) by `group_by` (query.GROUPS) and windows of `width_us`.

    One key and window may come in several parts: they add up. `further` narrows the records down.
    """
    windowed = width_us < end_us - start_us
    keys: list[ColumnElement[Any]] = [events.c.series_no, events.c.class_no]
    keys += [events.c[name] for name in group_by if name in TAGS]
    if windowed:
        keys.append(((events.c.ended_at - start_us) // width_us).label("window"))
    figures = dict.fromkeys((*_FIGURES, *SUMMED))
    summed = (
        select(
            *keys,
            func.count().label("n"),
            func.min(events.c.ended_at).label("first_us"),
            func.max(events.c.ended_at).label("last_us"),
            *(func.coalesce(func.sum(events.c[name]), 0).label(f"sum_{name}") for name in figures),
        )
        .where(*within(start_us, end_us), in_series(filters), record_filter(filters))
        .where(true() if further is None else further)
        .group_by(*(key.key for key in keys if key.key))  # by name: PostgreSQL takes two equal expressions for two
        .subquery()
    )
    names = [series.c[name].label(f"name_{name}") for name in group_by if name in SERIES]
    query = (
        select(summed, *names, series.c.operation.label("of"), *(classes.c[name] for name in CLASS))
        .join(series, series.c.series_no == summed.c.series_no)
        .join(classes, classes.c.class_no == summed.c.class_no)
    )
    for row in connection.execute(query):
        named = {name: getattr(row, f"name_{name}" if name in SERIES else name) or None for name in group_by}
        yield Part(named, row.window if windowed else 0, _cell(row), row.first_us, row.last_us)


def _cell(row: Row[*tuple[Any, ...]]) -> list[int]:
    """The cell of all records of a class: what one record with their sums counts, its 0s and 1s times their number."""
    known = row.known.split(",")
    figures: dict[str, Any] = {
        name: None if name in TELLING and name not in known else int(getattr(row, f"sum_{name}")) for name in _FIGURES
    }
    usage = row.kind == "usage"
    stand_in = Record(
        kind=row.kind,
        request_id="",
        attempt=1 if row.attempt == "first" else 2,
        started_at=0,
        ended_at=0,
        workspace="",
        upstream="",
        provider="",
        api="",
        operation=Operation(row.of),
        outcome=Outcome(row.outcome),
        input_source=Source(row.input_source),
        output_source=Source(row.output_source),
        seconds=row.sum_audio_ms / 1_000 if "audio_ms" in known else None,
        **figures,
    )
    cell = totals.empty()
    totals.add(cell, stand_in)
    cell += [1 if usage else 0, 0 if usage else 1]
    cell += [int(getattr(row, f"sum_{name}")) if usage else 0 for name in SUMMED]
    return [value * row.n if at in COUNTS else value for at, value in enumerate(cell)]
