"""Filling the roll-ups by tag, behind delivery: bite by bite, each record once, however often a bite is tried.

How far they are in a journal is `usage_tags_done`, moved in the transaction that adds to them. A reader finds both in
one snapshot: the roll-ups, and the records that are not in them yet.
"""

from __future__ import annotations

import time

from sqlalchemy import Connection, bindparam, insert, select, update

from taximeter.core.bounds import FOREVER_US
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.exact import of_any_size
from taximeter.sinks.history.marks import BEHIND, DONE, Due, due
from taximeter.sinks.history.schema import HOUR_S, TAG_LEVELS, US, journals, tags_done
from taximeter.sinks.history.sums import SERIES_NO, Windows, record_sums
from taximeter.sinks.history.write.levels import Cells, add_to_levels, put
from taximeter.sinks.history.write.statements import Statements
from taximeter.sinks.query import TAGS, Filters

FIRST_BITE, MOST = 1_000, 20_000
"""Records taken in one transaction, at first and at most."""
BITE_S = 0.04
"""How long a bite is to take: delivery waits for it. One record may change nine cells or none that others do not."""

_FREE = (  # locked as by a delivery, so that neither misses what the other is about to commit; another node has another
    select(journals.c.journal_no, journals.c.seq)
    .select_from(BEHIND)
    .where(journals.c.seq > DONE)
    .order_by(journals.c.journal_no)
    .limit(1)
    .with_for_update(of=journals, skip_locked=True)
)
_mine = tags_done.c.journal_no == bindparam("journal")
_DONE = select(tags_done.c.seq).where(_mine)
_GOES_ON = update(tags_done).where(_mine).values(seq=bindparam("upto"))


class TagRoller:
    """Fills them from one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._bite = FIRST_BITE

    @of_any_size
    def roll_up(self) -> int:
        """One bite in a transaction of its own; returns how many records it took, 0: nothing is due here now."""
        with self._database.reading() as connection:  # most often this is all: no write transaction for nothing
            if not due(connection):
                return 0
        begun_s = time.monotonic()
        with self._database.writing() as connection:
            taken = bite(connection, self._bite)
        if taken == self._bite:
            took_s = max(time.monotonic() - begun_s, BITE_S / 2)  # at most doubled
            self._bite = min(MOST, max(1, int(taken * BITE_S / took_s)))
        return taken


def bite(connection: Connection, most: int) -> int:
    """Take at most so many records of one journal into the roll-ups; returns how many."""
    found = connection.execute(_FREE).first()
    if found is None:
        return 0
    journal_no, upto = found
    # Asked anew: another node may have gone on between the statement's snapshot and the lock.
    done = int(connection.execute(_DONE, {"journal": journal_no}).scalar() or 0)
    taken = Due(journal_no, done, min(done + most, upto))
    _take(connection, taken)
    return taken.upto - taken.done


def finish(connection: Connection) -> None:
    """All that is due, in a transaction that is about to delete records. For SQLite, where nobody else writes then."""
    for each in due(connection):
        _take(connection, each)


def retaken(connection: Connection, journal_no: int, seq: int) -> None:
    """A record was stored after its turn: add it, where the roll-ups are beyond it already."""
    done = connection.execute(_DONE, {"journal": journal_no}).scalar() or 0
    if seq <= done:
        _add(connection, Due(journal_no, seq - 1, seq))


def _take(connection: Connection, taken: Due) -> None:
    _add(connection, taken)
    mine = {"journal": taken.journal_no, "upto": taken.upto}
    if not connection.execute(_GOES_ON, mine).rowcount:
        connection.execute(insert(tags_done), {"journal_no": taken.journal_no, "seq": taken.upto})


def _add(connection: Connection, taken: Due) -> None:
    cells: Cells = {}
    for tag in TAGS:
        hours = Windows(0, HOUR_S * US)
        names = (SERIES_NO, tag)
        for part in record_sums(connection, Filters(), 0, FOREVER_US, names, hours, ids=taken.ids, carrying=tag):
            series_no, value = part.key
            if value is not None:
                put(cells, (part.window * HOUR_S, tag, value, series_no), part.cell)
    add_to_levels(Statements(connection), TAG_LEVELS, cells)
