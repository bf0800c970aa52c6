"""Reading journals: bytes of a file, and what can be told from them without following it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from taximeter.core.record import End, Line, Record, seq_of
from taximeter.journal import lenient
from taximeter.journal.format import CLOSE, END

END_LINE_BYTES = 256
"""No end line is longer."""

UNREADABLE = (ValueError, RecursionError)
"""What msgspec raises on bytes that are not the JSON expected; UnicodeDecodeError is a ValueError."""


class _RecordLine(msgspec.Struct):
    close: Record


decode_line = msgspec.json.Decoder(Line).decode
"""Any line. Raises one of UNREADABLE."""

_NUL = b"\\u0000"

_decode_record_line = msgspec.json.Decoder(_RecordLine).decode


def decode_record(line: bytes) -> Record:
    """The record in a close line, fit for every sink whatever the line holds. Raises one of UNREADABLE."""
    plain = b"\\" not in line and line.isascii()  # nearly every one
    if plain or (_NUL not in line and _is_utf8(line)):  # nothing in it can be text that a database refuses
        try:
            record = _decode_record_line(line).close
            if plain or lenient.tags_fit(record):
                return record
        except UNREADABLE:
            pass
    return lenient.record(line)


def _is_utf8(line: bytes) -> bool:
    """The provider's usage object is kept as it came, so it need not be."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def read_at(path: Path, offset: int, most: int) -> bytes:
    """Bytes of a file from `offset`. No descriptor stays open: there may be more files than descriptors."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, most, offset)
    finally:
        os.close(fd)


def records_between(path: Path, start: int, end: int, after: int) -> list[Record]:
    """The records with a seq beyond `after` in bytes `start` to `end`, which a Tail has read. Raises OSError."""
    records = []
    for line in read_at(path, start, end - start).split(b"\n"):
        if line.startswith(CLOSE):
            try:
                record = decode_record(line)
                if seq_of(record.event_id) > after:
                    records.append(record)
            except UNREADABLE:  # the Tail has counted it
                continue
    return records


def last_line(path: Path) -> End | None:
    """The end line of a file that has one. Raises OSError."""
    size = path.stat().st_size
    data = read_at(path, max(0, size - END_LINE_BYTES), END_LINE_BYTES)
    start = data.rfind(b"\n", 0, -1) + 1
    try:
        return decode_line(data[start:]).end if data.startswith(END, start) and data.endswith(b"\n") else None
    except UNREADABLE:
        return None


def departs(path: Path, seq: int, digest: str, *, ended: bool) -> str | None:
    """How a file differs from what is known of it up to `seq`; None: it does not. Raises OSError.

    A difference means that the file came back from a copy and went on from there: its seqs were given twice.
    """
    hashed, wanted, found = hashlib.sha256(), close_of(path.stem, seq), False
    with path.open("rb") as file:
        for line in file:
            if found:
                if line.startswith(CLOSE):
                    return f"it goes on after seq {seq}, with which it had ended"
                continue
            hashed.update(line)
            if line.startswith(wanted) and line.endswith(b"\n"):
                if hashed.hexdigest() != digest:
                    return f"its bytes up to seq {seq} are not those that were delivered"
                if not ended:
                    return None
                found = True
    return None if found else f"records up to seq {seq} were delivered from it, but it ends before"


def digest_at(path: Path, seq: int) -> str:
    """The digest (see tail.Block) of a file's bytes up to and including the close line of a seq; "" where it has none.

    Raises OSError.
    """
    hashed, wanted = hashlib.sha256(), close_of(path.stem, seq)
    with path.open("rb") as file:
        for line in file:
            hashed.update(line)
            if line.startswith(wanted):
                return hashed.hexdigest()
    return ""


def close_of(journal_id: str, seq: int) -> bytes:
    """How the close line of a seq begins: `event_id` is the record's first field."""
    return b'%b{"event_id":"%b:%d",' % (CLOSE, journal_id.encode(), seq)
