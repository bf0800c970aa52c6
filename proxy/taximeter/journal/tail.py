"""Following a journal while it is being written: whole lines only, each looked at once (DESIGN §4).

A `Tail` trusts nothing on disk: what it cannot read is skipped and counted, and what cannot be
(a cursor running backwards, a file that shrank) breaks it, with the reason.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import NamedTuple

from taximeter.core.bounds import MAX_SEQ
from taximeter.core.lines import End
from taximeter.core.record import Record, possible, seq_of
from taximeter.journal import lenient
from taximeter.journal.format import CLOSE, MAX_LINE_BYTES, OPEN, TICK, UNREADABLE, decode_line, header_of, start_of
from taximeter.journal.skimmed import (
    Closed,
    InFlight,
    Opened,
    Ticked,
    decode_closed,
    decode_open,
    decode_tick,
    decode_whole,
)

log = logging.getLogger(__name__)

SLAB_BYTES = 256 * 1024
"""Read in one go: about 250 calls, 1-2 ms of work between two turns of the loop."""


class Block(NamedTuple):
    """What one read found of closed calls: the unit in which digests are kept and batches are cut."""

    after: int
    upto: int
    """`seq` of its last close line."""
    records: list[Record]
    """Those with after < seq <= upto that the reader wanted; [] where it wanted none of them."""
    end_bytes: int
    """Offset just behind the line of `upto`."""
    digest: str
    """SHA-256 (hex) of the file's bytes up to there."""
    first_at: int
    """`ended_at` of its first record (µs)."""


def decode_record(line: bytes) -> Record:
    """The record in a close line, fit for every sink whatever the line holds. Raises one of UNREADABLE."""
    plain = b"\\" not in line and line.isascii()  # nearly every one
    try:
        if plain or b"\\u0000" not in line:  # nothing in it can be text that a database refuses
            if not plain:
                line.decode()  # the provider's usage object is kept as it came, so it need not be UTF-8
            record: Record = decode_whole(line).close
            if plain or lenient.tags_fit(record):
                return record
    except UNREADABLE:
        pass
    return lenient.record(line)


def read_at(path: Path, offset: int, most: int) -> bytes:
    """Bytes of a file from `offset`. No descriptor stays open: there may be more files than descriptors."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, most, offset)
    finally:
        os.close(fd)


class Tail:
    """Follows one journal file from its first byte. `read` returns what it found; the rest is state for everybody."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal_id = path.stem
        """The file's name says it, its header must agree."""
        self.begun = False
        """The header was read."""
        self.boot = ""
        """Which start of its machine it was begun in; "": not known."""
        self.size = 0
        """Bytes on disk when last looked at."""
        self.offset = 0
        """Bytes read: always the end of a line."""
        self.at_end = False
        """Nothing but perhaps an unfinished line was left when last looked at."""
        self.seq = 0
        """Of the last close line read."""
        self.end: End | None = None
        self.calls: dict[tuple[str, int], InFlight] = {}
        """Open calls by request_id and attempt."""
        self.last_at = 0
        """The latest time any line tells (µs): the writer's last sign of life."""
        self.unreadable = 0
        """Lines that could not be read."""
        self.broken: str | None = None
        """Why the file is read no further."""
        self._hash = hashlib.sha256()
        self._prefix = f"{self.journal_id}:"

    def read(self, known: int = 0) -> Block | None:
        """Read on by at most a slab; None where no call was closed in it (see `at_end`, `broken`).

        Records up to the seq `known` are counted, but not decoded. Raises OSError.
        """
        data = b"" if self.broken else self._whole_lines()
        if not data:
            return None
        first, position, closed_upto, first_at = self.seq, 0, 0, 0
        records: list[Record] = []
        *lines, _ = data.split(b"\n")
        if not self.begun:
            position = len(lines[0]) + 1
            try:
                header = header_of(lines.pop(0), self.journal_id)
            except ValueError as error:
                self.break_off(str(error))
                return None
            self.begun, self.boot, self.last_at = True, header.boot, possible(header.started_at)
        for line in lines:
            position += len(line) + 1
            try:
                if line.startswith(CLOSE):
                    ended_at = self._closed(line, records, known)
                    first_at = first_at or ended_at
                    closed_upto = position
                elif line.startswith(OPEN):
                    opened: Opened = decode_open(line).open
                    self.calls[opened.request_id, opened.attempt] = InFlight(opened.workspace, opened.track, line)
                    self.last_at = max(self.last_at, possible(opened.started_at))
                elif self._other(line):
                    closed_upto = position
            except UNREADABLE as error:
                if self._skip(line, error):
                    closed_upto = position
        if self.broken:
            return None
        block = None
        if closed_upto:
            self._hash.update(memoryview(data)[:closed_upto])
            after = max(first, min(known, self.seq))
            end_bytes = self.offset + closed_upto
            block = Block(after, self.seq, records, end_bytes, self._hash.hexdigest(), first_at)
        self._hash.update(memoryview(data)[closed_upto:])
        self.offset += len(data)
        return block

    def skip(self, end: End) -> None:
        """Take an ended file as read: everybody has its records."""
        self.begun, self.end, self.seq = True, end, end.seq
        self.offset = self.size = self.path.stat().st_size
        self.at_end = True

    def break_off(self, reason: str) -> None:
        """Read no further."""
        self.broken = reason
        self.calls.clear()
        log.error("journal %s is halted: %s", self.path, reason)

    def _whole_lines(self) -> bytes:
        self.size = self.path.stat().st_size
        if self.size <= self.offset:
            self.at_end = True
            if self.size < self.offset:
                self.break_off(f"it shrank from {self.offset} to {self.size} bytes")
            return b""
        if self.end is not None:
            self.break_off("it goes on after its end line")
            return b""
        data = read_at(self.path, self.offset, SLAB_BYTES)
        cut = data.rfind(b"\n") + 1
        if not cut and len(data) == SLAB_BYTES:
            data = read_at(self.path, self.offset, MAX_LINE_BYTES)
            cut = data.rfind(b"\n") + 1
            if not cut and len(data) == MAX_LINE_BYTES:
                self.break_off(f"a line at byte {self.offset} is longer than {MAX_LINE_BYTES} bytes")
        self.at_end = self.offset + len(data) >= self.size
        return data[:cut]

    def _closed(self, line: bytes, records: list[Record], known: int) -> int:
        """Take in a close line; returns when the call ended (µs)."""
        record = None if self.seq < known else decode_record(line)
        closed: Record | Closed = record or decode_closed(line).close
        seq = self.seq + 1
        if closed.event_id != f"{self._prefix}{seq}":
            seq = self._other_seq(closed.event_id)
            if self.broken:
                return 0
        if record is not None:
            records.append(record)
        elif seq > known:  # only where lines before it were unreadable
            records.append(decode_record(line))
        self.seq = seq
        self.calls.pop((closed.request_id, closed.attempt), None)
        ended_at = possible(closed.ended_at)
        self.last_at = max(self.last_at, ended_at)
        return ended_at

    def _other_seq(self, event_id: str) -> int:
        """The seq of a close line that is not the next one."""
        if not event_id.startswith(self._prefix):
            raise ValueError(f"its event id {event_id!r} is another journal's")
        seq = seq_of(event_id)
        if seq > MAX_SEQ:
            raise ValueError(f"no journal has a seq {seq}")
        if seq <= self.seq:
            self.break_off(f"seq {seq} follows {self.seq}")
        return seq

    def _other(self, line: bytes) -> bool:
        """True: numbers were given to records that are not here."""
        if line.startswith(TICK):
            tick: Ticked = decode_tick(line).tick
            call = self.calls.get((tick.request_id, tick.attempt))
            if call is not None:
                call.tick = line
            self.last_at = max(self.last_at, possible(tick.at))
            return False
        told = decode_line(line)
        if told.cut is not None:
            before, self.seq = self.seq, max(self.seq, min(told.cut.seq, MAX_SEQ))
            return self.seq > before
        self.end = told.end
        if self.end is None:
            raise ValueError("it is none of the journal's lines")
        self.calls.clear()  # whoever ended it has settled them, but for those whose close lines a power loss took
        return False

    def _skip(self, line: bytes, error: BaseException) -> bool:
        """Count an unreadable line. True: it was a close line, and its seq, still legible, stays taken."""
        self.unreadable += 1
        log.error("journal %s: a line of %d bytes cannot be read: %s", self.path, len(line), error)
        if not line.startswith(start_of(self.journal_id, self.seq + 1)):
            return False
        self.seq += 1
        return True
