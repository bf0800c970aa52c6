"""Sums from the roll-ups: which of them a query can read, and the SQL. Rows out, no policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Label, Select, Table, bindparam, func, literal_column, select

from taximeter.sinks.cells import FIELDS, GROWING, negative
from taximeter.sinks.history.conditions import (
    SINGLY,
    Shape,
    in_stretch,
    names_series,
    on_names,
    shape,
    values,
    within_stretch,
)
from taximeter.sinks.history.exact import wanted
from taximeter.sinks.history.schema import (
    DAY,
    LEVELS,
    SUMMARIES,
    SUMMARY_LEVELS,
    SUMMARY_MONTH,
    TAG_LEVELS,
    US,
    series,
    summaries,
    total,
)
from taximeter.sinks.history.windows import Piece, Run, Shifted, cell_starts
from taximeter.sinks.query import SERIES, TAGS, Filters

Key = tuple[str | None, ...]

Found = Iterator[tuple[int, Key, list[int]]]
"""(number of the window, key, cell); one key and window may come several times: they add up."""

Unused = frozenset[str]
"""Fields that are 0 in every cell."""
NONE_UNUSED = Unused()

MOST_STARTS = 3_000
"""Cells of time that are named in a statement; SQLite takes 32,766 values."""

AT_ONCE = 1_000
"""Rows taken from the driver together: one by one costs as much as what they hold."""

_ANY_USE = select(*(func.max(SUMMARY_MONTH.c[field]) for field in FIELDS)).where(
    SUMMARY_MONTH.c.series_no.in_(select(summaries.c.series_no).where(summaries.c.kept == ",".join(SUMMARIES[0])))
)


def unused(connection: Connection) -> Unused:
    """The fields that nothing ever added to, which a query of many cells need not sum: most histories have a dozen.

    Of the few cells of the coarsest summary, which hold every record. A field that can shrink may be 0 there and
    nowhere else: it is not among these.
    """
    largest = connection.execute(_ANY_USE).one()
    return frozenset(field for field, most in zip(FIELDS, largest, strict=True) if not most and field in GROWING)


def read(
    connection: Connection,
    filters: Filters,
    names: Sequence[str],
    run: Run,
    piece: Piece,
    tag: str | None = None,
    zero: Unused = NONE_UNUSED,
) -> Found:
    """The sums of one piece. `tag`: of the records that carry it (see `knows_tag`). `zero`: fields known to be 0."""
    windowed, asked = run.count > 1, shape(filters)
    given: dict[str, Any] = {"start_s": piece.start_us // US, "end_s": piece.end_us // US}
    if windowed:
        given |= {"run_us": run.start_us, "width_us": run.width_us}
    starts_s = cell_starts(piece, MOST_STARTS) if tag is not None and in_stretch(asked) == tag else None
    if starts_s is not None:  # each is looked up where the stretch begins; of a range of them every row is looked at
        given |= {"starts_s": starts_s}
    picked = starts_s is not None
    query = _query(piece.level or "", tuple(names), asked, tag, windowed, zero, picked=picked, exact=wanted())
    found = _rows(connection, query, given | values(filters), len(names), run.first, windowed=windowed)
    yield from found if piece.sign > 0 else ((window, key, negative(cell)) for window, key, cell in found)


def read_shifted(
    connection: Connection,
    filters: Filters,
    names: Sequence[str],
    days: Shifted,
    tag: str | None = None,
    zero: Unused = NONE_UNUSED,
) -> Found:
    """The sums of days of another zone: some cells are negative, some keys add up to nothing."""
    whole, last = days.days, days.days.first + days.days.count
    yield from read(connection, filters, names, whole, Piece(DAY.name, whole.start_us, whole.end_us), tag, zero)
    query = _query(days.level, tuple(names), shape(filters), tag, True, zero, picked=True, exact=wanted())
    given = {"starts_s": days.starts_s, "run_us": days.strips.start_us, "width_us": days.strips.width_us}
    found = _rows(connection, query, given | values(filters), len(names), whole.first, windowed=True)
    for number, key, cell in found:
        mine, before = (cell, negative(cell)) if days.sign > 0 else (negative(cell), cell)
        if number < last:
            yield number, key, mine
        if number > whole.first:
            yield number - 1, key, before


def knows_tag(names: Sequence[str], asked: Shape) -> bool:
    """Whether the roll-ups by tag serve a query: by one tag, beside names of series only."""
    tags = [name for name in names if name in TAGS]
    if len(tags) != 1 or in_stretch(asked) not in (None, *tags, *SERIES):
        return False
    return {*SERIES, *tags}.issuperset(names) and not any(name in SINGLY for name, _ in asked)


def _rows(
    connection: Connection, query: Select[Any], given: dict[str, Any], n: int, first: int, *, windowed: bool
) -> Found:
    for rows in connection.execute(query, given).partitions(AT_ONCE):
        for row in rows:
            key = tuple([value or None for value in row[:n]])
            yield first + row[n] if windowed else first, key, list(row[n + windowed :])


@lru_cache(maxsize=1_000)
def _query(
    level: str,
    names: tuple[str, ...],
    asked: Shape,
    tag: str | None,
    windowed: bool,
    zero: Unused,
    *,
    picked: bool = False,
    exact: bool,
) -> Select[Any]:
    """`picked`: of the cells that begin at `starts_s`, else of those from `start_s` until before `end_s`."""
    numbered, tables, of = _choose(names, asked) if tag is None else (series, TAG_LEVELS, None)
    table = dict(zip((known.name for known in LEVELS[-len(tables) :]), tables, strict=True))[level]
    inside: ColumnElement[bool] = table.c.start_s.in_(bindparam("starts_s", expanding=True))
    if not picked:
        inside = (table.c.start_s >= bindparam("start_s")) & (table.c.start_s < bindparam("end_s"))
    sums = [literal_column("0").label(field) if field in zero else total(table.c[field]) for field in FIELDS]
    windows = []
    if windowed:
        windows = [((table.c.start_s * US - bindparam("run_us")) // bindparam("width_us")).label("window")]
    if tag is not None:
        return _tag_query(table, names, asked, tag, inside, windows, sums)
    named = [numbered.c[name] for name in names]
    if not windowed:
        # One row for each combination stored: numbers are compared when summing, names looked up afterwards.
        summed = select(table.c.series_no, *sums).where(inside).group_by(table.c.series_no)
        if of is not None:
            summed = summed.where(table.c.series_no.in_(select(numbered.c.series_no).where(of)))
        cells = summed.subquery()
        query = select(*named, *(cells.c[field] for field in FIELDS))
        return query.join(numbered, numbered.c.series_no == cells.c.series_no) if names else query
    query = select(*named, *windows, *sums).where(inside).group_by(*named, "window")
    if names or of is not None:
        query = query.join(numbered, numbered.c.series_no == table.c.series_no)
    return query if of is None else query.where(of)


def _tag_query(
    table: Table,
    names: Sequence[str],
    asked: Shape,
    tag: str,
    inside: ColumnElement[bool],
    windows: Sequence[Label[int]],
    sums: Sequence[Label[int]],
) -> Select[Any]:
    """Of a roll-up by tag: the tag's value stands in it, the other names are its series'."""
    named = [table.c.value if name == tag else series.c[name] for name in names]
    query = select(*named, *windows, *sums).where(table.c.tag == tag, inside)
    # By starts, not windows, and values: as the rows lie, nothing is sorted. Where a window has several they add up.
    # Each once: SQLite compares a row with the one before by every term.
    first = table.c.value if tag in names else table.c.tag
    further = [name for name in named if name is not table.c.value]
    query = query.group_by(*([table.c.start_s] if windows else []), first, *further)
    if in_stretch(asked) == tag:
        query = query.where(within_stretch(table.c.value, asked))
    if not further and not names_series(asked):
        return query
    return query.join(series, series.c.series_no == table.c.series_no).where(on_names(series, asked))


def _choose(names: Sequence[str], asked: Shape) -> tuple[Table, Sequence[Table], ColumnElement[bool] | None]:
    """The roll-ups with the fewest rows that know every name filtered or grouped by; what numbers their names, and
    which of these."""
    filtered = [name for name in (*(name for name, _ in asked), in_stretch(asked)) if name in SERIES]
    for kept in SUMMARIES:
        if set(kept).issuperset((*filtered, *names)):
            return summaries, SUMMARY_LEVELS, (summaries.c.kept == ",".join(kept)) & on_names(summaries, asked)
    return series, LEVELS, on_names(series, asked) if filtered else None
