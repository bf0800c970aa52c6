"""What can be told from a journal file without following it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from taximeter.core.lines import End
from taximeter.core.record import Record, seq_of
from taximeter.journal.format import CLOSE, END, UNREADABLE, decode_line, start_of
from taximeter.journal.skimmed import CUT, given
from taximeter.journal.tail import decode_record, read_at

END_LINE_BYTES = 256
"""No end line is longer."""


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

    A difference means that the file came back from a copy and went on from there: its seqs were given twice. Not of a
    file that was mended after a power loss: its bytes are other ones, its seqs are not.
    """
    hashed, wanted, found, other, mended = hashlib.sha256(), start_of(path.stem, seq), False, False, False
    with path.open("rb") as file:
        for line in file:
            if found and ended and line.startswith(CLOSE):
                return f"it goes on after seq {seq}, with which it had ended"
            hashed.update(line)
            if line.startswith(CUT):
                mended = True
                if found or given(line) < seq:
                    continue
            elif found or not (line.startswith(wanted) and line.endswith(b"\n")):
                continue
            found, other = True, hashed.hexdigest() != digest
            if not other and not ended:
                return None
    if not found:
        return f"records up to seq {seq} were delivered from it, but it ends before"
    return f"its bytes up to seq {seq} are not those that were delivered" if other and not mended else None


def digest_at(path: Path, seq: int) -> str:
    """The digest (see tail.Block) of a file's bytes up to and including the close line of a seq; "" where it has none.

    Raises OSError.
    """
    hashed, wanted = hashlib.sha256(), start_of(path.stem, seq)
    with path.open("rb") as file:
        for line in file:
            hashed.update(line)
            if line.startswith(wanted):
                return hashed.hexdigest()
    return ""
