"""Why calls have no cost: of each record without one the reason that was written with it. Queries only."""

from __future__ import annotations

from collections import Counter

import msgspec
from sqlalchemy import Connection, select

from taximeter.core import totals
from taximeter.sinks.history.read import listing
from taximeter.sinks.history.schema import classes, events, series
from taximeter.sinks.query import GROUPS

MOST = 20_000
"""Records looked at; of more it is not told."""

NOT_TOLD = "not_told"
"""The reason where none was written."""

Names = tuple[str | None, ...]


class Unpriced(msgspec.Struct, frozen=True):
    """How many calls have no cost for one reason, by everything there is to group by."""

    key: Names
    """In the order of query.GROUPS."""
    reason: str
    calls: int


def unpriced(connection: Connection, workspace: str, from_us: int, to_us: int) -> list[Unpriced] | None:
    """Of the calls of a workspace that ended in a range, as far as single records are kept; None: there are too many.

    A call that got its price later has one.
    """
    mine = (
        events.c.ended_at.between(from_us, to_us - 1)
        & events.c.series_no.in_(select(series.c.series_no).where(series.c.workspace == workspace))
        & events.c.class_no.in_(select(classes.c.class_no).where(classes.c.kind == "usage"))
        & events.c.cost_nusd.is_(None)
    )
    if connection.execute(select(events.c.id).where(mine).offset(MOST).limit(1)).first() is not None:
        return None
    corrected = {
        (row.request_id, row.attempt)
        for row in connection.execute(
            select(events.c.request_id, events.c.attempt).where(
                events.c.ended_at.between(from_us, to_us - 1),
                events.c.class_no.in_(select(classes.c.class_no).where(classes.c.kind == "correction")),
                events.c.cost_nusd.is_not(None),
            )
        )
    }
    found: Counter[tuple[Names, str]] = Counter()
    for record in listing.of_ids(connection, select(events.c.id).where(mine)):
        cell = totals.empty()
        totals.add(cell, record)
        if (cell[totals.UNKNOWN] or cell[totals.UNPRICED]) and (record.request_id, record.attempt) not in corrected:
            key = tuple(getattr(record, name) or None for name in GROUPS)
            found[key, record.unpriced_reason or NOT_TOLD] += 1
    return [Unpriced(key, reason, calls) for (key, reason), calls in sorted(found.items(), key=repr)]
