"""What is told once: a row for each thing that was, for all nodes on the database. Its table is made at first use."""

from __future__ import annotations

from sqlalchemy import Column, MetaData, Table, Text, delete

from taximeter.sinks.history.database import Database
from taximeter.sinks.history.schema import Big
from taximeter.sinks.history.write.intern import insert_new

metadata = MetaData()

told = Table("told_once", metadata, Column("key", Text, primary_key=True), Column("at", Big, nullable=False))


class Told:
    """Reads and writes it. Methods raise HistoryUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._made = 0

    def claim(self, key: str, at_us: int) -> bool:
        """Whether this is to be told now: true for whoever asks first, whenever and on whatever node."""
        self._prepare()
        with self._database.writing() as connection:
            row = insert_new(told, connection.dialect.name).values(key=key, at=at_us)
            # What came back is asked for: how many rows an INSERT stored is not told by every driver.
            return connection.execute(row.returning(told.c.key)).first() is not None

    def prune(self, before_us: int) -> int:
        """Forget what was told before; returns how much went."""
        self._prepare()
        with self._database.writing() as connection:
            return connection.execute(delete(told).where(told.c.at < before_us)).rowcount

    def _prepare(self) -> None:
        self._database.prepare()
        if self._made == self._database.opened:
            return
        with self._database.writing() as connection:
            self._database.lock_schema(connection)
            metadata.create_all(connection)
        self._made = self._database.opened
