"""Sums straight from single records: SQL groups those that add up alike, and core.totals.add is asked once a class.

For what the roll-ups cannot tell: ragged ends of a range, filters on tags, and for filling those by tag. Rows out, no
policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select, true

from taximeter.core import totals
from taximeter.core.bounds import FOREVER_US
from taximeter.core.record import Operation, Outcome, Record, Source
from taximeter.sinks.cells import COUNTS, SUMMED
from taximeter.sinks.history.conditions import Shape, on_records, shape, values
from taximeter.sinks.history.exact import wanted
from taximeter.sinks.history.rows import TELLING, word
from taximeter.sinks.history.schema import CLASS, ORIGIN, classes, events, origins, series, total
from taximeter.sinks.query import SERIES, TAGS, Filters

_FIGURES = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "reasoning_output_tokens",
    "search_units",
    "cost_nusd",
)
_SUMS = tuple(dict.fromkeys((*_FIGURES, *SUMMED)))


SERIES_NO = "series_no"
"""Grouping by it: by every name of a series at once."""


class Windows(NamedTuple):
    """How records are told apart by time."""

    origin_us: int
    """Where window 0 begins."""
    width_us: int
    grain_us: int = 1
    """A record is in the window in which the grain begins that it ended in."""


class RecordSums(msgspec.Struct):
    """Sums of the records with one key in one window."""

    key: tuple[str | None, ...]
    window: int
    """Its number; 0 where all of the range is one."""
    cell: list[int]
    first_us: int
    last_us: int
    """`ended_at` of the first and the last record."""


def record_sums(
    connection: Connection,
    filters: Filters,
    start_us: int,
    end_us: int,
    group_by: Sequence[str],
    windows: Windows | None = None,
    *,
    ids: tuple[int, int] | None = None,
    carrying: str | None = None,
) -> Iterator[RecordSums]:
    """Sums of single records of [start_us, end_us) by `group_by` (query.GROUPS, schema.ORIGIN, SERIES_NO) and windows.

    One key and window may come in several parts: they add up. `ids`: only events from one id to another. `carrying`:
    only those with this tag.
    """
    n, bounded = len(group_by), (start_us > 0, end_us < FOREVER_US)
    windowed, by_id = windows is not None, ids is not None
    query = _query(tuple(group_by), shape(filters), bounded, windowed, by_id, carrying, exact=wanted())
    given: dict[str, Any] = {"start_us": start_us, "end_us": end_us}
    if windows is not None:
        given |= windows._asdict()
    if ids is not None:
        given["first_id"], given["last_id"] = ids
    for row in connection.execute(query, given | values(filters)):
        key = tuple(value or None for value in row[:n])
        first_us, last_us, *rest = row[n:]
        yield RecordSums(key, rest.pop(0) if windows is not None else 0, _cell(*rest), first_us, last_us)


def within(bounded_below: bool, bounded_above: bool) -> ColumnElement[bool]:
    """From start_us to end_us; an open end is left out, lest SQLite walks all of the index on time."""
    inside: ColumnElement[bool] = true()
    if bounded_below:
        inside = inside & (events.c.ended_at >= bindparam("start_us"))
    if bounded_above:
        inside = inside & (events.c.ended_at < bindparam("end_us"))
    return inside


@lru_cache(maxsize=1_000)
def _query(
    group_by: tuple[str, ...],
    asked: Shape,
    bounded: tuple[bool, bool],
    windowed: bool,
    by_id: bool,
    carrying: str | None,
    *,
    exact: bool,
) -> Select[Any]:
    """Rows of: the group-by, first and last moment, window (if windowed), operation, class, number, sums."""
    keys: list[ColumnElement[Any]] = [events.c.series_no, events.c.class_no]
    keys += [events.c[name] for name in group_by if name in TAGS]
    by_origin = any(name in ORIGIN for name in group_by)
    if by_origin:
        keys.append(events.c.origin_no)
    if windowed:
        ended_us = events.c.ended_at // bindparam("grain_us") * bindparam("grain_us")
        keys.append(((ended_us - bindparam("origin_us")) // bindparam("width_us")).label("window"))
    inner = (
        select(
            *keys,
            func.min(events.c.ended_at).label("first_us"),
            func.max(events.c.ended_at).label("last_us"),
            func.count().label("n"),
            *(total(events.c[name]) for name in _SUMS),
        )
        .where(within(*bounded), on_records(asked))
        .group_by(*(key.key for key in keys if key.key))  # by name: PostgreSQL takes two equal expressions for two
    )
    if by_id:
        inner = inner.where(events.c.id.between(bindparam("first_id"), bindparam("last_id")))
    if carrying is not None:
        inner = inner.where(events.c[carrying].is_not(None))
    # Numbers are compared when summing, names looked up afterwards; then classes of one key are few.
    summed = inner.subquery()
    named = [(series if name in SERIES else origins if name in ORIGIN else summed).c[name] for name in group_by]
    of = [*([summed.c.window] if windowed else []), series.c.operation, *(classes.c[name] for name in CLASS)]
    found = (
        select(
            *named,
            func.min(summed.c.first_us),
            func.max(summed.c.last_us),
            *of,
            total(summed.c.n),
            *(total(func.coalesce(summed.c[name], 0).label(name)) for name in _SUMS),
        )
        .join(series, series.c.series_no == summed.c.series_no)
        .join(classes, classes.c.class_no == summed.c.class_no)
        .group_by(*named, *of)
    )
    return found.join(origins, origins.c.origin_no == summed.c.origin_no) if by_origin else found


_PLACES = {name: at for at, name in enumerate(_SUMS)}
_DETAILS = itemgetter(*(_PLACES[name] for name in SUMMED))


def _cell(
    operation: str,
    kind: str,
    outcome: str,
    input_source: str,
    output_source: str,
    attempt: str,
    known: str,
    n: int,
    *sums: int,
) -> list[int]:
    """The cell of all records of a class: what one record with their sums counts, its 0s and 1s times their number."""
    record, figures = _stand_in(operation, kind, outcome, input_source, output_source, attempt, known)
    cell = totals.empty()
    totals.add(cell, msgspec.structs.replace(record, **{name: sums[place] for name, place in figures}))
    refused = int(record.outcome is Outcome.REFUSED)
    cell += (1, 0, refused, *_DETAILS(sums)) if kind == "usage" else (0, 1, 0, *_NO_DETAILS)
    for at in COUNTS:
        cell[at] *= n
    return cell


_NO_DETAILS = (0,) * len(SUMMED)


@lru_cache(maxsize=1_000)
def _stand_in(
    operation: str, kind: str, outcome: str, input_source: str, output_source: str, attempt: str, known: str
) -> tuple[Record, list[tuple[str, int]]]:
    """A record of a class, and its figures that are known, each with its place among the sums."""
    unknown = set(TELLING).difference(known.split(","))
    measured = "measured" not in unknown
    lasts = "audio_ms" not in unknown and (measured or operation != Operation.OTHER)
    record = Record(
        kind=kind,
        request_id="",
        attempt=1 if attempt == "first" else 2,
        started_at=0,
        ended_at=0,
        workspace="",
        upstream="",
        provider="",
        api="",
        operation=word(Operation, operation, Operation.OTHER),
        outcome=word(Outcome, outcome, Outcome.INTERRUPTED),
        input_source=word(Source, input_source, Source.ESTIMATED),
        output_source=word(Source, output_source, Source.ESTIMATED),
        seconds=0.0 if lasts else None,  # known or not is what counts
        images=0 if measured else None,
    )
    return record, [(name, _PLACES[name]) for name in _FIGURES if name not in unknown]
