"""How a writer's troubles reach other processes while its journal cannot be written: a tiny file, made beforehand.

`<id>.status` beside the journal: one JSON object padded to a fixed size, so that every later write only overwrites
blocks the file already has and works on a full disk. Its writer holds its lock; a free lock means the writer is gone.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from taximeter.journal.files import create_locked
from taximeter.journal.format import STATUS_SUFFIX, new_journal_id

_SIZE_BYTES = 512
"""One sector: written and read in one piece."""


class Status(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one writer says about its journal. Counts are since that process began."""

    node: str
    worker: str
    pid: int
    errors: int = 0
    """Writes, truncations and syncs that failed."""
    lost: int = 0
    """Calls of which no line at all could be kept."""
    unsaved: int = 0
    """Calls that would be lost were the process to die now: none of their lines is on disk."""
    repaired: int = 0
    """Journal files that somebody took away or cut while they were being written."""
    redirects_away: int = 0
    """Redirects passed on that lead clients away from their upstream, and so past the meter."""
    open_files: int | None = None
    """Files and sockets its process has open; None: not known."""
    open_files_limit: int = 0
    """How many it may have."""
    open_files_ran_out: int = 0
    """Clients turned away, connections and journal files not opened, for that limit."""
    healthy: bool = True


class StatusFile:
    """Tells a `Status` to whoever reads the directory. Never raises."""

    def __init__(self, directory: Path, *, node: str, worker: str) -> None:
        self.status = Status(node=node[:128], worker=worker[:32], pid=os.getpid())
        self.path = directory / f"{new_journal_id()}{STATUS_SUFFIX}"
        self._fd = -1
        self._told = b""
        self.tell()

    def tell(self) -> None:
        """Write the status down if it changed; best effort, tried again with the next change."""
        data = msgspec.json.encode(self.status)
        if data == self._told:
            return
        padded = data.ljust(_SIZE_BYTES - 1) + b"\n"
        try:
            if self._fd < 0:
                self._fd = create_locked(self.path, padded, append=False)
            elif os.pwrite(self._fd, padded, 0) != len(padded):
                return
        except OSError:  # the same disk trouble this file is there to tell about
            return
        self._told = data

    def stay(self) -> None:
        """Make the file anew where it was taken away: without it this writer counts as gone."""
        if self.path.exists():
            return
        if self._fd >= 0:
            os.close(self._fd)
            self._fd, self._told = -1, b""
        self.tell()

    def release(self) -> None:
        """Leave the last status to delivery, which adds it up and removes the file."""
        self.tell()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_status(path: Path) -> Status | None:
    """The status in `path`; None where it is gone or makes no sense. Raises OSError where the disk refuses."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except (FileNotFoundError, ValueError):
        return None
