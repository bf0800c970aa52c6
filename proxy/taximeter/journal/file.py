"""One journal file as its writer holds it: a line is in it whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Literal, NamedTuple

from taximeter.core.record import SCHEMA, End, Header, Line, seq_of
from taximeter.journal.files import create_locked, replace_lost
from taximeter.journal.format import CLOSE, SUFFIX, encode, new_journal_id
from taximeter.journal.tail import decode_record

_PROBE = b" " * 4096
"""What `probe` writes and cuts off again: a block, so that a full disk refuses it."""


class Whereabouts(Enum):
    """Of a file that is being written."""

    SOUND = 0
    LOST = 1
    """It was removed, or moved away, or another file stands in its place: its lines are in nobody's sight."""
    CUT = 2
    """Somebody made it shorter: lines are gone."""


class Identity(NamedTuple):
    """Where a writer's files are, and what their headers say."""

    directory: Path
    node: str
    worker: str
    now_us: Callable[[], int]


class JournalFile:
    """Lines are appended through `write`. Calls opened in a file close in it."""

    __slots__ = (
        "_torn_fd", "_writer", "calls", "dirty", "event_prefix", "fd", "journal_id", "new", "path", "seq", "size",
        "waiting",
    )  # fmt: skip

    def __init__(self, writer: Identity) -> None:
        self._writer = writer
        self.journal_id = new_journal_id()
        self.path = writer.directory / f"{self.journal_id}{SUFFIX}"
        self.event_prefix = f"{self.journal_id}:"
        self.fd = -1
        """-1 while there is no file, or its tail is torn: every write then fails until `revive`."""
        self._torn_fd = -1
        self.size = 0
        """Bytes of whole lines."""
        self.seq = 0
        """The last one given to a close line, written or waiting."""
        self.calls = 0
        """Open calls."""
        self.waiting = 0
        """Lines that wait in memory for this file."""
        self.dirty = False
        """Written to since the last sync round."""
        self.new = False
        """Its name, too, came into being since."""

    def revive(self) -> None:
        """Make the file, locked and with its header; or cut a torn tail off, which a short write left where even that
        failed. Raises OSError; then it is as before."""
        if self.size:
            os.ftruncate(self._torn_fd, self.size)
            self.fd, self._torn_fd = self._torn_fd, -1
            return
        _, node, worker, now_us = self._writer
        header = Header(schema=SCHEMA, journal_id=self.journal_id, node=node, worker=worker, started_at=now_us())
        head = encode(Line(journal=header))
        self.fd = create_locked(self.path, head, append=True)
        self.size = len(head)
        self.dirty = self.new = True

    def write(self, line: bytes) -> Literal[True]:
        """Append a line, or several. Raises OSError, a short write included; the file is then as it was."""
        written = os.write(self.fd, line)
        if written != len(line):
            self._cut_back(self.fd)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.size += written
        self.dirty = True
        return True

    def probe(self) -> None:
        """Find out whether the disk takes a block, leaving the file as it was. Raises OSError where it does not."""
        written = os.write(self.fd, _PROBE)
        self._cut_back(self.fd)
        if written != len(_PROBE):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def whereabouts(self) -> Whereabouts:
        """Whether what is written can still be found by others. Two looks at the disk; raises OSError."""
        if self.fd < 0:
            return Whereabouts.SOUND
        ours = os.fstat(self.fd)
        if ours.st_size < self.size:
            return Whereabouts.CUT
        try:
            there = os.stat(self.path)  # noqa: PTH116 (half the time)
        except (FileNotFoundError, NotADirectoryError):
            return Whereabouts.LOST
        return Whereabouts.SOUND if os.path.samestat(ours, there) else Whereabouts.LOST

    def put_back(self) -> int:
        """Put a lost file back in its place, with all of its lines; returns the old descriptor. Raises OSError."""
        old, self.fd = self.fd, replace_lost(self.path, self.fd, self.size)
        self.dirty = self.new = True
        return old

    def begin_anew(self) -> int:
        """Go on as another journal, after this one's file was cut by somebody: its lines cannot be followed by others.

        What is left of it is ended, so that nobody settles calls that end elsewhere now. Returns the old descriptor.
        Raises OSError; then nothing has changed.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        other = JournalFile(self._writer)
        other.revive()
        old = self.fd
        with contextlib.suppress(OSError, ValueError, RecursionError):
            _end_cut(old, self._writer.now_us())
        for name in ("journal_id", "path", "event_prefix", "fd", "size", "seq", "dirty", "new"):
            setattr(self, name, getattr(other, name))
        return old

    def detach(self) -> int:
        """Hand over the descriptor, and the lock with it, for closing; -1 where there is none."""
        fd = max(self.fd, self._torn_fd)
        self.fd = self._torn_fd = -1
        return fd

    def _cut_back(self, fd: int) -> None:
        try:
            os.ftruncate(fd, self.size)
        except OSError:
            self.fd, self._torn_fd = -1, fd
            raise


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
