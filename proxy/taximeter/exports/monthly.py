"""Files by month: which are to be made anew, and making them. What they are made of and where they go is given.

Beside each file stands one that says what is in it (`Manifest`), written last: a month whose sums in history are still
those is left alone, so the same export again does nothing, and one that broke off goes on where it was.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from hashlib import file_digest
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, Protocol

import msgspec

from taximeter.core.record import Record
from taximeter.exports.places import CannotExport, Place
from taximeter.sinks.query import Filters, Group

log = logging.getLogger("taximeter.export")

Kind = Literal["csv", "jsonl", "parquet", "focus"]
KINDS: tuple[Kind, ...] = ("csv", "jsonl", "parquet", "focus")
NAMES = {"focus": "focus.csv"}
"""How a file's name ends, where not as its kind is called."""
US = 1_000_000


class Manifest(msgspec.Struct, kw_only=True):
    """What a file holds; `FILE.json` beside it."""

    records: int
    """Calls and corrections."""
    cost_nusd: int
    total_tokens: int
    bytes: int
    sha256: str
    layout: str
    """Of which layout the file is: of a newer one it is made anew."""


class Source(Protocol):
    """History, as sinks.history.read.Reader has it."""

    def usage(self, filters: Filters) -> list[Group]: ...
    def export(self, filters: Filters) -> Iterator[list[Record]]: ...


class Writer(Protocol):
    """Writes records to the file it was made with."""

    def write(self, records: list[Record]) -> None: ...
    def close(self) -> None: ...


Writers = Callable[[Kind, BinaryIO, Filters], Writer]
LAYOUT = "1"
TRIES = 5
"""To make a file while records of its month, such as corrections, come in."""


class Done(NamedTuple):
    """What became of a month's file."""

    name: str
    what: Literal["written", "kept", "nothing", "gone", "busy"]
    """`kept`: it is as history is. `nothing`: no calls. `gone`: history has its sums, but no longer all of its records;
    a file there is stays as it is. `busy`: each time that it was made, more of that month came; it stays too."""
    records: int


def months(first_us: int, end_us: int) -> Iterator[tuple[str, int, int]]:
    """(2026-11, start, end) of each month of UTC from the one of `first_us` until before `end_us`, in µs."""
    at = datetime.fromtimestamp(first_us // US, UTC).replace(day=1, hour=0, minute=0, second=0)
    while (start_us := int(at.timestamp()) * US) < end_us:
        at = at.replace(year=at.year + at.month // 12, month=at.month % 12 + 1)
        yield f"{datetime.fromtimestamp(start_us // US, UTC):%Y-%m}", start_us, int(at.timestamp()) * US


def months_before(end_us: int, number: int) -> int:
    """A moment so many months before the one that `end_us` ends or is in, in µs."""
    at = datetime.fromtimestamp((end_us - 1) // US, UTC).replace(day=1)
    year, month = divmod(at.year * 12 + at.month - 1 - number, 12)
    return int(at.replace(year=year, month=month + 1).timestamp()) * US


def export(
    source: Source,
    place: Place,
    writers: Writers,
    kinds: Iterable[Kind],
    filters: Filters,
    first_us: int,
    end_us: int,
    *,
    now_us: int,
) -> Iterator[Done]:
    """Bring the files of these months to what history has; this month's to what had ended at `now_us`, so that it holds
    what its manifest says however many calls end meanwhile. Raises CannotExport, HistoryUnavailable."""
    kinds = list(kinds)
    for month, start_us, until_us in months(first_us, end_us):
        asked = msgspec.structs.replace(filters, from_us=start_us, to_us=min(until_us, max(start_us, now_us)))
        for kind in kinds:
            yield _bring(source, place, writers, kind, asked, f"{month}/usage.{NAMES.get(kind, kind)}")


def _bring(source: Source, place: Place, writers: Writers, kind: Kind, asked: Filters, name: str) -> Done:
    sums = _sums(source, asked)
    before = _manifest(place, name)
    if before is not None and (before.records, before.cost_nusd, before.total_tokens, before.layout) == (*sums, LAYOUT):
        if place.size(name) == before.bytes:
            return Done(name, "kept", before.records)
        log.warning("%s is not as it was written: it is made anew", name)
    if sums[0] == 0 and before is None:
        return Done(name, "nothing", 0)
    try:
        for _ in range(TRIES):
            done = _made(source, place, writers, kind, asked, name, sums)
            if done is not None:
                return done
            sums = _sums(source, asked)
        return Done(name, "busy", sums[0])
    except OSError as error:  # where it is made before it is put
        raise CannotExport(f"{name} cannot be made: {error}") from error


def _made(
    source: Source, place: Place, writers: Writers, kind: Kind, asked: Filters, name: str, sums: tuple[int, int, int]
) -> Done | None:
    """None: records came while it was made, so that it is neither what history had before nor what it has now."""
    with tempfile.TemporaryDirectory() as folder:
        made, told = Path(folder, "made"), Path(folder, "told")
        with made.open("wb") as file:
            records = _write(source, writers(kind, file, asked), asked)
        if records != sums[0]:
            return Done(name, "gone", records) if records < sums[0] else None
        with made.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        manifest = Manifest(
            records=sums[0],
            cost_nusd=sums[1],
            total_tokens=sums[2],
            bytes=made.stat().st_size,
            sha256=digest,
            layout=LAYOUT,
        )
        told.write_bytes(msgspec.json.encode(manifest))
        place.put(name, made)
        place.put(f"{name}.json", told)
    return Done(name, "written", records)


def _write(source: Source, writer: Writer, asked: Filters) -> int:
    written = 0
    for records in source.export(asked):
        writer.write(records)
        written += len(records)
    writer.close()
    return written


def _sums(source: Source, asked: Filters) -> tuple[int, int, int]:
    (all_,) = source.usage(asked)
    return all_.details.attempts + all_.details.corrections, all_.totals.cost_nusd, all_.totals.total_tokens


def _manifest(place: Place, name: str) -> Manifest | None:
    found = place.get(f"{name}.json")
    try:
        return None if found is None else msgspec.json.decode(found, type=Manifest)
    except (ValueError, RecursionError):
        return None
