"""Journal files that are still there, held against their chains: each line that is a record by itself, all others by
the digest of the file up to the next place where one was kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from taximeter.core.deferred import TOLD
from taximeter.core.record import Record, seq_of
from taximeter.evidence.chain import content, follow, hash_of, members, unpack
from taximeter.evidence.report import Fault, Kind, Report
from taximeter.evidence.source import Source, Stretch
from taximeter.evidence.statements import Segment
from taximeter.journal.format import CLOSE, END, SUFFIX, UNREADABLE, decode_line, is_journal_id, start_of
from taximeter.journal.tail import decode_record


class JournalSource(Source, Protocol):
    """One that knows all there is of a journal (history)."""

    def of_journal(self, journal: str) -> Iterator[tuple[Stretch, Segment]]:
        """Its segments and pieces, in order."""

    def cursor(self, journal: str) -> int:
        """The last seq delivered of it; 0: none."""


class _Known(NamedTuple):
    """What is kept of a journal."""

    links: dict[int, tuple[bytes, bytes]]
    """seq -> the link before its record, and its own."""
    digests: dict[int, str]
    """seq -> of the file up to and including its line."""
    after: int
    """Evidence begins behind this seq."""
    cursor: int
    ended: bool
    """Its end line was delivered: there is nothing behind the cursor."""


def check_files(directory: Path, source: JournalSource, report: Report) -> None:
    """Every journal file in a directory. Raises OSError where one cannot be read."""
    for path in sorted(directory.glob(f"[!.]*{SUFFIX}")):
        if is_journal_id(path.stem):
            report.files += 1
            try:
                _File(path, _known(source, path.stem), report).check()
            except FileNotFoundError:  # everybody had it, and its time was over
                report.files -= 1


def _known(source: JournalSource, journal: str) -> _Known:
    links: dict[int, tuple[bytes, bytes]] = {}
    digests: dict[int, str] = {}
    after: int | None = None
    ended = False
    for held, said in source.of_journal(journal):
        if not said.late:
            after = said.after if after is None else after
            digests[said.upto], ended = said.digest, said.ended
        previous = _bytes(said.previous)
        try:
            entries = unpack(source.entries(held) or b"")
        except ValueError:  # told of by the check of history
            continue
        for entry in entries:
            links[entry.seq] = previous, entry.link
            previous = entry.link
    cursor = source.cursor(journal)
    return _Known(links, digests, cursor if after is None else after, cursor, ended)


class _File:
    def __init__(self, path: Path, known: _Known, report: Report) -> None:
        self._path, self._journal, self._known, self._report = path, path.stem, known, report
        self._seq = self._sound = 0
        """The last seq read; the last at which the file's digest was the one kept."""
        self._hash = sha256()
        self._found: set[int] = set()
        self._faulty = self._ended = False
        self._strays: list[tuple[int, str]] = []
        """Records that history passed without taking them: set aside if the file is as it was, else added."""

    def check(self) -> None:
        with self._path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # torn, or being written: no line yet
                self._hash.update(line)
                if line.startswith(CLOSE):
                    self._close(line)
                elif line.startswith(END):
                    self._ended = self._is_end(line)
        for seq in sorted(set(self._known.links) - self._found):
            self._fault("line_missing", seq, None, "it was delivered from here, and is not there")
        if self._seq < self._known.cursor and not self._faulty:
            self._fault("line_missing", self._known.cursor, None, f"the file ends at seq {self._seq}")
        elif self._known.ended and not self._ended:
            self._fault("line_missing", None, None, "its end line is not there")

    def _is_end(self, line: bytes) -> bool:
        try:
            end = decode_line(line).end
        except UNREADABLE:
            return False
        return end is not None and end.seq == self._seq

    def _close(self, line: bytes) -> None:
        try:
            record = decode_record(line)
            journal, _, number = record.event_id.rpartition(":")
            seq = int(number)
        except UNREADABLE:
            if line.startswith(start_of(self._journal, self._seq + 1)):
                self._unreadable(self._seq + 1)
            return  # else the seq it had is missing
        if journal != self._journal:
            self._fault("line_added", None, record.request_id, f"it is of journal {journal}")
        elif seq <= self._seq:
            self._fault("line_added", seq, record.request_id, f"it stands behind seq {self._seq}")
        else:
            self._seq = seq
            self._record(seq, record)
            self._digest(seq)

    def _unreadable(self, seq: int) -> None:
        self._seq = seq
        if seq in self._known.links:
            self._found.add(seq)
            self._fault("line_changed", seq, None, "it cannot be read, and could when it was delivered")

    def _record(self, seq: int, record: Record) -> None:
        known = self._known.links.get(seq)
        if known is not None:
            self._found.add(seq)
            if follow(known[0], content(record)) != known[1]:
                self._fault("line_changed", seq, record.request_id, "it is not what was delivered")
            else:
                self._report.lines += 1
        elif seq > self._known.cursor and self._known.ended:
            self._fault("line_added", seq, record.request_id, f"it had ended with seq {self._known.cursor}")
        elif seq > self._known.cursor:
            self._report.undelivered += 1
        elif seq > self._known.after and self._known.links and record.kind != TOLD:
            self._strays.append((seq, record.request_id))

    def _digest(self, seq: int) -> None:
        wanted = self._known.digests.get(seq)
        if not wanted or self._faulty:
            return
        if self._hash.hexdigest() == wanted:
            self._sound = seq
            self._strays = []
        elif self._strays:
            for stray, request_id in self._strays:
                self._fault("line_added", stray, request_id, "no such record was delivered")
        else:
            where = f"between seq {self._sound} and {seq}" if self._sound else f"before seq {seq}"
            self._fault("line_changed", seq, None, f"a byte {where} was changed that is of no record's figures")

    def _fault(self, kind: Kind, seq: int | None, request_id: str | None, problem: str) -> None:
        self._faulty = True
        self._report.add(
            Fault(kind=kind, journal=self._journal, seq=seq, request_id=request_id, problem=f"in its file, {problem}")
        )


def explain(report: Report, directory: Path, source: Source) -> None:
    """Say of records that were changed or are gone what their journal's file has of them, where it is still there."""
    for place, fault in enumerate(report.faults):
        if fault.kind not in ("record_changed", "record_missing") or fault.journal is None or fault.seq is None:
            continue
        line = _line(directory / f"{fault.journal}{SUFFIX}", fault.journal, fault.seq)
        if line is None:
            continue
        record = decode_record(line)
        problem = fault.problem
        if fault.kind == "record_changed":
            found = [one for one in source.records(fault.journal, fault.seq - 1, fault.seq) if one.content]
            differing = _differing(content(record), found[0].content) if found else ""
            problem = f"{problem}: {differing}" if differing else problem
        report.faults[place] = msgspec.structs.replace(fault, request_id=record.request_id, problem=problem)


def _line(path: Path, journal: str, seq: int) -> bytes | None:
    wanted = start_of(journal, seq)
    try:
        with path.open("rb") as file:
            line = next((line for line in file if line.startswith(wanted)), None)
        return line if line is not None and seq_of(decode_record(line).event_id) == seq else None
    except (OSError, *UNREADABLE):
        return None


def _differing(journal: bytes, history: bytes) -> str:
    """The fields that differ, with what either says."""
    try:
        ours, theirs = members(journal), members(history)
    except (ValueError, RecursionError):
        return ""
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return "; ".join(f"{name} is {_shown(theirs.get(name))}, was {_shown(ours.get(name))}" for name in names[:5])


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()[:80]


def _bytes(text: str) -> bytes:
    try:
        return hash_of(text)
    except ValueError:
        return b""
