"""Filling the roll-ups by tag, behind delivery: bite by bite, each record once, however often a bite is tried.

What is due is remembered with what was delivered (`usage_tags_due`), and taken from there in the transaction that adds
it up. A reader finds both in one snapshot: the roll-ups, and the records that are still due.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, delete, select, update

from taximeter.sinks.history.database import Database
from taximeter.sinks.history.levels import Cells, add_to_levels, put
from taximeter.sinks.history.query import FOREVER_US, TAGS, Filters
from taximeter.sinks.history.rows import event_id
from taximeter.sinks.history.schema import HOUR_S, TAG_LEVELS, US, journals, tags_due
from taximeter.sinks.history.statements import Statements
from taximeter.sinks.history.sums import parts

BITE = 5_000
"""Records taken in one transaction: some tens of ms, in which delivery waits."""


class Due(NamedTuple):
    """Events that are not in the roll-ups by tag yet."""

    first_id: int
    last_id: int


def due(connection: Connection) -> list[Due]:
    """All of them, by journal."""
    query = select(tags_due.c.journal_no, tags_due.c.seq, journals.c.seq).join(
        journals, journals.c.journal_no == tags_due.c.journal_no
    )
    return [
        Due(event_id(journal_no, done + 1), event_id(journal_no, upto))
        for journal_no, done, upto in connection.execute(query.order_by(tags_due.c.journal_no))
        if done < upto
    ]


def roll_up(database: Database) -> int:
    """One bite in a transaction of its own; answers how many records it took, 0: nothing is due."""
    with database.reading() as connection:  # most often this is all: no write transaction for nothing
        if not due(connection):
            return 0
    with database.writing() as connection:
        return bite(connection)


def bite(connection: Connection) -> int:
    """Take at most BITE records of one journal into the roll-ups; answers how many, 0: nothing is due."""
    waiting = select(tags_due.c.journal_no).order_by(tags_due.c.journal_no).limit(1)
    journal_no = connection.execute(waiting).scalar()
    if journal_no is None:
        return 0
    # As a delivery does, so that neither misses what the other is about to commit.
    locked = select(journals.c.seq).where(journals.c.journal_no == journal_no).with_for_update()
    upto = int(connection.execute(locked).scalar_one())
    mine = tags_due.c.journal_no == journal_no
    found = connection.execute(select(tags_due.c.seq).where(mine)).scalar()
    if found is None:  # another node was faster
        return bite(connection)
    done = int(found)
    until = min(done + BITE, upto)
    cells = _cells(connection, Due(event_id(journal_no, done + 1), event_id(journal_no, until)))
    add_to_levels(Statements(connection), TAG_LEVELS, cells)
    if until < upto:
        connection.execute(update(tags_due).where(mine).values(seq=until))
    else:
        connection.execute(delete(tags_due).where(mine))
    return until - done


def finish(connection: Connection) -> None:
    """All that is due: in the transaction that is about to delete records."""
    while bite(connection):
        pass


def _cells(connection: Connection, ids: Due) -> Cells:
    """Sums by hour, tag, workspace and value."""
    cells: Cells = {}
    for tag in TAGS:
        names = ("workspace", tag)
        for part in parts(connection, Filters(), 0, FOREVER_US, names, HOUR_S * US, ids=ids, carrying=tag):
            workspace, value = part.key
            if value is not None:
                put(cells, (part.window * HOUR_S, tag, workspace, value), part.cell)
    return cells
