"""The write path's statements, as text for the driver: nothing is compiled anew for a batch.

In SQLite most of a row's cost is binding its values, a null ten times a number's (the driver looks for an adapter
first). So there rows go by what they fill: nulls of a record, zeros of a cell stand in the text of the statement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from itertools import chain, compress
from operator import attrgetter, itemgetter
from typing import Any

from sqlalchemy import Connection, Table

from taximeter.core.bounds import MAX_SUM
from taximeter.core.record import Record
from taximeter.core.totals import saturated
from taximeter.sinks.history.rows import COLUMNS
from taximeter.sinks.history.schema import events, evidence_pieces, journals
from taximeter.sinks.query import TAGS

Row = tuple[Any, ...]
Place = tuple[Any, ...]
"""Where a cell is in a level of a roll-up: `start_s`, then the other columns of its key in their order."""
Packed = tuple[tuple[bool, ...], tuple[int, ...]]
"""A cell's shape, which of its fields the statement is given values for, and these values."""

NULLABLE = (
    *TAGS, "duration_ms", "input_tokens", "cached_input_tokens", "cache_write_input_tokens",
    "output_tokens", "reasoning_output_tokens", "total_tokens", "audio_input_tokens", "image_input_tokens",
    "audio_output_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens", "search_units",
    "embedding_inputs", "rerank_documents", "seconds", "cost_nusd",
)  # fmt: skip
"""What a record may know or not: the columns of `usage_events` that may be null, in their order. Records of one group
know the same of these."""
Known = tuple[bool, ...]
"""For each of NULLABLE, whether a record knows it."""
_nullable = attrgetter(*NULLABLE)

_FIRST = COLUMNS.index("track")
"""Where the columns of NULLABLE begin; behind them is only `detail`."""

_SHAPES = 512
"""Statements remembered; a node's traffic has a few dozen shapes."""


def known_of(record: Record) -> Known:
    """What a record knows."""
    return tuple([value is not None for value in _nullable(record)])


class Statements:
    """What is executed in one transaction, on the connection's own driver. Raises the driver's errors."""

    def __init__(self, connection: Connection) -> None:
        self.dialect = connection.dialect.name
        self._driver: Any = connection.connection.driver_connection

    def journals(self, ids: Sequence[str]) -> list[tuple[str, int, int, str]]:
        """(journal_id, journal_no, seq, chain) of those known, locked until the transaction ends (SQLite: all are)."""
        rows: list[tuple[str, int, int, str]]
        rows = self._driver.execute(_journals_sql(len(ids), self.dialect), ids).fetchall()
        return rows

    def pass_on(self, journal_no: int, seq: int, digest: str, ended: bool, chain: str) -> None:
        """Set a journal's cursor."""
        self._driver.execute(_cursor_sql(self.dialect), (seq, digest, ended, chain, journal_no))

    def piece(self, *values: Any) -> None:
        """Store a row of `evidence_pieces`: its columns' values, but for its number."""
        self._driver.execute(_piece_sql(self.dialect), values)

    def insert(self, rows: Mapping[Known, list[Row]]) -> None:
        """Store events: values of COLUMNS each, by what they know."""
        if self.dialect == "sqlite":
            for known, some in rows.items():
                sql, filled_of = _insert_sql(known)
                self._driver.executemany(sql, map(filled_of, some))
            return
        copy_sql = f"COPY {events.name} ({', '.join(COLUMNS)}) FROM STDIN"  # takes half the time of INSERTs
        with self._driver.cursor() as cursor, cursor.copy(copy_sql) as copy:
            for row in chain.from_iterable(rows.values()):
                copy.write_row(row)

    def packed(self, cell: Sequence[int]) -> Packed:
        """A cell as `add` takes it."""
        cell = saturated(cell)
        if self.dialect == "sqlite":
            return tuple(map(bool, cell)), tuple(filter(None, cell))
        return (True,) * len(cell), tuple(cell)

    def count(self, table: Table, rows: Sequence[Row]) -> None:
        """Add to counts: a row of values of all columns each, in the order they come in."""
        with closing(self._driver.cursor()) as cursor:
            cursor.executemany(_count_sql(table, self.dialect), rows)

    def add(self, level: Table, cells: Iterable[tuple[Place, Packed]]) -> None:
        """Add cells to a level of a roll-up, each shape in the order they come in."""
        shapes: dict[tuple[bool, ...], list[Row]] = {}
        for place, (shape, sums) in cells:
            shapes.setdefault(shape, []).append(place + sums)
        with closing(self._driver.cursor()) as cursor:
            for shape, rows in shapes.items():
                cursor.executemany(_upsert_sql(level, shape, self.dialect), rows)


@lru_cache(maxsize=8)
def _count_sql(table: Table, dialect: str) -> str:
    """Values: every column's. Counts of calls never come near their bound."""
    names = [column.name for column in table.columns]
    place = [column.name for column in table.primary_key]
    sums = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in names if name not in place)
    marks = ", ".join([_mark(dialect)] * len(names))
    insert = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608
    return f"{insert} ON CONFLICT ({', '.join(place)}) DO UPDATE SET {sums}"


def _mark(dialect: str) -> str:
    return "?" if dialect == "sqlite" else "%s"


@lru_cache(maxsize=_SHAPES)
def _journals_sql(count: int, dialect: str) -> str:
    marks = ", ".join([_mark(dialect)] * count)
    lock = "" if dialect == "sqlite" else " FOR UPDATE"
    query = f"SELECT journal_id, journal_no, seq, chain FROM {journals.name} WHERE journal_id IN ({marks})"  # noqa: S608
    return f"{query} ORDER BY journal_id{lock}"


@lru_cache(maxsize=2)
def _cursor_sql(dialect: str) -> str:
    sql = f"UPDATE {journals.name} SET seq = ?, digest = ?, ended = ?, chain = ? WHERE journal_no = ?"  # noqa: S608
    return sql.replace("?", _mark(dialect))


@lru_cache(maxsize=2)
def _piece_sql(dialect: str) -> str:
    names = [column.name for column in evidence_pieces.columns if not column.primary_key]
    marks = ", ".join([_mark(dialect)] * len(names))
    return f"INSERT INTO {evidence_pieces.name} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608


@lru_cache(maxsize=_SHAPES)
def _insert_sql(known: Known) -> tuple[str, Callable[[Row], Row]]:
    """The statement for rows that know just this, and what takes its values from such a row."""
    filled = list(compress(range(len(COLUMNS)), (True,) * _FIRST + known + (True,)))
    names, marks = ", ".join(COLUMNS[at] for at in filled), ", ".join("?" * len(filled))
    return f"INSERT INTO {events.name} ({names}) VALUES ({marks})", itemgetter(*filled)  # noqa: S608


@lru_cache(maxsize=_SHAPES)
def _upsert_sql(level: Table, filled: tuple[bool, ...], dialect: str) -> str:
    """Values: the place, then the fields that are filled; the others are 0 and stay as they are."""
    name, mark = level.name, _mark(dialect)
    place = ["start_s", *(column.name for column in level.primary_key if column.name != "start_s")]
    fields = [column.name for column in level.columns if not column.primary_key]
    values = ", ".join([*(mark for _ in place), *(mark if given else "0" for given in filled)])
    least, greatest = ("min", "max") if dialect == "sqlite" else ("least", "greatest")
    sums = ", ".join(
        # A sum stops at its bound: PostgreSQL would fail, SQLite would go on with a rounded one.
        f"{field} = {greatest}(-{MAX_SUM}, {least}({MAX_SUM}, {name}.{field} + excluded.{field}))"
        for field in compress(fields, filled)
    )
    insert = f"INSERT INTO {name} ({', '.join([*place, *fields])}) VALUES ({values})"  # noqa: S608
    return f"{insert} ON CONFLICT ({', '.join(place)}) DO {f'UPDATE SET {sums}' if sums else 'NOTHING'}"
