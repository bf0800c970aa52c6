"""Single records: by request, newest first in pages, oldest first in chunks. Queries only."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, Table, and_, bindparam, or_, select

from taximeter.core.bounds import FOREVER_US
from taximeter.core.errors import BadRequest
from taximeter.core.record import Record
from taximeter.sinks.history.conditions import OF_RECORDS, Shape, on_names, on_records, shape, values
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
from taximeter.sinks.history.sums import within
from taximeter.sinks.query import SERIES, Filters, span

MOST = 1_000
"""Records a page."""

Place = tuple[int, int]
"""(ended_at, id) of a record: reading goes on from there."""

START: Place = (-1, -1)
"""Before every record."""
_END: Place = (FOREVER_US, 0)

_NAMES = 5_000
"""Names in one statement; SQLite takes 32,766."""

_ARRIVED = (
    select(events.c.request_id, series.c.workspace)
    .join(series, series.c.series_no == events.c.series_no)
    .where(events.c.request_id.in_(bindparam("names", expanding=True)))
    .distinct()
)

_Key = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_decode_place = msgspec.json.Decoder(tuple[_Key, _Key]).decode


def of_request(connection: Connection, request_id: str) -> list[Record]:
    """Attempts in order, each with its corrections after it."""
    rows = connection.execute(_named(select(events).where(events.c.request_id == request_id)))
    return sorted(map(to_record, rows), key=lambda record: (record.attempt, record.kind != "usage", record.ended_at))


def arrived(connection: Connection, request_ids: Collection[str]) -> set[tuple[str, str]]:
    """Those of these requests there are records of, each with the workspace of one."""
    names, found = list(request_ids), set()
    for at in range(0, len(names), _NAMES):
        rows = connection.execute(_ARRIVED, {"names": names[at : at + _NAMES]})
        found |= {(row.request_id, row.workspace) for row in rows}
    return found


def newest(connection: Connection, filters: Filters, limit: int, page: str | None) -> tuple[list[Record], str | None]:
    """A page, and the cursor of the next. Raises BadRequest on a bad cursor or limit."""
    if not 1 <= limit <= MOST:
        raise BadRequest(f"limit is 1 to {MOST:,}.", param="limit")
    before = _END if page is None else _place(page)
    query, given = _paged(shape(filters), descending=True), values(filters)
    rows: list[Row[*tuple[Any, ...]]] = []
    for start_us, end_us in _stretches(connection, filters, before[0] + 1):
        bounds = {
            "start_us": start_us,
            "end_us": end_us,
            "at": before[0],
            "id": before[1],
            "most": limit + 1 - len(rows),
        }
        rows += connection.execute(query, bounds | given)
        if len(rows) > limit:
            break
    shown = rows[:limit]
    return [to_record(row) for row in shown], _page(shown[-1]) if len(rows) > limit else None


def oldest(connection: Connection, filters: Filters, limit: int, after: Place) -> tuple[list[Record], Place]:
    """The next `limit` records and the place of the last; fewer than `limit`: that was all."""
    start_us, end_us = span(filters)
    bounds = {"start_us": max(start_us, after[0]), "end_us": end_us, "at": after[0], "id": after[1], "most": limit}
    rows = connection.execute(_paged(shape(filters), descending=False), bounds | values(filters)).all()
    return [to_record(row) for row in rows], (rows[-1].ended_at, rows[-1].id) if rows else after


@lru_cache(maxsize=1_000)
def _paged(asked: Shape, *, descending: bool) -> Select[Any]:
    """At most `most` events within start_us and end_us, on from the one at (at, id)."""
    at: ColumnElement[int] = bindparam("at")
    key: ColumnElement[int] = bindparam("id")
    column, ids = events.c.ended_at, events.c.id
    further = (
        and_(column <= at, or_(column < at, ids < key))
        if descending
        else and_(column >= at, or_(column > at, ids > key))
    )
    found = select(events).where(within(True, True), on_records(asked), further).limit(bindparam("most"))
    return _named(_in_order(found, column, ids, descending), descending)


def _in_order(query: Select[Any], at: ColumnElement[int], key: ColumnElement[int], descending: bool) -> Select[Any]:
    return query.order_by(at.desc(), key.desc()) if descending else query.order_by(at, key)


def _named(query: Select[Any], descending: bool = False) -> Select[Any]:
    """The events of a query, as rows.to_record takes them: with the names their numbers stand for."""
    found = query.subquery()
    named = (
        select(
            found,
            journals.c.journal_id,
            *(series.c[name].label(f"series_{name}") for name in SERIES),
            *(origins.c[name].label(f"origin_{name}") for name in ORIGIN),
            *(classes.c[name].label(f"class_{name}") for name in CLASS),
        )
        .join(journals, journals.c.journal_no == found.c.id // (1 << SEQ_BITS))
        .join(series, series.c.series_no == found.c.series_no)
        .join(origins, origins.c.origin_no == found.c.origin_no)
        .join(classes, classes.c.class_no == found.c.class_no)
    )
    return _in_order(named, found.c.ended_at, found.c.id, descending)


def _stretches(connection: Connection, filters: Filters, end_us: int) -> Iterator[tuple[int, int]]:
    """Where to look, newest first. One workspace's calls may be rare among all: its roll-ups say in which hours."""
    start_us, last_us = span(filters)
    end_us = min(end_us, last_us)
    asked = [name for name, _ in shape(filters)]
    if any(name in OF_RECORDS for name in asked) or not any(name in SERIES for name in asked):
        yield start_us, end_us
        return
    for day_s in _starts(connection, DAY, filters, start_us // US // DAY_S * DAY_S, end_us // US):
        for hour_s in _starts(connection, HOUR, filters, day_s, day_s + DAY_S - 1):
            yield max(start_us, hour_s * US), min(end_us, (hour_s + HOUR_S) * US)


def _starts(connection: Connection, level: Table, filters: Filters, first_s: int, last_s: int) -> Sequence[int]:
    """Starts of the level's cells that hold records of the series filtered by, newest first."""
    bounds = {"first_s": first_s, "last_s": last_s}
    return [row.start_s for row in connection.execute(_starts_query(level, shape(filters)), bounds | values(filters))]


@lru_cache(maxsize=1_000)
def _starts_query(level: Table, asked: Shape) -> Select[tuple[int]]:
    there = level.c.start_s.between(bindparam("first_s"), bindparam("last_s"))
    named = level.c.series_no.in_(select(series.c.series_no).where(on_names(series, asked)))
    return select(level.c.start_s).where(there, named).distinct().order_by(level.c.start_s.desc())


def _page(row: Row[*tuple[Any, ...]]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((row.ended_at, row.id))).decode()


def _place(page: str) -> Place:
    try:
        return _decode_place(base64.urlsafe_b64decode(page.encode()))
    except (ValueError, RecursionError) as error:
        raise BadRequest("This page cursor is not one of ours; take `next_page` as it came.", param="page") from error
