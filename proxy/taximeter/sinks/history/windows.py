"""Time: windows in any zone, and how to cover a range with few roll-up cells and fewer single records. Pure.

Moments are µs since epoch, UTC; roll-up starts are seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from sqlalchemy import Table

from taximeter.core.errors import BadRequest
from taximeter.sinks.history.schema import DAY, DAY_S, HOUR, HOUR_S, LEVELS, MONTH, QUARTER, QUARTER_S, US
from taximeter.sinks.query import Window

MOST_WINDOWS = 50_000
"""A month of minutes. More is a mistake or an attack, not a query."""

_WIDTH_S = {QUARTER.name: QUARTER_S, HOUR.name: HOUR_S, DAY.name: DAY_S}


class Piece(msgspec.Struct, frozen=True):
    """A stretch of time and where its sums are: a roll-up's name (of schema.LEVELS), or None for single records."""

    level: str | None
    start_us: int
    end_us: int
    sign: int = 1
    """-1: its sums are taken away; a coarser piece holds more than the range."""


def level_start_s(level: str, at_s: int) -> int:
    """Start of the cell of a roll-up that a moment falls into."""
    if level == MONTH.name:
        day = datetime.fromtimestamp(at_s, UTC)
        return int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp())
    width = _WIDTH_S[level]
    return at_s // width * width


def _level_end_s(level: str, start_s: int) -> int:
    if level == MONTH.name:
        return level_start_s(level, start_s + 31 * DAY_S)
    return start_s + _WIDTH_S[level]


def cell_starts(piece: Piece, most: int) -> list[int] | None:
    """The starts of a piece's cells in seconds; None: there are more than so many."""
    found: list[int] = []
    at_s, level = piece.start_us // US, piece.level or ""
    while at_s * US < piece.end_us:
        if len(found) == most:
            return None
        found.append(at_s)
        at_s = _level_end_s(level, at_s)
    return found


def cover(start_us: int, end_us: int, finest: Table = QUARTER) -> list[Piece]:
    """Pieces that make up the range exactly, in few cells: the coarsest roll-up from mark to mark, then at either end
    what is missing or too much, whichever mark is nearer, by the next finer one. Below `finest`: records."""
    pieces: list[Piece] = []
    _cover(start_us, end_us, 1, len(LEVELS) - 1, LEVELS.index(finest), pieces)
    return pieces


def _cover(start_us: int, end_us: int, sign: int, rank: int, lowest: int, pieces: list[Piece]) -> None:
    if start_us >= end_us:
        return
    if rank < lowest:
        pieces.append(Piece(None, start_us, end_us, sign))
        return
    name = LEVELS[rank].name
    first_us, last_us = _nearest(name, start_us), _nearest(name, end_us)
    if first_us >= last_us or 2 * (end_us - start_us) < last_us - first_us:  # too little of one: most were taken away
        _cover(start_us, end_us, sign, rank - 1, lowest, pieces)
        return
    pieces.append(Piece(name, first_us, last_us, sign))
    for one_us, other_us, adds in (
        (start_us, first_us, sign), (first_us, start_us, -sign), (last_us, end_us, sign), (end_us, last_us, -sign),
    ):  # fmt: skip
        _cover(one_us, other_us, adds, rank - 1, lowest, pieces)


def _nearest(level: str, at_us: int) -> int:
    """The start of a cell that is nearest to a moment."""
    start_s = level_start_s(level, at_us // US)
    end_s = _level_end_s(level, start_s)
    return (start_s if 2 * at_us < (start_s + end_s) * US else end_s) * US


def rolled_up(pieces: Iterable[Piece]) -> tuple[int, int]:
    """The stretch that those of a range's pieces that come from roll-ups make up; an empty one where none do."""
    steps: Counter[int] = Counter()
    for piece in pieces:
        if piece.level is not None:
            steps[piece.start_us] += piece.sign
            steps[piece.end_us] -= piece.sign
    marks = sorted(at_us for at_us, step in steps.items() if step)
    return (marks[0], marks[-1]) if marks else (0, 0)


def snapped(piece: Piece, finest: Table = QUARTER) -> Piece:
    """The finest cells that begin inside a piece: the best answer where single records have been deleted."""
    width_us = _WIDTH_S[finest.name] * US
    start_us, end_us = (-(-at_us // width_us) * width_us for at_us in (piece.start_us, piece.end_us))
    return Piece(finest.name, start_us, end_us, piece.sign)


class Run(msgspec.Struct, frozen=True):
    """Consecutive windows of one width: `count` of them, from window number `first` on."""

    first: int
    start_us: int
    width_us: int
    count: int

    @property
    def end_us(self) -> int:
        return self.start_us + self.width_us * self.count


def runs(marks: Sequence[int]) -> list[Run]:
    """Boundaries as runs of equal windows, so that one query reads many of them."""
    found: list[Run] = []
    for at, (start_us, end_us) in enumerate(pairwise(marks)):
        width_us = end_us - start_us
        if found and found[-1].width_us == width_us <= DAY_S * US:  # longer windows have coarser roll-ups inside
            last = found[-1]
            found[-1] = Run(last.first, last.start_us, width_us, last.count + 1)
        else:
            found.append(Run(at, start_us, width_us, 1))
    return found


def parted(run: Run, at_us: int) -> list[Run]:
    """The windows that begin before a moment, and the others."""
    before = min(run.count, max(0, -(-(at_us - run.start_us) // run.width_us))) if run.width_us else 0
    both = (
        Run(run.first, run.start_us, run.width_us, before),
        Run(run.first + before, run.start_us + before * run.width_us, run.width_us, run.count - before),
    )
    return [part for part in both if part.count]


def without(run: Run, before_us: int) -> list[Run]:
    """A run from a moment on: what is left of the window that holds it, and the later ones."""
    kept = []
    for part in parted(run, before_us):
        if part.start_us >= before_us:
            kept.append(part)
        elif part.end_us > before_us:
            kept.append(Run(part.first + part.count - 1, before_us, part.end_us - before_us, 1))
    return kept


def singles(run: Run) -> list[Run]:
    """Each window as a run of its own."""
    return [Run(run.first + at, run.start_us + at * run.width_us, run.width_us, 1) for at in range(run.count)]


def pieces_of(run: Run, finest: Table = QUARTER) -> list[Piece]:
    """Where a run's sums are. Of several windows: one piece, of the coarsest roll-up whose cells fit into them."""
    if run.count == 1:
        return cover(run.start_us, run.end_us, finest)
    fitting = [
        level
        for level, width_s in _WIDTH_S.items()
        if run.start_us % (width_s * US) == 0
        and run.width_us % (width_s * US) == 0
        and width_s >= _WIDTH_S[finest.name]
    ]
    return [Piece(fitting[-1] if fitting else None, run.start_us, run.end_us)]


class Shifted(msgspec.Struct, frozen=True):
    """A run of days of another zone, as days of UTC and what lies between the two zones' midnights.

    A local day is the UTC day next to it, with the strip before it and without the strip after it (or the other way
    round, west of Greenwich). So a month of days needs one cell a day and those of the strips, not every hour.
    """

    days: Run
    """The UTC days."""
    strips: Run
    """The time from each day's beginning here to its beginning there, numbered as the days; one more than days."""
    level: str
    """The roll-up whose cells fit into the strips."""
    starts_s: list[int]
    """Starts of those cells."""
    sign: int
    """1: a strip belongs to the day of its number, and not to the one before; -1: to that before, and not to it."""


def shifted(run: Run) -> Shifted | None:
    """The run as UTC days and strips; None where its windows are not days or are UTC days already."""
    day_us = DAY_S * US
    ahead_us = -run.start_us % day_us
    if run.count == 1 or run.width_us != day_us or ahead_us == 0 or ahead_us % (QUARTER_S * US):
        return None
    sign = 1 if ahead_us <= day_us // 2 else -1
    midnight_us = run.start_us + (ahead_us if sign > 0 else ahead_us - day_us)
    level, width_s = (HOUR.name, HOUR_S) if ahead_us % (HOUR_S * US) == 0 else (QUARTER.name, QUARTER_S)
    first_us, until_us = sorted((run.start_us, midnight_us))
    return Shifted(
        days=Run(run.first, midnight_us, day_us, run.count),
        strips=Run(run.first, first_us, day_us, run.count + 1),
        level=level,
        starts_s=[
            at_s
            for number in range(run.count + 1)
            for at_s in range(first_us // US + number * DAY_S, until_us // US + number * DAY_S, width_s)
        ],
        sign=sign,
    )


def zone(name: str) -> ZoneInfo:
    """An IANA time zone. Raises BadRequest on an unknown name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadRequest(f"Unknown time zone {name!r}; IANA names like Europe/Berlin are.", param="tz") from error


def boundaries(start_us: int, end_us: int, window: Window, tz: str) -> list[int]:
    """start, every local minute|hour|day|month start between, end. Raises BadRequest on more than MOST_WINDOWS."""
    place = zone(tz)
    marks = [start_us]
    for mark in _starts(start_us, window, place):
        if mark >= end_us:
            break
        if mark > start_us:
            marks.append(mark)
        if len(marks) > MOST_WINDOWS:
            raise BadRequest(
                f"More than {MOST_WINDOWS:,} windows: take a shorter range or a wider window.", param="window"
            )
    return [*marks, end_us]


def _starts(at_us: int, window: Window, place: ZoneInfo) -> Iterator[int]:
    """Window starts from the one at or before a moment on, ascending."""
    if window in ("minute", "hour"):
        return _clock_starts(at_us, 60 if window == "minute" else HOUR_S, place)
    return _calendar_starts(at_us, window == "month", place)


def _clock_starts(at_us: int, width_s: int, place: ZoneInfo) -> Iterator[int]:
    """Every moment at which the local clock shows a full minute or hour, or jumps into the middle of one."""
    mark = -1
    at_s = at_us // US
    while True:
        local = datetime.fromtimestamp(at_s, place)
        into = local.second if width_s == 60 else local.minute * 60 + local.second
        start = local.replace(minute=local.minute if width_s == 60 else 0, second=0, microsecond=0)
        start_s = int(start.timestamp())  # `fold` is kept: the hour the clock shows twice is two windows
        if start_s > mark:
            mark = start_s
            yield mark * US
            at_s = mark + width_s
        else:  # the clock went back by less than the window: it goes on until the next full one
            at_s += width_s - into % width_s


def _calendar_starts(at_us: int, months: bool, place: ZoneInfo) -> Iterator[int]:
    day = datetime.fromtimestamp(at_us // US, place).date()
    if months:
        day = day.replace(day=1)
    mark: int | None = None
    while True:
        # A midnight that the clock skips is the moment of the jump; one it shows twice is the first.
        start_s = int(datetime(day.year, day.month, day.day, tzinfo=place).timestamp())
        if mark is None or start_s > mark:
            mark = start_s
            yield mark * US
        day = (day + timedelta(days=31)).replace(day=1) if months else day + timedelta(days=1)
