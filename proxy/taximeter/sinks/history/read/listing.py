"""Single records: by request, newest first in pages, oldest first in chunks. Queries only."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache, lru_cache
from typing import Annotated, Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, Table, and_, bindparam, func, or_, select

from taximeter.core.errors import BadRequest
from taximeter.core.record import Record
from taximeter.sinks.history.conditions import OF_RECORDS, Shape, on_names, on_records, only_failures, shape, values
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
    Big,
    classes,
    events,
    journals,
    origins,
    series,
)
from taximeter.sinks.history.sums import within
from taximeter.sinks.query import NEWEST, OLDEST, SERIES, Filters, Listing, Sort, SortName, span

MOST = 1_000
"""Records a page."""

Place = tuple[int, int]
"""(ended_at, id) of a record: reading goes on from there."""

START: Place = (-1, -1)
"""Before every record."""

_SMALLEST, _LARGEST = -(2**62), 2**62
"""Below and above every figure and every id."""

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
_decode_line = msgspec.json.Decoder(tuple[int]).decode
_decode_turned = msgspec.json.Decoder(tuple[_Key, _Key, bool]).decode

T = TypeVar("T")


def of_request(connection: Connection, request_id: str) -> list[Record]:
    """Attempts in order, each with its corrections after it."""
    rows = connection.execute(_named(select(events).where(events.c.request_id == request_id)))
    return sorted(map(to_record, rows), key=_by_attempt)


def _by_attempt(record: Record) -> tuple[int, bool, int]:
    return record.attempt, record.kind != "usage", record.ended_at


def attempts(connection: Connection, request_id: str) -> list[Record]:
    """The same without lines of a batch, of which there may be a million."""
    query = _named(select(events).where(events.c.request_id == request_id))
    rows = connection.execute(query, execution_options={"stream_results": True})
    return sorted((record for row in rows if not (record := to_record(row)).line), key=_by_attempt)


def page_of_request(
    connection: Connection, request_id: str, limit: int, page: str | None
) -> tuple[list[Record], str | None]:
    """The attempts of a request and the first `limit` records that are lines of a batch, and the cursor of the next
    page, which has further lines. Raises BadRequest on a bad cursor."""
    after = _SMALLEST if page is None else _decoded(page, _decode_line)[0]
    query = select(events).where(events.c.request_id == request_id, events.c.id > after).order_by(events.c.id)
    rows = connection.execute(_named(query.limit(limit + 1))).all()
    rows = sorted(rows, key=lambda row: row.id)
    records = [to_record(row) for row in rows[:limit]]
    more = _page((rows[limit - 1].id,)) if len(rows) > limit else None
    if page is None and more is None:
        return sorted(records, key=_by_attempt), None
    lines = [record for record in records if record.line]
    return [*(attempts(connection, request_id) if page is None else ()), *lines], more


def of_ids(connection: Connection, ids: Select[tuple[int]]) -> Iterator[Record]:
    """The records with these ids, of those that are kept."""
    return map(to_record, connection.execute(_named(select(events).where(events.c.id.in_(ids)))))


def between(connection: Connection, first: int, last: int) -> Sequence[Row[*tuple[Any, ...]]]:
    """The events with ids from one to another, by id, as rows.to_record takes them."""
    return connection.execute(_between(), {"first": first, "last": last}).all()


@cache
def _between() -> Select[Any]:
    """Built once: a check of evidence asks it for every segment."""
    ids = events.c.id.between(bindparam("first", type_=Big), bindparam("last", type_=Big))
    found = _named(select(events).where(ids))
    return found.order_by(None).order_by(found.selected_columns.id)


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
    rows = _on_from(connection, filters, NEWEST, limit + 1, None if page is None else _place(page))
    shown = rows[:limit]
    return [to_record(row) for row in shown], _page(_key(shown[-1], NEWEST)) if len(rows) > limit else None


def listed(connection: Connection, filters: Filters, limit: int, page: str | None, sort: Sort) -> Listing:
    """A page in any order, and the cursors of those beside it. Raises BadRequest on a bad cursor.

    By time it is read from an index; in any other order all that match are looked at.
    """
    place, back = (None, False) if page is None else _turned(page)
    rows = _on_from(connection, filters, Sort(sort.by, sort.descending != back), limit + 1, place)
    more, shown = len(rows) > limit, rows[:limit]
    if back and not more:  # these are among the first: as many as fit, from the very first on
        return listed(connection, filters, limit, None, sort)
    if back:
        shown.reverse()
    before = bool(shown) and (more if back else place is not None)
    return Listing(
        records=[to_record(row) for row in shown],
        before=_page((*_key(shown[0], sort), True)) if before else None,
        after=_page((*_key(shown[-1], sort), False)) if shown and (back or more) else None,
    )


def oldest(connection: Connection, filters: Filters, limit: int, after: Place) -> tuple[list[Record], Place]:
    """The next `limit` records and the place of the last; fewer than `limit`: that was all."""
    start_us, end_us = span(filters)
    bounds = {"start_us": max(start_us, after[0]), "end_us": end_us, "at": after[0], "id": after[1], "most": limit}
    rows = connection.execute(_paged(shape(filters), OLDEST), bounds | values(filters)).all()
    return [to_record(row) for row in rows], (rows[-1].ended_at, rows[-1].id) if rows else after


def _on_from(
    connection: Connection, filters: Filters, sort: Sort, most: int, place: Place | None
) -> list[Row[*tuple[Any, ...]]]:
    """At most so many events in this order, behind the one at this place."""
    at, key = place or ((_LARGEST, _LARGEST) if sort.descending else (_SMALLEST, _SMALLEST))
    start_us, end_us = span(filters)
    if sort.by == "ended":
        start_us, end_us = (start_us, min(end_us, at + 1)) if sort.descending else (max(start_us, at), end_us)
    query, given = _paged(shape(filters), sort), values(filters)
    rows: list[Row[*tuple[Any, ...]]] = []
    stretches = _stretches(connection, filters, start_us, end_us, sort.descending)
    for first_us, last_us in stretches if sort.by == "ended" else ((start_us, end_us),):
        bounds = {"start_us": first_us, "end_us": last_us, "at": at, "id": key, "most": most - len(rows)}
        rows += connection.execute(query, bounds | given)
        if len(rows) >= most:
            break
    return rows


_OF_SORT: dict[SortName, ColumnElement[int]] = {
    "ended": events.c.ended_at,
    "cost": func.coalesce(events.c.cost_nusd, _SMALLEST),
    "tokens": func.coalesce(events.c.total_tokens, _SMALLEST),
    "took": func.coalesce(events.c.duration_us, _SMALLEST),
}


def _key(row: Row[*tuple[Any, ...]], sort: Sort) -> Place:
    found = {"ended": row.ended_at, "cost": row.cost_nusd, "tokens": row.total_tokens, "took": row.duration_us}
    value = found[sort.by]
    return _SMALLEST if value is None else value, row.id


@lru_cache(maxsize=1_000)
def _paged(asked: Shape, sort: Sort) -> Select[Any]:
    """At most `most` events within start_us and end_us, on from the one at (at, id)."""
    at: ColumnElement[int] = bindparam("at", type_=Big)
    key: ColumnElement[int] = bindparam("id", type_=Big)
    column, ids = _OF_SORT[sort.by], events.c.id
    further = (
        and_(column <= at, or_(column < at, ids < key))
        if sort.descending
        else and_(column >= at, or_(column > at, ids > key))
    )
    found = select(events).where(within(True, True), on_records(asked), further).limit(bindparam("most"))
    return _named(_in_order(found, column, ids, sort.descending), sort)


def _in_order(query: Select[Any], at: ColumnElement[int], key: ColumnElement[int], descending: bool) -> Select[Any]:
    return query.order_by(at.desc(), key.desc()) if descending else query.order_by(at, key)


def _named(query: Select[Any], sort: Sort = OLDEST) -> Select[Any]:
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
    columns = {"ended": found.c.ended_at, "cost": found.c.cost_nusd, "tokens": found.c.total_tokens}
    column = columns.get(sort.by, found.c.duration_us)
    return _in_order(named, func.coalesce(column, _SMALLEST), found.c.id, sort.descending)


def _stretches(
    connection: Connection, filters: Filters, start_us: int, end_us: int, descending: bool
) -> Iterator[tuple[int, int]]:
    """Where to look, in order. The calls of one workspace may be rare among all, and those that failed too: roll-ups
    say in which hours they are."""
    asked, failed = shape(filters), only_failures(filters)
    rare = failed or any(name in SERIES for name, _ in asked)
    if any(name in OF_RECORDS for name, _ in asked) or not rare or start_us >= end_us:
        yield start_us, end_us
        return

    def starts(level: Table, first_s: int, last_s: int) -> Sequence[int]:
        bounds = {"first_s": first_s, "last_s": last_s}
        query = _starts_query(level, asked, failed, descending)
        return [row.start_s for row in connection.execute(query, bounds | values(filters))]

    for day_s in starts(DAY, start_us // US // DAY_S * DAY_S, (end_us - 1) // US):
        for hour_s in starts(HOUR, day_s, day_s + DAY_S - 1):
            yield max(start_us, hour_s * US), min(end_us, (hour_s + HOUR_S) * US)


@lru_cache(maxsize=1_000)
def _starts_query(level: Table, asked: Shape, failed: bool, descending: bool) -> Select[tuple[int]]:
    """Starts of the level's cells that hold records of the series filtered by; `failed`: of which some may have."""
    there: ColumnElement[bool] = level.c.start_s.between(bindparam("first_s"), bindparam("last_s"))
    if any(name in SERIES for name, _ in asked):
        there = and_(there, level.c.series_no.in_(select(series.c.series_no).where(on_names(series, asked))))
    if failed:  # a correction has its call's outcome, and is no error of its own
        there = and_(there, or_(level.c.errors > 0, level.c.corrections > 0))
    order = level.c.start_s.desc() if descending else level.c.start_s
    return select(level.c.start_s).where(there).distinct().order_by(order)


def _page(place: tuple[int, ...]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def _place(page: str) -> Place:
    return _decoded(page, _decode_place)


def _turned(page: str) -> tuple[Place, bool]:
    """The place of a cursor of `listed`, and whether it is on the way back."""
    at, key, back = _decoded(page, _decode_turned)
    return (at, key), back


def _decoded(page: str, decode: Callable[[bytes], T]) -> T:
    try:
        return decode(base64.urlsafe_b64decode(page.encode()))
    except (ValueError, RecursionError) as error:
        raise BadRequest("This page cursor is not one of ours; take `next_page` as it came.", param="page") from error
