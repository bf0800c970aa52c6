"""Where the sums of a query come from: the coarsest roll-ups that fit, those by tag, single records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace
from sqlalchemy import Connection, Table

from taximeter.sinks.cells import negative
from taximeter.sinks.history.conditions import SINGLY, in_stretch, shape
from taximeter.sinks.history.marks import Due, count, due, events_since_us, tags_since_us
from taximeter.sinks.history.read import rollups
from taximeter.sinks.history.schema import HOUR, HOUR_S, ORIGIN, QUARTER, US
from taximeter.sinks.history.sums import Windows, record_sums
from taximeter.sinks.history.windows import (
    Piece,
    Run,
    parted,
    pieces_of,
    rolled_up,
    runs,
    shifted,
    singles,
    snapped,
    without,
)
from taximeter.sinks.query import TAGS, Filters

Place = tuple[int, rollups.Key]
"""(number of the window, values of the group-by)."""

Sums = dict[Place, list[int]]
"""Cells by place."""

MOST_DUE = 50_000
"""Where more records are not in the roll-ups by tag yet, as after an upgrade, queries by tag read the records."""


def cells(connection: Connection, filters: Filters, names: tuple[str, ...], marks: Sequence[int]) -> rollups.Found:
    """The sums of the windows between the marks, in parts that add up."""
    asked = shape(filters)
    since_us = events_since_us(connection)
    tag = next((name for name in names if name in TAGS), None)
    waiting: list[Due] = []
    rolled = tag is None and not any(name in SINGLY for name, _ in asked) and not set(names).intersection(ORIGIN)
    rolled = rolled and in_stretch(asked) not in TAGS
    if rollups.knows_tag(names, asked):
        waiting = due(connection)
        rolled = count(waiting) <= MOST_DUE
    for run in (part for whole in runs(marks) for part in parted(whole, since_us)):
        if not rolled:
            yield from _records(connection, filters, names, run, Piece(None, run.start_us, run.end_us))
        elif tag is None:
            yield from _rolled(connection, filters, names, run, since_us, QUARTER)
        else:
            yield from _by_tag(connection, filters, names, run, since_us, tag, waiting)


def _by_tag(
    connection: Connection,
    filters: Filters,
    names: tuple[str, ...],
    run: Run,
    since_us: int,
    tag: str,
    waiting: Sequence[Due],
) -> rollups.Found:
    """From the roll-ups by tag, which know the records that carry it; those that do not are all the others."""
    at = names.index(tag)
    others = (*names[:at], *names[at + 1 :])
    zero = rollups.unused(connection)
    for each in _answerable(run, tags_since_us(connection)):
        if each.start_us >= since_us and all(piece.level is None for piece in pieces_of(each, HOUR)):
            yield from _records(connection, filters, names, each, Piece(None, each.start_us, each.end_us))
            continue
        if filters.stretch is not None and filters.stretch.name == tag:
            yield from _stretch(connection, filters, names, each, since_us, tag, waiting, zero)
            continue
        found = list(_rolled(connection, filters, names, each, since_us, HOUR, tag, waiting, zero))
        carrying: dict[Place, list[list[int]]] = {}
        for window, key, cell in found:
            carrying.setdefault((window, (*key[:at], None, *key[at + 1 :])), []).append(cell)
        # Before what was found is given away: who gets a cell adds to it.
        less = [(*place, [-sum(figures) for figures in zip(*some, strict=True)]) for place, some in carrying.items()]
        yield from found
        yield from less
        for window, key, cell in _rolled(connection, filters, others, each, since_us, HOUR):
            yield window, (*key[:at], None, *key[at:]), cell


def _stretch(
    connection: Connection,
    filters: Filters,
    names: tuple[str, ...],
    run: Run,
    since_us: int,
    tag: str,
    waiting: Sequence[Due],
    zero: rollups.Unused,
) -> rollups.Found:
    """A stretch of the tag's values; what carries none of them, if it is part of it, is all less what carries any."""
    asked = filters.stretch
    if asked is None or asked.upto != "":
        yield from _rolled(connection, filters, names, run, since_us, HOUR, tag, waiting, zero)
    if asked is not None and asked.after is None:
        at = names.index(tag)
        others, whole = (*names[:at], *names[at + 1 :]), replace(filters, stretch=None)
        for window, key, cell in _rolled(connection, whole, others, run, since_us, HOUR):
            yield window, (*key[:at], None, *key[at:]), cell
        for window, key, cell in _rolled(connection, whole, others, run, since_us, HOUR, tag, waiting, zero):
            yield window, (*key[:at], None, *key[at:]), negative(cell)


def _answerable(run: Run, since_us: int) -> Iterator[Run]:
    """A run as far as tags are known; days that begin at no full hour, as in India, each by itself: from own cells."""
    for part in without(run, since_us):
        days = shifted(part)
        yield from [part] if days is None or days.level == HOUR.name else singles(part)


def _rolled(
    connection: Connection,
    filters: Filters,
    names: tuple[str, ...],
    run: Run,
    since_us: int,
    finest: Table,
    tag: str | None = None,
    waiting: Sequence[Due] = (),
    zero: rollups.Unused = rollups.NONE_UNUSED,
) -> rollups.Found:
    """From roll-ups of which `finest` is the finest level, and from single records what is finer. `tag`, one of
    `names`: of the records that carry it, of which those `waiting` are in no roll-up yet."""
    days = shifted(run)
    if days is not None and (days.level == HOUR.name or finest is QUARTER):
        yield from rollups.read_shifted(connection, filters, names, days, tag, zero)
        pieces = [Piece(days.level, run.start_us, run.end_us)]
    else:
        pieces = [
            snapped(piece, finest) if piece.level is None and piece.start_us < since_us else piece
            for piece in pieces_of(run, finest)
        ]
        for piece in pieces:
            if piece.level is None:
                yield from _records(connection, filters, names, run, piece, tag)
            else:
                yield from rollups.read(connection, filters, names, run, piece, tag, zero)
    if waiting:
        missing = Piece(None, *rolled_up(pieces))
        for each in waiting:
            yield from _records(connection, filters, names, run, missing, tag, each.ids, HOUR_S * US)


def _records(
    connection: Connection,
    filters: Filters,
    names: tuple[str, ...],
    run: Run,
    piece: Piece,
    carrying: str | None = None,
    ids: tuple[int, int] | None = None,
    grain_us: int = 1,
) -> rollups.Found:
    """From single records of a piece. See sums.record_sums."""
    windows = Windows(run.start_us, run.width_us, grain_us) if run.count > 1 else None
    found = record_sums(connection, filters, piece.start_us, piece.end_us, names, windows, ids=ids, carrying=carrying)
    for part in found:
        yield run.first + part.window, part.key, part.cell if piece.sign > 0 else negative(part.cell)
