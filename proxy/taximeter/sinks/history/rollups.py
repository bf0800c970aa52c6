"""Sums from the roll-ups: which of them answers a question, and the query. Rows out, no policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, Table, func, select

from taximeter.sinks.history.cells import FIELDS
from taximeter.sinks.history.query import SERIES, Filters
from taximeter.sinks.history.schema import LEVELS, SUMMARIES, SUMMARY_LEVELS, US, series, summaries
from taximeter.sinks.history.sums import names_filter
from taximeter.sinks.history.windows import Piece, Run

Key = tuple[str | None, ...]


class RollUp(msgspec.Struct, frozen=True):
    """One family of roll-up tables and the part of it that is summed."""

    numbered: Table
    levels: dict[str, Table]
    """By the name of the level in LEVELS."""
    of: ColumnElement[bool] | None
    """Condition on `numbered`; None: all of it."""


def choose(filters: Filters, names: Sequence[str]) -> RollUp:
    """The roll-up with the fewest rows that knows every name filtered or grouped by."""
    filtered = [name for name in SERIES if getattr(filters, name) is not None]
    for kept in SUMMARIES:
        if set(kept).issuperset((*filtered, *names)):
            levels = {level.name: summary for level, summary in zip(LEVELS, SUMMARY_LEVELS, strict=True)}
            of = (summaries.c.kept == ",".join(kept)) & names_filter(summaries, filters)
            return RollUp(summaries, levels, of)
    return RollUp(series, {level.name: level for level in LEVELS}, names_filter(series, filters) if filtered else None)


def read(
    connection: Connection, source: RollUp, names: Sequence[str], run: Run, piece: Piece
) -> Iterator[tuple[int, Key, list[int]]]:
    """(window in the run, key, cell) of one piece; one key and window may come several times: they add up."""
    table = source.levels[piece.level or ""]
    inside = (table.c.start_s >= piece.start_us // US) & (table.c.start_s < piece.end_us // US)
    n, windowed = len(names), run.count > 1
    query = _by_window(table, source, names, inside, run) if windowed else _by_number(table, source, names, inside)
    for row in connection.execute(query):
        key = tuple(value or None for value in row[:n])
        yield row[n] if windowed else 0, key, [int(value) for value in row[n + windowed :]]


def _by_number(table: Table, source: RollUp, names: Sequence[str], inside: ColumnElement[bool]) -> Select[Any]:
    """A row for each combination of names stored: numbers are compared when summing, the names looked up afterwards."""
    summed = select(table.c.series_no, *_sums(table)).where(inside).group_by(table.c.series_no)
    if source.of is not None:
        summed = summed.where(table.c.series_no.in_(select(source.numbered.c.series_no).where(source.of)))
    cells = summed.subquery()
    query = select(*(source.numbered.c[name] for name in names), *(cells.c[field] for field in FIELDS))
    return query.join(source.numbered, source.numbered.c.series_no == cells.c.series_no) if names else query


def _by_window(
    table: Table, source: RollUp, names: Sequence[str], inside: ColumnElement[bool], run: Run
) -> Select[Any]:
    """A row for each key and window."""
    window = ((table.c.start_s * US - run.start_us) // run.width_us).label("window")
    named = [source.numbered.c[name] for name in names]
    query = select(*named, window, *_sums(table)).where(inside).group_by(*named, "window")
    if names or source.of is not None:
        query = query.join(source.numbered, source.numbered.c.series_no == table.c.series_no)
    return query if source.of is None else query.where(source.of)


def _sums(table: Table) -> list[ColumnElement[int]]:
    return [func.sum(table.c[field]).label(field) for field in FIELDS]
