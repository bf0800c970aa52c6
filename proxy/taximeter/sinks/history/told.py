"""What is told once: a row for each thing that was, for all nodes on the database. Its table is made at first use.

Whoever is to tell it says so first, and again when it is done: a death between the two leaves it to be told.
"""

from __future__ import annotations

from sqlalchemy import Column, MetaData, Table, Text, delete, or_, select, update

from taximeter.sinks.history.database import Database
from taximeter.sinks.history.schema import Big
from taximeter.sinks.history.write.intern import insert_new

metadata = MetaData()

told = Table("told_once", metadata, Column("key", Text, primary_key=True), Column("at", Big, nullable=False))
"""`at`: when (µs since epoch); below 0: when somebody was about to, and has not said yet that it is done."""

CLAIM_US = 30_000_000
"""Who does not say for so long that it is done has died, or could not: somebody else tells it."""


class Told:
    """Reads and writes it. Methods raise HistoryUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._made = 0

    def claim(self, key: str, at_us: int) -> bool | None:
        """Whether this is to be told now: true for whoever asks first, whenever and on whatever node, and says when it
        is `done`. None: whoever asked has not said so yet; ask again."""
        self._prepare()
        with self._database.writing() as connection:
            row = insert_new(told, connection.dialect.name).values(key=key, at=-at_us)
            # What came back is asked for: how many rows an INSERT stored is not told by every driver.
            if connection.execute(row.returning(told.c.key)).first() is not None:
                return True
            at = connection.execute(select(told.c.at).where(told.c.key == key)).scalar()
            if at is not None and at >= 0:
                return False
            if at is None or abs(at_us + at) < CLAIM_US:
                return None
            again = update(told).where(told.c.key == key, told.c.at == at).values(at=-at_us)
            return connection.execute(again.returning(told.c.key)).first() is not None or None

    def done(self, key: str, at_us: int) -> None:
        """It is told."""
        self._prepare()
        with self._database.writing() as connection:
            connection.execute(update(told).where(told.c.key == key).values(at=at_us))

    def prune(self, before_us: int) -> int:
        """Forget what was told before; returns how much went."""
        self._prepare()
        with self._database.writing() as connection:
            old = told.c.at < before_us, or_(told.c.at >= 0, told.c.at > -before_us)
            return connection.execute(delete(told).where(*old)).rowcount

    def _prepare(self) -> None:
        self._database.prepare()
        if self._made == self._database.opened:
            return
        with self._database.writing() as connection:
            self._database.lock_schema(connection)
            metadata.create_all(connection)
        self._made = self._database.opened
