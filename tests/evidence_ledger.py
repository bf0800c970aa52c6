"""A small ledger for tests of evidence: journal files as writers make them, delivered to a history as delivery does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from ledger import T0, US, call
from taximeter.core.lines import End, Header, Line, Tick
from taximeter.core.record import Open, Record
from taximeter.delivery.feed import Feed
from taximeter.evidence.check import check
from taximeter.evidence.files import check_files, explain
from taximeter.evidence.keys import Signer, generate
from taximeter.evidence.report import Report
from taximeter.evidence.statements import SignedRoot
from taximeter.journal.format import close_line, encode, open_line
from taximeter.sinks.batch import Batch
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.read.evidence import HistoryEvidence
from taximeter.sinks.history.write.evidence import EvidenceTables
from taximeter.sinks.history.write.writer import Writer

ONE, OTHER = "a" * 32, "b" * 32
DAY_US = 86_400 * US


def opened(record: Record) -> Open:
    return Open(
        request_id=record.request_id, attempt=record.attempt, started_at=record.started_at, upstream="openai",
        workspace=record.workspace, provider="openai", api="chat",
    )  # fmt: skip


def journal_file(directory: Path, journal_id: str, records: Sequence[Record], *, ended: bool = True) -> Path:
    """A file with a header, an open, a tick and a close line of each call, and an end."""
    header = Header(schema=1, journal_id=journal_id, node="n1", worker="1", started_at=T0)
    lines = [encode(Line(journal=header))]
    for seq, one in enumerate(records, start=1):
        record = msgspec.structs.replace(one, event_id=f"{journal_id}:{seq}")
        tick = Tick(request_id=record.request_id, at=T0, response_bytes=7)
        lines += [open_line(opened(record)), encode(Line(tick=tick)), close_line(record)]
    if ended:
        lines.append(encode(Line(end=End(seq=len(records), at=T0))))
    directory.mkdir(exist_ok=True)
    path = directory / f"{journal_id}.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def batches(path: Path, *, after: int = 0) -> Iterator[Batch]:
    """What delivery would send of a file that it has read in two goes, and its end."""
    feed, whole = Feed(path, 0), path.read_bytes()
    lines = whole.splitlines(keepends=True)
    half = 1 + (len(lines) - 1) // 3 // 2 * 3
    for part in (b"".join(lines[:half]), whole):
        path.write_bytes(part)
        feed.read(0)
    while (batch := feed.batch(after, 1, tell_end=after == feed.seq)) is not None:
        yield batch
        if batch.upto == after:
            return
        after = batch.upto


class Books:
    """A history with its journals and keys."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder, self.journal = url, folder, folder / "journal"
        self.database = Database(url)
        self.writer = Writer(self.database)
        self.tables = EvidenceTables(self.database)
        self.signer: Signer = generate(folder / "key.pem")

    def deliver(self, journal_id: str, records: Sequence[Record], **named: Any) -> Path:
        path = journal_file(self.journal, journal_id, records, **named)
        for batch in batches(path):
            self.writer.apply([batch])
        return path

    def gather(self) -> None:
        while self.tables.gather(all_=True):
            pass

    def seal(self, at_us: int = T0, signers: Sequence[Signer] | None = None) -> SignedRoot | None:
        self.gather()
        return self.tables.seal(at_us, [self.signer] if signers is None else signers)

    def history(self) -> str:
        """Its id."""
        with self.source() as source:
            return source.history

    @contextmanager
    def source(self) -> Iterator[HistoryEvidence]:
        with HistoryEvidence.of(self.database) as source:
            yield source

    def check(
        self,
        from_us: int | None = None,
        to_us: int | None = None,
        trusted: Iterable[bytes] = (),
        known: Iterable[str] = (),
    ) -> Report:
        with self.source() as source:
            report = check(source, from_us, to_us, trusted, known)
            if self.journal.is_dir():
                check_files(self.journal, source, report)
                explain(report, self.journal, source)
            return report


def calls_of(count: int, name: str = "req", **changes: Any) -> list[Record]:
    """Calls with ids of their own, a second apart."""
    return [
        call(
            **{"request_id": f"{name}-{number}", "ended_at": T0 + number * US, "ttft_ms": 12.5, "track": "t"} | changes
        )
        for number in range(1, count + 1)
    ]


def places(report: Report) -> set[tuple[str, str | None, int | None]]:
    """Kind, journal and seq of each fault."""
    return {(fault.kind, fault.journal, fault.seq) for fault in report.faults}
