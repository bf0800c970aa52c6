"""Opening the history database: connections, transactions, schema version, one error for all of a driver's.

Knows how SQLite and PostgreSQL differ, so that nobody else in this package has to, but for partitions.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from taximeter.core.errors import ConfigError
from taximeter.sinks.history import schema
from taximeter.sinks.history.exact import ExactSum
from taximeter.sinks.history.failures import HistoryUnavailable, failure
from taximeter.sinks.history.upgrades import upgrade

__all__ = ["Database", "HistoryUnavailable"]

log = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 5.0
"""How long SQLite waits for another process's write (a backup, an ad-hoc UPDATE) before `database is locked`."""

_SQLITE = (
    # Counts for a file that is made now; an older one: `taximeter database compact`. See space.py.
    "PRAGMA auto_vacuum = INCREMENTAL",
    "PRAGMA journal_mode = WAL",
    # A power loss may take back the last transactions, but effects and cursors together, and the journal still has
    # those records (it outlives them by journal.keep_s, an hour): delivery sends them again. So no fsync a commit.
    "PRAGMA synchronous = NORMAL",
    "PRAGMA wal_autocheckpoint = 8000",  # 32 MB: a checkpoint syncs, so not at every few batches
    "PRAGMA cache_size = -16000",
    "PRAGMA temp_store = MEMORY",
)
_SQLITE_READ = ("PRAGMA query_only = 1", "PRAGMA cache_size = -16000", "PRAGMA temp_store = MEMORY")

QUESTION_S = 120
"""How long one SELECT may take, in either database; it is an error then, and the next is none the worse."""
_STEPS = 100_000
"""So many steps of SQLite's machine (about a millisecond) between two looks at the clock."""

_POSTGRES: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "tcp_user_timeout": 30_000,  # a dead server is noticed while we wait for its answer
    "application_name": "taximeter",
}
_POSTGRES_SESSION = f"SET timezone = 'UTC'; SET statement_timeout = '{QUESTION_S}s'; SET lock_timeout = '30s'"
_SCHEMA_LOCK = 0x7461786D
"""PostgreSQL advisory lock under which nodes create tables and partitions."""


class _Clock:
    """Of one SQLite connection: asked by its machine whether to stop."""

    ends = float("inf")

    def begin(self) -> None:
        self.ends = time.monotonic() + QUESTION_S

    def is_late(self) -> bool:
        return time.monotonic() > self.ends


class _Timed(sqlite3.Connection):
    """Its statements end by themselves."""

    clock: _Clock | None = None

    def bound(self) -> None:
        self.clock = _Clock()
        self.set_progress_handler(self.clock.is_late, _STEPS)

    def cursor(self, *args: Any, **named: Any) -> Any:
        """SQLAlchemy makes one for each statement, as it executes it: its time begins."""
        if self.clock is not None:
            self.clock.begin()
        return super().cursor(*args, **named)


class Database:
    """Connections to one history database. `writing` is for one thread at a time, `reading` for any number."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        """Nothing is opened yet. Raises ConfigError on a URL that is neither sqlite:///PATH nor postgresql://…"""
        self.url = _parsed(url)
        self.name = self.url.render_as_string(hide_password=True)
        self.dialect = "sqlite" if self.url.drivername == "sqlite" else "postgresql"
        self.path = Path(self.url.database or "") if self.dialect == "sqlite" else None
        self._read_only = read_only
        self._file: tuple[int, int] | None = None
        self._ready = False
        self.opened = 0
        """Rises when another file is found in place of the one opened: what was remembered of it no longer holds."""
        self._snapshot: dict[str, Any] = {}
        if self.dialect == "postgresql":
            self._snapshot = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        if self.path is None:
            self._reader = self._writer = self._postgres()
        else:
            self._reader, self._writer = self._sqlite(writes=False), self._sqlite(writes=True)
        self._driver_error: type[Exception] = self._writer.dialect.loaded_dbapi.Error

    def _postgres(self) -> Engine:
        engine = create_engine(
            self.url.set(drivername="postgresql+psycopg"),
            connect_args=_POSTGRES,
            paramstyle="format",
            pool_pre_ping=True,
        )

        def begin_session(connection: Any, _: object) -> None:
            # Not as `options` of the connection: the URL may carry the operator's own, and PgBouncer takes none.
            connection.execute(_POSTGRES_SESSION)
            connection.commit()

        event.listen(engine, "connect", begin_session)
        return engine

    def _sqlite(self, *, writes: bool) -> Engine:
        mode = "ro" if self._read_only or not writes else "rwc"
        uri = f"file:{quote(str(self.path))}?mode={mode}"

        def connect() -> _Timed:
            connection = sqlite3.connect(
                uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, factory=_Timed
            )
            if not writes and not self._read_only:  # the operator's own command may take its time
                connection.bound()
            connection.create_aggregate("exact_sum", 1, ExactSum)
            # SQLite's own knows ASCII alone: a search would find names that PostgreSQL's does, and others not.
            connection.create_function("lower", 1, _lower, deterministic=True)
            for pragma in _SQLITE if mode == "rwc" else _SQLITE_READ:
                connection.execute(pragma)
            return connection

        return create_engine("sqlite://", creator=connect, poolclass=QueuePool)

    @contextmanager
    def _begun(self, engine: Engine, options: Mapping[str, Any]) -> Iterator[Connection]:
        """A transaction. (An event of the engine could begin SQLite's; every statement would look for listeners.)"""
        with engine.connect() as connection:
            if options:
                connection.execution_options(**options)
            with connection.begin():
                if self.path is not None:  # deferred: one snapshot from the first SELECT on
                    begin = "BEGIN IMMEDIATE" if engine is self._writer else "BEGIN"
                    connection.connection.cursor().execute(begin)
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, rolled back where it raises."""
        self.prepare()
        with self._mapped(), self._begun(self._writer, {}) as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One snapshot: every SELECT in the block sees the same committed state."""
        self.prepare()
        with self._mapped(), self._begun(self._reader, self._snapshot) as connection:
            yield connection

    def prepare(self) -> None:
        """Make or check the schema, once; notice a SQLite file that was taken away or replaced.

        Raises ConfigError where there is no history to read, or one of a newer Taximeter.
        """
        with self._mapped():
            if self.path is not None and self._ready:
                self._same_file(self.path)
            if self._ready:
                return
            if self._read_only:
                self._check()
            else:
                self._create()
            if self.path is not None:
                self._file = _identity(self.path)
            self._ready = True
            self.opened += 1

    def _same_file(self, path: Path) -> None:
        """A deleted file can still be written, to nowhere: stop, rather than start an empty history unasked."""
        found = _identity(path)
        if found == self._file:
            return
        if found is None:
            raise HistoryUnavailable(
                f"The history database {path} is gone. Put it back, or restart Taximeter to begin an empty one."
            )
        self._ready = False  # another file: a restored back-up
        self.dispose()

    def _create(self) -> None:
        if self.path is not None and not self.path.parent.is_dir():
            raise HistoryUnavailable(f"The directory of the history database {self.path} does not exist.")
        with self._begun(self._writer, {}) as connection:
            self.lock_schema(connection)
            if inspect(connection).has_table(schema.meta.name):
                if (found := self._check_version(connection)) < schema.VERSION:
                    self._upgrade(connection, found)
                return
            schema.metadata.create_all(connection)
            connection.execute(text(schema.llm_usage_view(self.dialect)))
            connection.execute(schema.meta.insert().values(name="version", value=str(schema.VERSION)))
            connection.execute(schema.meta.insert().values(name="id", value=secrets.token_hex(16)))

    def _check(self) -> None:
        if self.path is not None and not self.path.is_file():
            raise ConfigError(f"There is no history database at {self.path}. Has `taximeter serve` run with it yet?")
        with self._begun(self._reader, {}) as connection:
            if not inspect(connection).has_table(schema.meta.name):
                raise ConfigError(f"{self.name} holds no Taximeter history.")
            if (found := self._check_version(connection)) < schema.VERSION:
                raise ConfigError(
                    f"The history database {self.name} is of an older Taximeter (schema version {found} of "
                    f"{schema.VERSION}). `taximeter serve` brings it up to date when it starts."
                )

    def _upgrade(self, connection: Connection, found: int) -> None:
        upgrade(connection, found)
        version = schema.meta.c.name == "version"
        connection.execute(schema.meta.update().where(version).values(value=str(schema.VERSION)))
        log.warning("history database %s: schema version %d from now on", self.name, schema.VERSION)

    def _check_version(self, connection: Connection) -> int:
        """The schema's version. Raises ConfigError on a newer one."""
        query = select(schema.meta.c.value).where(schema.meta.c.name == "version")
        found = int(connection.execute(query).scalar_one())
        if found > schema.VERSION:
            raise ConfigError(
                f"The history database {self.name} has schema version {found}; this Taximeter knows versions up to "
                f"{schema.VERSION}. Run the newer Taximeter, or give history.url another database."
            )
        return found

    def lock_schema(self, connection: Connection) -> None:
        """Until the transaction ends no other node changes tables or partitions. SQLite: `BEGIN IMMEDIATE` did it."""
        if self.dialect == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, self._driver_error, OSError, OverflowError) as error:
            raise failure(error, self.name) from error

    def dispose(self) -> None:
        """Close every connection not in use; the next call opens new ones."""
        self._reader.dispose()
        self._writer.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.dispose()


def _parsed(url: str) -> URL:
    allowed = "Allowed: sqlite:///PATH (sqlite:////absolute/path) or postgresql://user:password@host:port/name."
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(f"history.url is not a URL. {allowed}") from error
    if parsed.drivername == "postgres":
        parsed = parsed.set(drivername="postgresql")
    if parsed.drivername not in ("sqlite", "postgresql"):
        raise ConfigError(f"history.url names {parsed.drivername!r}, which is not supported. {allowed}")
    if parsed.drivername == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigError(f"history.url names no file: history in memory would be lost. {allowed}")
    return parsed


def _lower(value: object) -> str | None:
    return None if value is None else str(value).lower()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
