"""Single records: by request, newest first in pages, oldest first in chunks. Queries only."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, Select, Table, and_, or_, select
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from taximeter.core.errors import BadRequest
from taximeter.core.record import Record
from taximeter.sinks.history.query import FOREVER_US, SERIES, TAGS, Filters, span
from taximeter.sinks.history.rows import to_record
from taximeter.sinks.history.schema import (
    CLASS,
    DAY,
    DAY_S,
    HOUR,
    HOUR_S,
    ORIGIN,
    SEQ_BITS,
    US,
    classes,
    events,
    journals,
    origins,
    series,
)
from taximeter.sinks.history.sums import by_series, in_series, names_filter, record_filter, within

MOST = 1_000
"""Records a page."""

Place = tuple[int, int]
"""(ended_at, id) of a record: reading goes on from there."""

START: Place = (-1, -1)
"""Before every record."""
_END: Place = (FOREVER_US, 0)

_decode_place = msgspec.json.Decoder(tuple[int, int]).decode


def of_request(connection: Connection, request_id: str) -> list[Record]:
    """Attempts in order, each with its corrections after it."""
    rows = _rows(connection, select(events).where(events.c.request_id == request_id))
    in_order = sorted(rows, key=lambda row: (row["attempt"], row["class_kind"] != "usage", row["ended_at"], row["id"]))
    return [_record(row) for row in in_order]


def newest(connection: Connection, filters: Filters, limit: int, page: str | None) -> tuple[list[Record], str | None]:
    """A page, and the cursor of the next. Raises BadRequest on a bad cursor or limit."""
    if not 1 <= limit <= MOST:
        raise BadRequest(f"limit is 1 to {MOST:,}.", param="limit")
    before = _END if page is None else _place(page)
    rows: list[RowMapping] = []
    for start_us, end_us in _stretches(connection, filters, before[0] + 1):
        query = _matching(filters, start_us, end_us).where(_before(before))
        rows += _rows(connection, query.limit(limit + 1 - len(rows)), descending=True)
        if len(rows) > limit:
            break
    shown = rows[:limit]
    return [_record(row) for row in shown], _page(shown[-1]) if len(rows) > limit else None


def oldest(connection: Connection, filters: Filters, limit: int, after: Place) -> tuple[list[Record], Place]:
    """The next `limit` records and the place of the last; fewer than `limit`: that was all."""
    start_us, end_us = span(filters)
    query = _matching(filters, max(start_us, after[0]), end_us).where(_after(after)).limit(limit)
    rows = _rows(connection, query)
    last = (rows[-1]["ended_at"], rows[-1]["id"]) if rows else after
    return [_record(row) for row in rows], last


def _matching(filters: Filters, start_us: int, end_us: int) -> Select[Any]:
    return select(events).where(*within(start_us, end_us), in_series(filters), record_filter(filters))


def _before(place: Place) -> ColumnElement[bool]:
    at, key = place
    return and_(events.c.ended_at <= at, or_(events.c.ended_at < at, events.c.id < key))


def _after(place: Place) -> ColumnElement[bool]:
    at, key = place
    return and_(events.c.ended_at >= at, or_(events.c.ended_at > at, events.c.id > key))


def _stretches(connection: Connection, filters: Filters, end_us: int) -> Iterator[tuple[int, int]]:
    """Where to look, newest first. One workspace's calls may be rare among all: its roll-ups say in which hours."""
    start_us, last_us = span(filters)
    end_us = min(end_us, last_us)
    tagged = any(getattr(filters, name) is not None for name in (*TAGS, "request_id"))
    if tagged or not by_series(filters):
        yield start_us, end_us
        return
    for day_s in _starts(connection, DAY, filters, start_us // US // DAY_S * DAY_S, end_us // US):
        for hour_s in _starts(connection, HOUR, filters, day_s, day_s + DAY_S - 1):
            yield max(start_us, hour_s * US), min(end_us, (hour_s + HOUR_S) * US)


def _starts(connection: Connection, level: Table, filters: Filters, first_s: int, last_s: int) -> Sequence[int]:
    there = (level.c.start_s >= first_s, level.c.start_s <= last_s)
    named = level.c.series_no.in_(select(series.c.series_no).where(names_filter(series, filters)))
    query = select(level.c.start_s).where(*there, named).distinct().order_by(level.c.start_s.desc())
    return connection.execute(query).scalars().all()


_NAMES = [series.c[name].label(f"series_{name}") for name in SERIES]
_CLASS = [classes.c[name].label(f"class_{name}") for name in CLASS]
_ORIGIN = [origins.c[name].label(f"origin_{name}") for name in ORIGIN]


def _rows(connection: Connection, query: Select[Any], *, descending: bool = False) -> list[RowMapping]:
    """The query's events, oldest first or `descending`, with the names their numbers stand for."""

    def order(columns: ReadOnlyColumnCollection[str, Any]) -> list[ColumnElement[Any]]:
        return [column.desc() if descending else column.asc() for column in (columns.ended_at, columns.id)]

    found = query.order_by(*order(events.c)).subquery()
    named = (
        select(found, journals.c.journal_id, *_NAMES, *_ORIGIN, *_CLASS)
        .join(journals, journals.c.journal_no == found.c.id // (1 << SEQ_BITS))
        .join(series, series.c.series_no == found.c.series_no)
        .join(origins, origins.c.origin_no == found.c.origin_no)
        .join(classes, classes.c.class_no == found.c.class_no)
        .order_by(*order(found.c))
    )
    return list(connection.execute(named).mappings())


def _record(row: RowMapping) -> Record:
    names, origin, class_ = ([row[column.name] for column in some] for some in (_NAMES, _ORIGIN, _CLASS))
    return to_record(dict(row), row["journal_id"], names, origin, class_)


def _page(row: RowMapping) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((row["ended_at"], row["id"]))).decode()


def _place(page: str) -> Place:
    try:
        return _decode_place(base64.urlsafe_b64decode(page.encode()))
    except ValueError as error:
        raise BadRequest("This page cursor is not one of ours; take `next_page` as it came.", param="page") from error
