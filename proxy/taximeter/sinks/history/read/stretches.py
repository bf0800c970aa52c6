"""In which parts the groups of a query are read, so that none holds many: a stretch of the values of one name each.

A part is read in a transaction of its own, and the next one begins behind its values: nothing is held in between, and
whatever comes meanwhile, no group is in two parts.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from msgspec.structs import replace
from sqlalchemy import Connection, Text, bindparam, func, literal, select, union_all

from taximeter.sinks.history.conditions import on_names, shape, values
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.marks import count, due
from taximeter.sinks.history.read.combining import MOST_DUE
from taximeter.sinks.history.schema import MONTH, SUMMARY_MONTH, TAG_LEVELS, US, events, series
from taximeter.sinks.history.windows import level_start_s
from taximeter.sinks.query import Filters, Stretch

FIRST_ROWS, ROWS = 200, 2_000
"""Rows that a part is to have: the first one is soon there, and none holds much."""
FASTER = 4
"""At most so many times as many values are taken as the time before."""

_FINEST = ("document", "track", "end_user")
"""Tags, those first that have more values: one of the others holds several of them."""

Parts = Generator[Filters, int, None]
"""Yields the filters of a part, and is sent how many rows it had."""

_month = TAG_LEVELS[-1].c
_NTH = (
    select(_month.value)
    .where(_month.tag == bindparam("tag"), _month.start_s == bindparam("start_s"), _month.value > bindparam("after"))
    .order_by(_month.value)
    .limit(1)
    .offset(bindparam("n"))
)


class Pace:
    """How many values are taken at a time."""

    def __init__(self, windows: int) -> None:
        self.values = max(1, FIRST_ROWS // windows)

    def had(self, rows: int) -> None:
        """The last ones made so many rows."""
        self.values = max(1, min(self.values * FASTER, self.values * ROWS // max(1, rows)))


def parts(database: Database, filters: Filters, names: Sequence[str], marks: Sequence[int]) -> Parts:
    """All of a query. `filters` are without a stretch; `marks` are those of its windows, in µs."""
    pace = Pace(len(marks) - 1)
    tags = [name for name in _FINEST if name in names]
    if not tags:
        yield from _by_series(database, filters, names, pace)
        return
    for tag in tags:
        yield from _by_tag(database, filters, tag, marks, pace)
        given = getattr(filters, tag)
        if given is not None and "" not in ([given] if isinstance(given, str) else given):
            return
        if tag != tags[-1]:
            filters = replace(filters, **{tag: ""})  # what carries none: by the next one
    yield replace(filters, stretch=Stretch(tags[-1], None, ""))


def _by_series(database: Database, filters: Filters, names: Sequence[str], pace: Pace) -> Parts:
    """By the name with the most values; there are no more of them than rows in `usage_series`."""
    inside, given = on_names(series, shape(filters)), values(filters)
    several = select(*(func.count(series.c[name].distinct()) for name in names)).where(inside)
    with database.reading() as connection:
        name = max(zip(connection.execute(several, given).one(), names, strict=True))[1]
        query = select(series.c[name]).where(inside).distinct().order_by(series.c[name])
        known = connection.execute(query, given).scalars().all()
    at, after = 0, None
    while at < len(known):
        at += pace.values
        upto = known[at - 1] if at < len(known) else None
        pace.had((yield replace(filters, stretch=Stretch(name, after, upto))))
        after = upto


def _by_tag(database: Database, filters: Filters, tag: str, marks: Sequence[int], pace: Pace) -> Parts:
    """What carries a value of the tag."""
    months = level_start_s(MONTH.name, marks[0] // US), marks[-1] // US
    after: str | None = ""
    while after is not None:
        with database.reading() as connection:
            upto = _nth(connection, tag, months, after, pace.values)
        pace.had((yield replace(filters, stretch=Stretch(tag, after, upto))))
        after = upto


def _nth(connection: Connection, tag: str, months: tuple[int, int], after: str, n: int) -> str | None:
    """A value such that between it and the one there are at most about n, times series, in each month; None: there are
    fewer."""
    if count(due(connection)) > MOST_DUE:  # the roll-ups by tag are being filled
        column = events.c[tag]
        return connection.execute(select(column).where(column > after).order_by(column).limit(1).offset(n)).scalar()
    starts = select(SUMMARY_MONTH.c.start_s).where(SUMMARY_MONTH.c.start_s.between(*months)).distinct()
    found = [
        connection.execute(_NTH, {"tag": tag, "start_s": start_s, "after": after, "n": n}).scalar()
        for start_s in connection.execute(starts).scalars().all()
    ]
    known = [select(literal(value, Text).label("value")) for value in found if value is not None]
    # The database says which is the least: in PostgreSQL that is a matter of its language.
    return connection.execute(select(func.min(union_all(*known).subquery().c.value))).scalar() if known else None
