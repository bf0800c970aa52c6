"""A file that came back from a power loss shorter than what sinks had of it.

They take lines as soon as they are written, which may be before they are on stable storage. So such a file must go on
behind every number a sink knows, or other records would be taken for those; and what history has of the lost lines is
written into it again, for the sinks that had not come so far.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from taximeter.core.lines import Cut, Line
from taximeter.core.record import Record, possible, seq_of
from taximeter.journal.format import CLOSE, END, UNREADABLE, close_line, encode, header_of
from taximeter.journal.machine import is_earlier
from taximeter.journal.read import last_line
from taximeter.journal.recover import append
from taximeter.journal.skimmed import CUT, given
from taximeter.journal.tail import Tail, decode_record

log = logging.getLogger(__name__)


class Rest(NamedTuple):
    """What is left of a file."""

    boot: str
    """Which start of its machine it was begun in; "": not known."""
    seq: int
    """Up to here it has every close line, or says that it is cut: a page may be torn out of its middle."""
    last_at: int
    """When the last of these calls ended, else when it was begun (µs)."""
    begun: bool
    """It has its first line."""
    ended: bool
    whole: int
    """Up to here every close line itself is in it."""
    whole_at: int
    """When the last of those calls ended, else when it was begun (µs)."""


def is_left_open(path: Path, boot: str) -> bool:
    """Whether it was begun before this start of the machine, and not ended. Raises OSError."""
    with path.open("rb") as file:
        try:
            header = header_of(file.readline(), path.stem)
        except UNREADABLE:
            return False
    return is_earlier(header.boot, boot) and last_line(path) is None


def rest_of(path: Path) -> Rest:
    """What is left of a file; without a header it is nothing. Raises OSError."""
    with path.open("rb") as file:
        try:
            header = header_of(file.readline(), path.stem)
        except UNREADABLE:
            return Rest("", 0, 0, begun=False, ended=False, whole=0, whole_at=0)
        seq, last_at, ended = 0, possible(header.started_at), False
        whole, whole_at = 0, last_at
        for line in file:
            if line.startswith(CLOSE):
                with suppress(*UNREADABLE):
                    record = decode_record(line)
                    if seq_of(record.event_id) == seq + 1:
                        seq, last_at = seq + 1, max(last_at, record.ended_at)
                    if seq_of(record.event_id) == whole + 1:
                        whole, whole_at = whole + 1, max(whole_at, record.ended_at)
            elif line.startswith(CUT):
                seq = max(seq, given(line))
            ended = ended or line.startswith(END)
    return Rest(header.boot, seq, last_at, begun=True, ended=ended, whole=whole, whole_at=whole_at)


def mend(fd: int, tail: Tail, known: int, lost: Iterable[Record], *, now_us: int) -> None:
    """Have a file go on behind seq `known`, with those `lost` records that history has; `fd` holds its lock.

    A call whose close line was torn out of the middle is over; its number lies before others, so it is not written.
    `tail` has read it to its end, and reads on what is appended here. May be done again after it was cut short: with
    every record again that history has behind the first gap, as the lines written here tell of no call that is over.
    Raises OSError; what is written by then is whole.
    """
    log.error(
        "journal %s: its machine lost power; it ends at seq %d, and was delivered up to %d: it goes on from there",
        tail.path, tail.seq, known,
    )  # fmt: skip
    size = os.fstat(fd).st_size
    if size > tail.offset:
        os.ftruncate(fd, size := tail.offset)
    size = append(fd, size, encode(Line(cut=Cut(seq=tail.seq, at=now_us))))
    for record in lost:
        if seq_of(record.event_id) > tail.seq:
            size = append(fd, size, close_line(record))
        else:
            tail.calls.pop((record.request_id, record.attempt), None)
    append(fd, size, encode(Line(cut=Cut(seq=max(known, tail.seq), at=now_us))))
