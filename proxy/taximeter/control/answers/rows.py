"""Records as lines of a download: CSV, JSON Lines, Parquet. Pure but for the Parquet writer's file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, BinaryIO, Literal

import msgspec

from taximeter.control.answers.responses import COLUMNS, encode, record
from taximeter.core.bounds import types_of
from taximeter.core.errors import BadRequest
from taximeter.core.record import Record
from taximeter.exports.lines import csv_line

FORMATS = ("csv", "jsonl", "parquet")


def csv_header() -> bytes:
    """The first line: the names of responses.COLUMNS."""
    return csv_line(COLUMNS)


def csv_lines(records: Sequence[Record]) -> bytes:
    """One line a record. Unknown is empty; tags and usage are JSON; a text that a spreadsheet would run gets a `'`."""
    return b"".join(csv_line(_row(each).values()) for each in records)


def jsonl_lines(records: Sequence[Record]) -> bytes:
    """One JSON object a record and line."""
    return b"".join(encode(record(each)) + b"\n" for each in records)


class LinesWriter:
    """Writes record lists as lines of CSV or JSON."""

    def __init__(self, file: BinaryIO, kind: Literal["csv", "jsonl"]) -> None:
        self._file = file
        self._lines = csv_lines if kind == "csv" else jsonl_lines
        if kind == "csv":
            file.write(csv_header())

    def write(self, records: Sequence[Record]) -> None:
        self._file.write(self._lines(records))

    def close(self) -> None:
        """All is written; the file stays open."""


class ParquetWriter:
    """Writes record lists as row groups of a Parquet file: memory is bounded by one list.

    Raises BadRequest where pyarrow is not installed (the extra `taximeter[parquet]`).
    """

    def __init__(self, file: BinaryIO) -> None:
        try:
            pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
        except ImportError:
            raise BadRequest(
                "Parquet needs pyarrow: pip install 'taximeter[parquet]', or export .csv or .jsonl.", param="format"
            ) from None
        self._table = pyarrow.Table
        self._scalar = pyarrow.scalar
        self._schema = pyarrow.schema(_parquet_fields(pyarrow))
        self._writer = parquet.ParquetWriter(file, self._schema)

    def write(self, records: Sequence[Record]) -> None:
        rows = [_row(each) | {"started_at": each.started_at, "ended_at": each.ended_at} for each in records]
        try:
            table = self._table.from_pylist(rows, schema=self._schema)
        except (ValueError, TypeError, ArithmeticError):  # pyarrow's are ValueErrors: one cell must not end a download
            rows = [{name: self._fitting(name, value) for name, value in row.items()} for row in rows]
            table = self._table.from_pylist(rows, schema=self._schema)
        self._writer.write_table(table)

    def _fitting(self, name: str, value: Any) -> Any:
        """The value where its column can hold it, else null."""
        try:
            self._scalar(value, self._schema.field(name).type)
        except (ValueError, TypeError, ArithmeticError):
            return None
        return value

    def close(self) -> None:
        """Write the footer: without it the file cannot be read."""
        self._writer.close()


def _row(one: Record) -> dict[str, Any]:
    row = record(one)
    row["tags"] = encode(one.tags).decode() if one.tags else None
    row["usage"] = None if bytes(one.usage) == b"null" else bytes(one.usage).decode()
    return row


def _parquet_fields(pyarrow: Any) -> list[tuple[str, Any]]:
    """A column's type from the record's field: whole numbers, times in UTC, exact money, else text."""
    kinds: dict[type, Any] = {int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    special = {
        "started_at": pyarrow.timestamp("us", tz="UTC"),
        "ended_at": pyarrow.timestamp("us", tz="UTC"),
        "cost_usd": pyarrow.decimal128(19, 9),
    }
    types: dict[str, Any] = {}
    for field in msgspec.structs.fields(Record):
        inner = [kind for kind in kinds if kind in types_of(field.type)]
        types[field.name] = kinds[inner[0]] if inner else pyarrow.string()
    return [(name, special.get(name) or types[name]) for name in COLUMNS]
