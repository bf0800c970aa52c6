"""How long single records stay: deletion in bites on SQLite, monthly partitions on PostgreSQL. Roll-ups stay, but for
those by tag, which know documents and end users: they go by whole months."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, func, insert, select, text, update

from taximeter.sinks.history import marks
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.exact import of_any_size
from taximeter.sinks.history.schema import DAY_S, MONTH, QUARTER_S, TAG_LEVELS, US, events, meta
from taximeter.sinks.history.windows import level_start_s
from taximeter.sinks.history.write import tag_rollups
from taximeter.sinks.query import TAGS

BITE = 5_000
"""Records deleted in one transaction: some tens of ms, in which delivery waits."""

_PREFIX = f"{events.name}_"


def _forget_before(connection: Connection, name: str, before_us: int) -> None:
    """In the transaction that deletes, so that readers never take the remainder for all."""
    since_us = marks.since_us(connection, name)
    if since_us == 0:
        connection.execute(insert(meta).values(name=name, value=str(before_us)))
    elif since_us < before_us:
        connection.execute(update(meta).where(meta.c.name == name).values(value=str(before_us)))


def delete_tags(database: Database, before_us: int) -> int:
    """Delete the oldest of the months of roll-ups by tag that end at or before this moment, or an hour or day of it;
    returns how many rows went, 0: none is left. By months, lest a month's sum is there without its days'."""
    until_s = _month_s(before_us // US)
    with database.writing() as connection:
        for level in TAG_LEVELS:
            for tag in TAGS:
                mine = level.c.tag == tag
                oldest_s = connection.execute(select(func.min(level.c.start_s)).where(mine)).scalar()
                if oldest_s is not None and oldest_s < until_s:
                    _forget_before(connection, marks.TAGS, until_s * US)
                    return connection.execute(delete(level).where(mine, level.c.start_s == oldest_s)).rowcount
    return 0


@of_any_size
def delete_bite(database: Database, before_us: int) -> int:
    """SQLite: delete some of the records that ended before this moment; 0: none is left."""
    before_us -= before_us % (QUARTER_S * US)
    with database.writing() as connection:
        tag_rollups.finish(connection)
        old = select(events.c.id).where(events.c.ended_at < before_us).order_by(events.c.ended_at).limit(BITE)
        deleted = connection.execute(delete(events).where(events.c.id.in_(old))).rowcount
        if deleted:
            _forget_before(connection, marks.EVENTS, before_us)
        return deleted


class Partitions:
    """PostgreSQL's monthly partitions of `usage_events`. On SQLite there are none."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._made: set[int] = set()

    def ensure(self, times_us: Iterable[int]) -> None:
        """Make the partitions that records of these times go to.

        In transactions of their own: making one locks the whole table for a moment, which must not meet a batch's
        locks.
        """
        if self._database.dialect == "sqlite":
            return
        days = {at // (DAY_S * US) for at in times_us}
        for month_s in sorted({_month_s(day * DAY_S) for day in days} - self._made):
            with self._database.writing() as connection:
                self._database.lock_schema(connection)
                if _name(month_s) not in _names(connection):
                    bounds = f"FROM ({month_s * US}) TO ({_next_month_s(month_s) * US})"
                    connection.execute(
                        text(f"CREATE TABLE {_name(month_s)} PARTITION OF {events.name} FOR VALUES {bounds}")
                    )
            self._made.add(month_s)

    @staticmethod
    def end_us(at_us: int) -> int:
        """First moment after the month that this moment is in."""
        return _next_month_s(_month_s(at_us // US)) * US

    def forget(self) -> None:
        """Another node may have dropped some."""
        self._made.clear()

    def drop_before(self, before_us: int) -> int:
        """Drop the partitions that end at or before this moment; return how many."""
        with self._database.writing() as connection:
            self._database.lock_schema(connection)
            ends = {name: _next_month_s(_start_s(name)) * US for name in _names(connection)}
            dropped = [name for name, end_us in ends.items() if end_us <= before_us]
            for name in dropped:
                connection.execute(text(f"DROP TABLE {name}"))
            if dropped:
                for known in (marks.EVENTS, marks.TAGS):  # the same months: no tag of theirs will be asked for again
                    _forget_before(connection, known, max(ends[name] for name in dropped))
        self.forget()
        return len(dropped)


def _name(month_s: int) -> str:
    return f"{_PREFIX}{datetime.fromtimestamp(month_s, UTC):%Y_%m}"


def _start_s(name: str) -> int:
    return int(datetime.strptime(name.removeprefix(_PREFIX), "%Y_%m").replace(tzinfo=UTC).timestamp())


def _names(connection: Connection) -> list[str]:
    inherits = "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = CAST(:t AS regclass)"
    return [str(name) for name in connection.execute(text(inherits), {"t": events.name}).scalars()]


def _month_s(at_s: int) -> int:
    return level_start_s(MONTH.name, at_s)


def _next_month_s(month_s: int) -> int:
    return _month_s(month_s + 31 * DAY_S)
