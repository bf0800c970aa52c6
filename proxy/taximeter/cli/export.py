"""`export`: records to a file, with progress; the file appears under its name only when it is whole."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from taximeter.cli import charges, export_groups
from taximeter.cli.backend import Backend
from taximeter.cli.database import Database, filters_of
from taximeter.cli.months import bring
from taximeter.cli.options import asks_usage
from taximeter.cli.proxy import Params, Proxy
from taximeter.cli.show import console, count, echo
from taximeter.cli.targets import target
from taximeter.core.errors import BadRequest
from taximeter.exports.monthly import KINDS
from taximeter.sinks.query import Window

FORMATS = ("csv", "jsonl", "json", "parquet", "evidence", "focus")
PAGE_RECORDS = 2_000

Advance = Callable[[int], None]
"""Takes how many records are written so far."""


@click.command()
@click.option(
    "--monthly", metavar="WHERE", help="Files by month in a folder or s3://bucket/prefix; needs the history database."
)
@click.option("--output", "-o", metavar="FILE", help="FILE.csv, .jsonl, .json, .parquet, .evidence, .focus.csv, or - .")
@click.option(
    "--format", "kinds", multiple=True, type=click.Choice(FORMATS),
    help="Where the file's name does not say it. With --monthly several; parquet and focus where none is said.",
)  # fmt: skip
@click.option(
    "--by", multiple=True, type=click.Choice(export_groups.GROUPS),
    help="Instead of records, their sums by this name; can be repeated. .csv, .jsonl, or .json, which has the totals.",
)  # fmt: skip
@click.option("--window", type=click.Choice(export_groups.WINDOWS), help="With --by: sums of each of these.")
@click.option("--focus-version", "version", default="1.2", show_default=True, metavar="1.2|1.4", help="Of FOCUS.")
@click.option("--per", multiple=True, metavar="NAME", help="FOCUS: what charges are told apart by; can be repeated.")
@click.option("--unpriced", is_flag=True, help="FOCUS: instead of charges, the calls that have no cost.")
@asks_usage
def export(
    backend: Backend,
    params: dict[str, list[str]],
    as_json: bool,
    monthly: str | None,
    output: str | None,
    kinds: tuple[str, ...],
    by: tuple[str, ...],
    window: Window | None,
    version: str,
    per: tuple[str, ...],
    unpriced: bool,
) -> None:
    """Write single records to a file, oldest first; or their sums by any names; or, as FOCUS has them, the charges
    they add up to.

    FILE.evidence has what `taximeter verify FILE` needs to prove that they are what was delivered.

    With --monthly: a file for each month of the range (this one and the two before), where history has changed since.
    """
    if (output is None) == (monthly is None):
        raise BadRequest("Say --output FILE, or --monthly WHERE.")
    if window is not None and not by:
        raise BadRequest("--window is for --by: single records have their moment.")
    if output is None:
        if by:
            raise BadRequest("Files by month hold single records; sums --by a name are one --output.")
        if not set(kinds) <= set(KINDS):
            raise BadRequest(f"By month there are {', '.join(KINDS)}; an export of evidence is one --output.")
        bring(backend, params, str(monthly), tuple(each for each in KINDS if each in kinds), as_json=as_json)
        return
    if len(kinds) > 1:
        raise BadRequest("A file has one --format.")
    kind = kinds[0] if kinds else _kind_of(output)
    if by:
        export_groups.write(backend, params, export_groups.Sums(by, window, kind), output, as_json=as_json)
        return
    if kind == "json":
        raise BadRequest("Single records are written as lines: .jsonl. A .json holds sums --by a name.")
    if kind == "focus":
        charges.write(backend, params, charges.Asked(version, list(per), unpriced), output, as_json=as_json)
        return
    with target(output) as file:
        if isinstance(backend, Proxy):
            written = _download(backend, params, kind, file)
        else:
            written = _dump(backend, params, kind, file)
    if as_json:
        echo(f'{{"records":{written}}}', err=output == "-")
    elif output != "-":
        echo(f"{count(written)} records written to {output}", err=True)


def _kind_of(output: str) -> str:
    """What a file's name says. Raises BadRequest."""
    if output == "-":
        return "jsonl"
    if output.endswith(".focus.csv"):
        return "focus"
    kind = Path(output).suffix.lstrip(".")
    if kind not in FORMATS[:5]:
        raise BadRequest(
            f"--output {output!r}: its name must end in .csv, .jsonl, .json, .parquet, .evidence or .focus.csv, "
            "or say --format."
        )
    return kind


def _download(backend: Proxy, params: Params, kind: str, file: BinaryIO) -> int:
    """Copy the control port's export. Lines are the records' count (a record's JSON and CSV texts hold no newline)."""
    counted = kind in ("csv", "jsonl")
    with backend.stream("/evidence/export" if kind == "evidence" else f"/usage/export.{kind}", params) as answer:
        total = int(answer.headers["x-taximeter-records"])
        seen = 0
        with _progress(total) as advance:
            for chunk in answer.iter_bytes():
                file.write(chunk)
                seen += chunk.count(b"\n") if counted else 0
                advance(max(0, seen - (kind == "csv")))  # its first line names the columns
    return seen - (kind == "csv") if counted else total


def _dump(backend: Database, params: Params, kind: str, file: BinaryIO) -> int:
    """Write the history's records ourselves."""
    from taximeter.control.answers import rows
    from taximeter.control.answers.evidence import write_evidence
    from taximeter.sinks.history.read.evidence import HistoryEvidence

    filters = filters_of(params)
    if kind == "evidence":
        with HistoryEvidence.of(backend.reader.database) as source:
            return write_evidence(source, filters, file)
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
