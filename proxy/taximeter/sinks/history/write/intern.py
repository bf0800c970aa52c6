"""Numbers for combinations of names: the first record that carries one stores it, the others refer to it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Select, Table, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from taximeter.core.names import clean

Key = TypeVar("Key", bound=tuple[str, ...])

MOST = 100_000
"""Combinations remembered (some 50 MB at the very worst); beyond, the memory starts afresh from the table."""


class Interned(Generic[Key]):
    """The rows of one table (number, then names) known so far. Call `forget` after a rolled-back transaction."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._names = [column.name for column in table.columns][1:]
        self._known: dict[Key, int] = {}

    def numbers(self, connection: Connection, keys: Iterable[Key]) -> dict[Key, int]:
        """The number of each key, storing those never seen; sorted, so nodes never wait for each other in a ring."""
        if len(self._known) > MOST:
            self._known = {}
        for key in sorted(set(keys).difference(self._known)):
            self._known[key] = self._store(connection, tuple(clean(name) for name in key))
        return self._known

    def forget(self) -> None:
        """What the transaction stored is gone with it."""
        self._known = {}

    def _store(self, connection: Connection, names: tuple[str, ...]) -> int:
        values = dict(zip(self._names, names, strict=True))
        found = connection.execute(_find(self._table), values).scalar()
        if found is None:
            connection.execute(insert_new(self._table, connection.dialect.name), values)
            found = connection.execute(_find(self._table), values).scalar_one()
        return int(found)


@cache
def _find(table: Table) -> Select[Any]:
    """A combination's number."""
    number, *names = table.columns
    return select(number).where(*(column == bindparam(column.name) for column in names))


@cache
def insert_new(table: Table, dialect: str) -> sqlite.Insert | postgresql.Insert:
    """INSERT that leaves a row alone which another node has just stored."""
    maker = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return maker(table).on_conflict_do_nothing()
