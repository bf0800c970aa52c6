"""A journal file that somebody took from under its writer: found out, put back, or gone on from as another."""

from __future__ import annotations

import contextlib
import os
from enum import Enum

from taximeter.core.lines import End, Line
from taximeter.core.record import seq_of
from taximeter.journal.file import JournalFile
from taximeter.journal.files import make_directory, replace_lost
from taximeter.journal.format import CLOSE, encode
from taximeter.journal.tail import decode_record


class Whereabouts(Enum):
    """Of a file that is being written."""

    SOUND = 0
    LOST = 1
    """It was removed, or moved away, or another file stands in its place: its lines are in nobody's sight."""
    CUT = 2
    """Somebody made it shorter: lines are gone."""


def whereabouts(file: JournalFile) -> Whereabouts:
    """Whether what is written can still be found by others. Two looks at the disk; raises OSError."""
    if file.fd < 0:
        return Whereabouts.SOUND
    ours = os.fstat(file.fd)
    if ours.st_size < file.size:
        return Whereabouts.CUT
    try:
        there = os.stat(file.path)  # noqa: PTH116 (half the time)
    except (FileNotFoundError, NotADirectoryError):
        return Whereabouts.LOST
    return Whereabouts.SOUND if os.path.samestat(ours, there) else Whereabouts.LOST


def put_back(file: JournalFile) -> int:
    """Put a lost file back in its place, with all of its lines; returns the old descriptor. Raises OSError."""
    old, file.fd = file.fd, replace_lost(file.path, file.fd, file.size)
    file.dirty = file.new = True
    return old


def begin_anew(file: JournalFile) -> int:
    """Go on as another journal, after this one's file was cut by somebody: its lines cannot be followed by others.

    What is left of it is ended, so that nobody settles calls that end elsewhere now. Returns the old descriptor.
    Raises OSError; then nothing has changed.
    """
    make_directory(file.path.parent)
    other = JournalFile(file.identity)
    other.revive()
    old = file.fd
    with contextlib.suppress(OSError, ValueError, RecursionError):
        _end_cut(old, file.identity.now_us())
    for name in ("journal_id", "path", "event_prefix", "fd", "size", "seq", "dirty", "new"):
        setattr(file, name, getattr(other, name))
    return old


def _end_cut(fd: int, now_us: int) -> None:
    """Cut a file behind its last whole line and end it with the seq of its last record. Raises OSError, ValueError."""
    data = b""
    while piece := os.pread(fd, 1024 * 1024, len(data)):
        data += piece
    whole = data.rfind(b"\n") + 1
    if not whole:
        return
    start = data.rfind(b"\n" + CLOSE, 0, whole) + 1
    seq = seq_of(decode_record(data[start : data.index(b"\n", start)]).event_id) if start else 0
    os.ftruncate(fd, whole)
    os.write(fd, encode(Line(end=End(seq=seq, at=now_us))))
