"""How large the history is, and giving back to the disk what deleted records took. PostgreSQL drops whole partitions,
whose files go at once; SQLite keeps the pages of deleted rows for later rows, unless it is told to give them back."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import msgspec
from sqlalchemy import func, select, text

from taximeter.core.errors import TaximeterError
from taximeter.sinks.history.database import BUSY_TIMEOUT_S, Database
from taximeter.sinks.history.schema import events

BITE_PAGES = 2_000
"""Given back in one transaction: 8 MB, some tens of ms in which delivery waits."""
SPARE = 16
"""A sixteenth of the file may be free: the next hours' records go there. Beyond twice that, it is given back."""
INCREMENTAL = 2
"""SQLite's name for files whose free pages can be given back."""


class Size(msgspec.Struct, kw_only=True):
    """How large a history is."""

    bytes: int
    free_bytes: int | None
    """Of it free for later rows; null: PostgreSQL does not tell."""
    gives_back: bool
    """Free pages go back to the disk by themselves after old records were deleted."""
    records: int
    oldest_us: int | None
    """When the oldest single record ended."""


def size(database: Database) -> Size:
    """Raises HistoryUnavailable."""
    with database.reading() as connection:
        records, oldest = connection.execute(select(func.count(), func.min(events.c.ended_at))).one()
        if database.path is None:
            query = "SELECT pg_database_size(current_database())"
            total = int(connection.execute(text(query)).scalar_one())
            return Size(bytes=total, free_bytes=None, gives_back=True, records=records, oldest_us=oldest)
        pages, free, page, mode = (
            int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
            for name in ("page_count", "freelist_count", "page_size", "auto_vacuum")
        )
    return Size(
        bytes=pages * page, free_bytes=free * page, gives_back=mode == INCREMENTAL, records=records, oldest_us=oldest
    )


def give_back(database: Database) -> int:
    """One bite of SQLite's free pages; returns how many went, 0: few are left, or they cannot be given back."""
    if database.path is None:
        return 0
    with database.writing() as connection:
        pages, free, mode = (
            int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
            for name in ("page_count", "freelist_count", "auto_vacuum")
        )
        if mode != INCREMENTAL or free * SPARE <= 2 * pages:
            return 0
        bite = min(BITE_PAGES, free - pages // SPARE)
        # By the driver: it has no columns, so SQLAlchemy would not fetch, and each step gives one page back.
        connection.connection.cursor().execute(f"PRAGMA incremental_vacuum({bite})").fetchall()
        return bite


def compact(database: Database) -> None:
    """Write a SQLite file anew without free pages, and so that from now on it gives them back by itself. Needs as much
    room again meanwhile; deliveries wait. Raises TaximeterError."""
    if database.path is None:
        return
    database.prepare()
    try:
        with closing(sqlite3.connect(database.path, timeout=6 * BUSY_TIMEOUT_S, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.Error as error:
        raise TaximeterError(f"{database.path} is not compacted: {error}") from error
