"""A history copied into another database: every table of ours, in one transaction, compared before it counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Table, func, insert, inspect, select, text

from taximeter.billing import store as billing
from taximeter.core.errors import TaximeterError
from taximeter.reconcile import store as reconcile
from taximeter.sinks.history import audit, schema, told
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.history.write.retention import Partitions
from taximeter.sinks.query import Filters
from taximeter.sinks.webhook import schema as webhook

ROWS = 2_000
"""Read and written at once."""

OPTIONAL = (audit.metadata, told.metadata, webhook.metadata, billing.metadata, reconcile.metadata)
"""Tables that are there only where they were used."""


def move(source: Database, target: Database, tell: Callable[[str, int], None]) -> int:
    """Copy everything; returns how many rows. `tell`: a table's name and how many rows of it are copied.

    The target has to be an empty history, or none yet. It is the same history afterwards, with the same id: counters
    in Redis go on from it. Raises TaximeterError; then the target is as it was.
    """
    source.prepare()
    target.prepare()
    tables = list(_tables(source))
    with target.reading() as writing:
        _require_empty(writing, target)
    with source.reading() as reading:
        _make_partitions(reading, target)  # which locks the schema for itself
    with source.reading() as reading, target.writing() as writing:
        target.lock_schema(writing)
        _require_empty(writing, target)
        for metadata in OPTIONAL:
            metadata.create_all(writing, [each for each in metadata.sorted_tables if each in tables])
        copied = sum(_copy(table, reading, writing, tell) for table in tables)
        _set_sequences(writing, tables)
        if not _agree(reading, writing, tables):
            raise TaximeterError("The copy has not as many rows as what was copied; nothing was written.")
    _compare(source, target)
    return copied


def _tables(source: Database) -> Iterator[Table]:
    with source.reading() as connection:
        there = set(inspect(connection).get_table_names())
    for metadata in (schema.metadata, *OPTIONAL):
        yield from (table for table in metadata.sorted_tables if table.name in there)


def _require_empty(writing: Connection, target: Database) -> None:
    for table in (schema.journals, schema.events, schema.QUARTER):
        if writing.execute(select(table).limit(1)).first() is not None:
            raise TaximeterError(f"{target.name} holds a history already; give --to an empty database.")


def _make_partitions(reading: Connection, target: Database) -> None:
    """Of every month that has records; PostgreSQL only. Found by the index, a month at a time."""
    partitions, ended, after = Partitions(target), schema.events.c.ended_at, -1
    while (first := reading.execute(select(func.min(ended)).where(ended > after)).scalar()) is not None:
        partitions.ensure([first])
        after = partitions.end_us(first) - 1


def _copy(table: Table, reading: Connection, writing: Connection, tell: Callable[[str, int], None]) -> int:
    writing.execute(table.delete())  # of history_meta there are rows of its own
    copied = 0
    rows = reading.execution_options(yield_per=ROWS).execute(select(table))
    for some in rows.mappings().partitions(ROWS):
        writing.execute(insert(table), [dict(row) for row in some])
        copied += len(some)
        tell(table.name, copied)
    return copied


def _set_sequences(writing: Connection, tables: list[Table]) -> None:
    """PostgreSQL gives the next number from a sequence, which knows nothing of rows that brought theirs."""
    if writing.dialect.name != "postgresql":
        return
    for table in tables:
        column = table.autoincrement_column
        if column is not None:
            largest = select(func.max(column)).scalar_subquery()
            sequence = func.pg_get_serial_sequence(text(f"'{table.name}'"), text(f"'{column.name}'"))
            writing.execute(select(func.setval(sequence, func.coalesce(largest, 1), largest.is_not(None))))


def _agree(reading: Connection, writing: Connection, tables: list[Table]) -> bool:
    def count(connection: Connection, table: Table) -> Any:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()

    return all(count(reading, table) == count(writing, table) for table in tables)


def _compare(source: Database, target: Database) -> None:
    """The sums of both, as anybody would ask for them."""
    asked: tuple[tuple[str, ...], ...] = ((), ("workspace", "model"), ("key_id",))
    for names in asked:
        if Reader(source).usage(Filters(), names) != Reader(target).usage(Filters(), names):
            by = ", ".join(names) or "nothing"
            raise TaximeterError(f"The sums by {by} of {target.name} are not those of {source.name}: do not use it.")
