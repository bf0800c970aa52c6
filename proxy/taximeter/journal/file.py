"""One journal file as its writer holds it: a line is in it whole or not at all."""

from __future__ import annotations

import errno
import os
from typing import Literal

from taximeter.core.lines import SCHEMA, Header, Line
from taximeter.journal.files import create_locked
from taximeter.journal.format import SUFFIX, encode, new_journal_id
from taximeter.journal.machine import Identity

_PROBE = b" " * 4096
"""What `probe` writes and cuts off again: a block, so that a full disk refuses it."""


class JournalFile:
    """Lines are appended through `write`. Calls opened in a file close in it."""

    __slots__ = (
        "_torn_fd", "calls", "dirty", "event_prefix", "fd", "identity", "journal_id", "new", "path", "seq", "size",
        "waiting",
    )  # fmt: skip

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.journal_id = new_journal_id()
        self.path = identity.directory / f"{self.journal_id}{SUFFIX}"
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
        _, node, worker, now_us, boot = self.identity
        header = Header(
            schema=SCHEMA, journal_id=self.journal_id, node=node, worker=worker, started_at=now_us(), boot=boot
        )
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
