"""The audit log in the history database, for all nodes on it. Its table is made at the first use.

It has tables of its own, as the webhook has: a Taximeter that does not know them is not hindered by them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Index, MetaData, Select, Table, Text, delete, inspect, select

from taximeter.core.audit import AuditEntry, AuditFilters
from taximeter.core.errors import BadRequest
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.schema import Big
from taximeter.sinks.history.write.intern import insert_new

metadata = MetaData()

entries = Table(
    "audit_log",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at", Big, nullable=False),
    *(Column(name, Text, nullable=False) for name in ("node", "actor", "address", "user_name", "action", "target")),
    Column("before", Text),
    Column("after", Text),
    Column("outcome", Text, nullable=False),
    Column("problem", Text, nullable=False),
)
"""One row an entry of core.audit; `before` and `after` are JSON."""

Index("audit_log_at", entries.c.at, entries.c.id)

_NAMES = ("id", "at", "node", "actor", "address", "action", "target", "outcome", "problem")


class AuditTable:
    """Reads and writes it. Methods raise HistoryUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._made = 0

    def add(self, added: Sequence[AuditEntry]) -> None:
        """Write these; one that is there already is left alone."""
        self._prepare()
        rows = [_row(entry) for entry in added]
        with self._database.writing() as connection:
            if rows:
                connection.execute(insert_new(entries, connection.dialect.name), rows)

    def prune(self, before_us: int) -> int:
        """Forget what is older; returns how many entries went."""
        self._prepare()
        with self._database.writing() as connection:
            return connection.execute(delete(entries).where(entries.c.at < before_us)).rowcount

    def listing(self, asked: AuditFilters, limit: int, page: str | None) -> tuple[list[AuditEntry], str | None]:
        """The newest first, and the next page's name. Raises BadRequest on a page that is none."""
        query = _filtered(select(entries), asked).order_by(entries.c.at.desc(), entries.c.id.desc())
        if page is not None:
            at, last = _place(page)
            query = query.where((entries.c.at < at) | ((entries.c.at == at) & (entries.c.id < last)))
        with self._database.reading() as connection:
            if not inspect(connection).has_table(entries.name):
                return [], None
            rows = connection.execute(query.limit(limit + 1)).all()
        more = f"{rows[limit - 1].at}:{rows[limit - 1].id}" if len(rows) > limit else None
        return [_entry(row) for row in rows[:limit]], more

    def _prepare(self) -> None:
        self._database.prepare()
        if self._made == self._database.opened:
            return
        with self._database.writing() as connection:
            self._database.lock_schema(connection)
            metadata.create_all(connection)
        self._made = self._database.opened


def _filtered(query: Select[Any], asked: AuditFilters) -> Select[Any]:
    for name in ("action", "actor", "target", "outcome"):
        wanted = getattr(asked, name)
        if wanted:
            query = query.where(entries.c[name].in_(wanted))
    if asked.from_us is not None:
        query = query.where(entries.c.at >= asked.from_us)
    if asked.to_us is not None:
        query = query.where(entries.c.at < asked.to_us)
    return query


def _place(page: str) -> tuple[int, str]:
    at, _, last = page.partition(":")
    if not at.isdigit() or len(at) > 18:
        raise BadRequest(f"page: {page[:80]!r} is no page of this list.", param="page")
    return int(at), last


def _row(entry: AuditEntry) -> dict[str, Any]:
    named = {name: getattr(entry, name) for name in _NAMES}
    texts = {name: _text(value) if isinstance(value, str) else value for name, value in named.items()}
    return texts | {"user_name": _text(entry.user), "before": _json(entry.before), "after": _json(entry.after)}


def _text(value: str) -> str:
    """As it can be stored: PostgreSQL has no place for NUL, neither for halves of characters."""
    return value.replace("\0", "").encode("utf-8", "replace").decode()


def _json(value: Any) -> str | None:
    """In ASCII, so that anything can be stored."""
    return None if value is None else json.dumps(value)


def _entry(row: Any) -> AuditEntry:
    named = {name: getattr(row, name) for name in _NAMES}
    before, after = (None if text is None else json.loads(text) for text in (row.before, row.after))
    return AuditEntry(**named, user=row.user_name, before=before, after=after)
