"""`export`: records to a file, with progress; the file appears under its name only when it is whole."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from taximeter.cli.backend import Backend
from taximeter.cli.database import Database, filters_of
from taximeter.cli.options import asks_usage
from taximeter.cli.proxy import Params, Proxy
from taximeter.cli.show import console, count, echo
from taximeter.core.errors import BadRequest, TaximeterError

FORMATS = ("csv", "jsonl", "parquet")
PAGE_RECORDS = 2_000

Advance = Callable[[int], None]
"""Takes how many records are written so far."""


@click.command()
@click.option("--output", "-o", required=True, metavar="FILE", help="FILE.csv, FILE.jsonl, FILE.parquet, or - .")
@click.option("--format", "kind", type=click.Choice(FORMATS), help="Where the file's name does not say it.")
@asks_usage
def export(backend: Backend, params: dict[str, list[str]], as_json: bool, output: str, kind: str | None) -> None:
    """Write single records to a file, oldest first."""
    kind = kind or ("jsonl" if output == "-" else Path(output).suffix.lstrip("."))
    if kind not in FORMATS:
        raise BadRequest(f"--output {output!r}: its name must end in .csv, .jsonl or .parquet, or say --format.")
    with _target(output) as file:
        if isinstance(backend, Proxy):
            written = _download(backend, params, kind, file)
        else:
            written = _dump(backend, params, kind, file)
    if as_json:
        echo(f'{{"records":{written}}}', err=output == "-")
    elif output != "-":
        echo(f"{count(written)} records written to {output}", err=True)


def _download(backend: Proxy, params: Params, kind: str, file: BinaryIO) -> int:
    """Copy the control port's export. Lines are the records' count (a record's JSON and CSV texts hold no newline)."""
    with backend.stream(f"/usage/export.{kind}", params) as answer:
        total = int(answer.headers["x-taximeter-records"])
        seen = 0
        with _progress(total) as advance:
            for chunk in answer.iter_bytes():
                file.write(chunk)
                seen += chunk.count(b"\n") if kind != "parquet" else 0
                advance(max(0, seen - (kind == "csv")))  # its first line names the columns
    return total if kind == "parquet" else seen - (kind == "csv")


def _dump(backend: Database, params: Params, kind: str, file: BinaryIO) -> int:
    """Write the history's records ourselves."""
    from taximeter.control.answers import rows

    filters = filters_of(params)
    parquet = rows.ParquetWriter(file) if kind == "parquet" else None
    if kind == "csv":
        file.write(rows.csv_header())
    seen = 0
    with _progress(backend.reader.count(filters)) as advance:
        for records in backend.reader.export(filters, PAGE_RECORDS):
            if parquet is not None:
                parquet.write(records)
            else:
                file.write((rows.csv_lines if kind == "csv" else rows.jsonl_lines)(records))
            seen += len(records)
            advance(seen)
    if parquet is not None:
        parquet.close()
    return seen


@contextmanager
def _target(output: str) -> Iterator[BinaryIO]:
    """Standard output, or a file that takes its name when all is written and leaves nothing when it fails."""
    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    fresh = path.with_name(f"{path.name}.part")
    try:
        with fresh.open("wb") as file:
            yield file
        fresh.replace(path)
    except OSError as error:
        raise TaximeterError(f"{output}: cannot be written: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def _progress(total: int) -> Iterator[Advance]:
    """A bar on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda records: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("Records"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=total)
        # Calls may have ended since they were counted: then there are more, and never more than all.
        yield lambda records: bars.update(task, completed=records, total=max(total, records))
