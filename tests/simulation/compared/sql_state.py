"""What a history database holds, told without what two of them may choose differently: numbers that stand for names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Table, inspect, select

from taximeter.billing import store as billing
from taximeter.sinks.history import audit
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.schema import SEQ_BITS, classes, journals, metadata, origins, series, summaries

TABLES: tuple[Table, ...] = (*metadata.sorted_tables, *audit.metadata.sorted_tables, *billing.metadata.sorted_tables)

_OPEN_ENDED = ("events_since_us", "tags_since_us")
"""Of `history_meta`. Where nothing was kept before a moment both are right: SQLite's, which is the moment asked for,
and PostgreSQL's, which is the end of the last month dropped."""


def rows(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Table -> its rows, sorted."""
    found = {}
    with database.reading() as connection:
        there = set(inspect(connection).get_table_names())
        names = _names(connection)
        for table in TABLES:
            if table.name in there:
                found[table.name] = sorted(_told(connection, table, names), key=repr)
    return found


def _names(connection: Connection) -> dict[str, dict[int, Any]]:
    """Column -> number -> the names it stands for."""
    numbered = {"journal_no": (journals, ["journal_id"])}
    for table, column in ((series, "series_no"), (origins, "origin_no"), (classes, "class_no")):
        numbered[column] = table, [each.name for each in table.columns if each.name != column]
    numbered["summary"] = summaries, [each.name for each in summaries.columns if each.name != "series_no"]
    found: dict[str, dict[int, Any]] = {}
    for column, (table, names) in numbered.items():
        number = "series_no" if column == "summary" else column
        query = select(table.c[number], *(table.c[name] for name in names))
        found[column] = {row[0]: tuple(row[1:]) for row in connection.execute(query)}
    return found


def _told(connection: Connection, table: Table, names: Mapping[str, Mapping[int, Any]]) -> Iterator[tuple[Any, ...]]:
    columns = [column.name for column in table.columns]
    places = {at: known for at, name in enumerate(columns) if (known := _names_of(table, name, names)) is not None}
    for row in connection.execute(select(table)):
        values = list(row)
        if table.name == "history_meta" and values[0] in _OPEN_ENDED:
            continue
        for at, known in places.items():
            values[at] = known(values[at])
        yield tuple(values)


def _names_of(table: Table, column: str, names: Mapping[str, Mapping[int, Any]]) -> Callable[[Any], Any] | None:
    """What makes of a column's value what it stands for; None: it stands for itself."""
    if column == "piece_no":
        return lambda _: None
    if column == "id" and table.name in ("usage_events", "usage_charges"):
        return lambda value: (names["journal_no"][value >> SEQ_BITS], value & ((1 << SEQ_BITS) - 1))
    if column == "series_no" and table.name.startswith("usage_summar"):
        column = "summary"
    if column in names:
        return lambda value: None if value is None else names[column][value]
    return None
