"""How far history reaches: what was deleted, and what is not in the roll-ups by tag yet. Writers move these marks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, select

from taximeter.sinks.history.rows import event_id
from taximeter.sinks.history.schema import journals, meta, tags_done

EVENTS, TAGS, APART = "events_since_us", "tags_since_us", "apart_since_us"
"""Names in `meta`."""
UNCHAINED = "unchained_journals"
"""Likewise: the largest number of a journal known before there was evidence."""

DONE = func.coalesce(tags_done.c.seq, 0)
BEHIND = journals.outerjoin(tags_done, tags_done.c.journal_no == journals.c.journal_no)
_DUE = (
    select(journals.c.journal_no, DONE, journals.c.seq)
    .select_from(BEHIND)
    .where(journals.c.seq > DONE)
    .order_by(journals.c.journal_no)
)
_MARK = select(meta.c.value).where(meta.c.name == bindparam("mark"))


class Due(NamedTuple):
    """Records of a journal that are not in the roll-ups by tag yet."""

    journal_no: int
    done: int
    """The last `seq` that is."""
    upto: int
    """The last `seq` there is."""

    @property
    def ids(self) -> tuple[int, int]:
        """The first and the last event's."""
        return event_id(self.journal_no, self.done + 1), event_id(self.journal_no, self.upto)


def due(connection: Connection) -> list[Due]:
    """All there is, by journal; none of a journal most often."""
    return [Due(*row) for row in connection.execute(_DUE)]


def count(waiting: Iterable[Due]) -> int:
    """How many records these are."""
    return sum(each.upto - each.done for each in waiting)


def events_since_us(connection: Connection) -> int:
    """Single records before this moment may have been deleted; a 15-minute mark."""
    return since_us(connection, EVENTS)


def tags_since_us(connection: Connection) -> int:
    """Of tags before this moment nothing may be known any more."""
    return since_us(connection, TAGS)


def since_us(connection: Connection, name: str) -> int:
    """A mark of `meta` in µs; 0: never set."""
    return int(connection.execute(_MARK, {"mark": name}).scalar() or 0)
