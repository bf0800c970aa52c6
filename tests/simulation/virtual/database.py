"""The history database of all nodes: a real SQLite file in memory; transactions fail, and commits go unanswered.

A transaction is one step of the simulation, so it is atomic; a process may die, and the connection end, anywhere in it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.util import LRUCache

import taximeter.sinks.history.database as database_module
from simulation.virtual.world import World
from taximeter.sinks.history.database import Database
from taximeter.sinks.webhook.store import Store

SHM = Path("/dev/shm")


class SqlHost:
    """The server. One at a time in this process."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.path = folder / "history.db"
        self.down = False
        self.loses_replies = 0
        """So many of the next commits take effect, and nobody is told."""
        self.refuses = 0
        """So many of the next do not take effect."""
        self.path.write_bytes(template())

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def told(self, error: Exception) -> str:
        """For the story: without the folder of its file, which has another name each time."""
        return str(error).replace(str(self.path.parent), "")

    def passed(self) -> dict[str, int]:
        """How far it has each journal now."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return dict(connection.execute("SELECT journal_id, seq FROM journals").fetchall())


@cache
def template() -> bytes:
    """An empty history's file, made once."""
    with tempfile.TemporaryDirectory(prefix="taximeter-simulation-", dir=SHM if SHM.is_dir() else None) as folder:
        path = Path(folder, "empty.db")
        with Database(f"sqlite:///{path}") as database:
            database.prepare()
            Store(database, "n", events=False, now_us=lambda: 0).prepare()
            with database.writing() as connection:
                connection.exec_driver_sql("UPDATE history_meta SET value = 'simulated' WHERE name = 'id'")
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.read_bytes()


@cache
def _compiled() -> tuple[Any, Any]:
    """A dialect that knows its SQLite, and what was compiled for it: a statement is found by both."""
    with tempfile.TemporaryDirectory(prefix="taximeter-simulation-") as folder:
        path = Path(folder, "empty.db")
        path.write_bytes(template())
        with Database(f"sqlite:///{path}") as database, database.reading() as connection:
            return connection.engine.dialect, LRUCache(2_000)


@contextlib.contextmanager
def serving(host: SqlHost) -> Iterator[None]:
    """Databases opened in the block are on this host."""
    module: Any = database_module
    timed, create = module._Timed, module.create_engine
    _compiled()

    def engine(*args: Any, **named: Any) -> Engine:
        """What one node's statements were compiled to serves all: two thirds of the time of a short life went there."""
        made = create(*args, **named)
        made.dialect, made._compiled_cache = _compiled()
        return made

    class Connection(timed):  # type: ignore[misc, valid-type]
        def execute(self, *args: Any) -> Any:
            if host.down:
                raise sqlite3.OperationalError("the server closed the connection unexpectedly")
            host.world.step(f"sql {str(args[0])[:60].split(chr(10))[0]}")
            return super().execute(*args)

        def cursor(self, *args: Any, **named: Any) -> Any:
            if host.down:
                raise sqlite3.OperationalError("the server closed the connection unexpectedly")
            return super().cursor(*args, **named)

        def commit(self) -> None:
            writes = self.in_transaction and self.total_changes != getattr(self, "told", 0)
            if not writes:
                super().commit()
                return
            host.world.step("sql commit")
            if host.refuses:
                host.refuses -= 1
                host.world.counts["requests and commits that met a fault"] += 1
                self.rollback()
                raise sqlite3.OperationalError("disk I/O error")
            super().commit()
            self.told = self.total_changes
            host.world.counts["commits"] += 1
            if host.loses_replies:
                host.loses_replies -= 1
                host.world.counts["requests and commits that met a fault"] += 1
                raise sqlite3.OperationalError("the server closed the connection unexpectedly")
            host.world.step("sql committed")

    module._Timed = Connection
    module.create_engine = engine
    try:
        yield
    finally:
        module._Timed = timed
        module.create_engine = create
