"""Writing lines while the disk may refuse them: what cannot be written waits in memory, in order; what does not fit is
counted. Which file a line belongs to, others decide.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from taximeter.config import JournalSettings
from taximeter.core.errors import JournalError
from taximeter.core.record import Record
from taximeter.journal.durable import Syncer
from taximeter.journal.file import JournalFile
from taximeter.journal.format import close_line
from taximeter.journal.status import StatusFile
from taximeter.journal.waiting import Waiting
from taximeter.node.descriptors import OPEN_FILES

log = logging.getLogger(__name__)

RETRY_S = 0.1
"""How often a journal that cannot be written is tried again while no call does so by itself."""

_FLUSH_LINES = 256
"""Waiting lines written in one go when writing works again: half a millisecond of the loop."""


class LineWriter:
    """Writes every line at once, or keeps it. Without a running event loop only calls try again."""

    def __init__(
        self,
        settings: JournalSettings,
        told: StatusFile,
        sync: Syncer,
        *,
        current: Callable[[], JournalFile],
        flushed: Callable[[], None],
    ) -> None:
        """`current`: the file new calls are opened in. `flushed` is called when lines that waited were written."""
        self.waiting = Waiting(settings.buffer_records)
        self.status = told.status
        """`healthy` is False from the first failed write on until one works and nothing waits any more."""
        self.closed = False
        self._told = told
        self._sync = sync
        self._refuses = settings.on_error == "refuse"
        self._current, self._flushed = current, flushed
        self._retrying = False

    def open(self, file: JournalFile, line: bytes, opening: Record) -> None:
        """Write a call's open line. Raises JournalError where `on_error` is "refuse" and it could not be written."""
        if self.put(file, line):
            return
        if self._refuses:
            raise JournalError(f"cannot write the journal {file.path}")
        self.waiting.add_open((opening.request_id, opening.attempt), file, line)
        self.tell()

    def close(self, file: JournalFile, record: Record) -> None:
        """Number a record and write its close line; its `event_id` is "" where the call is lost."""
        record.event_id = f"{file.event_prefix}{file.seq + 1}"
        line = close_line(record)
        if self.waiting.concerned:
            works = self.flush()
            kept = self._keep(file, record, line)  # behind those that wait
            if works:
                self.flush()
        else:
            kept = self.put(file, line) or self._keep(file, record, line)
        if kept:
            file.seq += 1
        else:
            record.event_id = ""

    def after_written(self, act: Callable[[bytes], None], data: bytes) -> None:
        """See `Journal.after_written`."""
        act(data)

    def write(self) -> None:
        """Every line is written already, or waits for the disk."""

    end_turn = write

    def put(self, file: JournalFile, line: bytes) -> bool:
        """Write one line whole (or several), or leave the file as it was and return False."""
        try:
            file.write(line)
        except OSError as error:
            if file.fd >= 0 or self.closed:
                return self._failed(file, error)
            return self.revive(file) and self.put(file, line)  # it was only missing, or its tail torn
        if self._sync.idle:
            self._sync.wrote()
        if not self.status.healthy and not self.waiting:
            self._works_again()
        return True

    def revive(self, file: JournalFile) -> bool:
        """Make a file that is missing, or whose tail is torn, fit for lines; False where the disk refuses."""
        try:
            file.revive()
        except OSError as error:
            OPEN_FILES.tell_of(error, "No new file of the journal")
            return self._failed(file, error)
        return True

    def flush(self, most: int = _FLUSH_LINES) -> bool:
        """Write lines that wait, oldest first; False at the first that fails."""
        if not self.waiting:
            return True
        for key, entry in self.waiting.first(most):
            if not self.put(entry.file, entry.line):
                return False
            self.waiting.done(key)
        if self.waiting:
            self._retry_later(0)
        elif not self.status.healthy:
            self._works_again()
        self._flushed()
        self.tell()
        return True

    def shutdown(self) -> None:
        """What still waits is lost."""
        self.status.lost += self.waiting.unsaved
        self.waiting.clear()
        self.tell()
        self._told.release()

    def tell(self) -> None:
        """Bring the status file up to date."""
        self.status.unsaved = self.waiting.unsaved
        self._told.tell()

    def _keep(self, file: JournalFile, record: Record, line: bytes) -> bool:
        """Keep a close line in memory. False: there was no room, the call is lost and counted."""
        if self.closed:
            log.warning("call %s closed after the journal was shut down; recovery settles it", record.request_id)
            return False
        kept = self.waiting.add_close((record.request_id, record.attempt), file, line)
        self.status.lost += not kept
        self.tell()
        return kept

    def _failed(self, file: JournalFile, error: OSError) -> bool:
        self.status.errors += 1
        if self.status.healthy:
            self.status.healthy = False
            log.error("cannot write the journal %s: %s; records wait in memory", file.path, error.strerror)
        self.tell()
        self._retry_later(RETRY_S)
        return False

    def _works_again(self) -> None:
        self.status.healthy = True
        log.warning("the journal can be written again; %d records lost so far", self.status.lost)
        self.tell()

    def _retry_later(self, delay_s: float) -> None:
        """Try again by a timer: for lines that wait, and for a readiness probe that keeps traffic away meanwhile."""
        if self._retrying or self.closed:
            return
        try:
            asyncio.get_running_loop().call_later(delay_s, self._retry)
            self._retrying = True
        except RuntimeError:  # no loop: the next call tries
            return

    def _retry(self) -> None:
        self._retrying = False
        if self.closed:
            return
        if self.waiting:
            self.flush()
        elif not self.status.healthy:
            self._probe(self._current())
        self.tell()

    def _probe(self, file: JournalFile) -> None:
        if file.fd < 0 and not self.revive(file):
            return
        try:
            file.probe()
        except OSError as error:
            self._failed(file, error)
        else:
            self._works_again()
