"""The journal's writer: one per process, one `write` a line or a batch, no wait beyond it (DESIGN §4).

Trouble with the disk never reaches a request unless `journal.on_error = "refuse"`: lines wait in memory (`lines`).
Knows nothing of readers and sinks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from taximeter.config import JournalSettings
from taximeter.core.errors import JournalError
from taximeter.core.lines import Line, Tick
from taximeter.core.record import Open, Record
from taximeter.journal.batched import BatchedWriter
from taximeter.journal.durable import Round, Syncer
from taximeter.journal.file import JournalFile
from taximeter.journal.files import make_directory
from taximeter.journal.format import close_line, encode, open_line
from taximeter.journal.lines import LineWriter
from taximeter.journal.machine import Identity, boot_id
from taximeter.journal.open_files import OpenFiles
from taximeter.journal.status import StatusFile

log = logging.getLogger(__name__)

ATTEND_S = 1.0
"""How often the files of an idle writer are looked after."""


class Journal:
    """Appends lines to `<directory>/<journal_id>.jsonl`. Not thread-safe; every method but `durable` is synchronous.

    It can be used without a running event loop; then lines are synced only at `shutdown`, and only calls retry.
    """

    def __init__(
        self,
        directory: Path,
        *,
        node: str,
        worker: str,
        settings: JournalSettings,
        now_us: Callable[[], int],
        batched: bool = False,
    ) -> None:
        """Begins a first file; where the disk refuses that, calls wait in memory as for any later trouble.

        `batched`: all lines of one turn of the event loop, which must be running, are one `write`; not where the
        settings want it known at once that a line is on disk. Raises JournalError when `directory` cannot be made.
        """
        try:
            make_directory(directory)
        except OSError as error:
            raise JournalError(f"cannot make the journal's directory {directory}: {error.strerror}") from error
        told = StatusFile(directory, node=node, worker=worker)
        self.status = told.status
        """What it tells other processes."""
        self._directory = directory
        self._refuses = settings.on_error == "refuse"
        self._told = told
        self._sync = Syncer(settings.fsync, settings.fsync_interval_ms / 1000, self._collect, self._sync_failed)
        self._lines = LineWriter(settings, told, self._sync, current=lambda: self._files.current, flushed=self._flushed)
        at_once = self._refuses or settings.fsync == "always"
        self._writer = BatchedWriter(self._lines, self._sync) if batched and not at_once else self._lines
        self.after_written: Callable[[Callable[[bytes], None], bytes], None] = self._writer.after_written
        """`after_written(act, data)`: do `act(data)` when every line of before is in its file, in the order asked for:
        at once, or at the end of the turn."""
        identity = Identity(directory, node, worker, now_us, boot_id())
        self._files = OpenFiles(identity, self._sync, self._lines, self._writer, settings.roll_bytes)

    def open(self, opening: Open) -> JournalFile:
        """Write a call down before it is sent; returns the file it has to be closed in.

        Raises JournalError where `on_error` is "refuse" and the line could not be written; and after `shutdown`, since
        no line of this call would ever be.
        """
        if self._lines.closed:
            raise JournalError(f"the journal in {self._directory} has been shut down: this process ends")
        file = self._files.current
        if file.size >= self._files.roll_at:
            file = self._files.roll()
        self._writer.open(file, open_line(opening), opening)
        file.calls += 1
        return file

    def tick(self, file: JournalFile, tick: Tick) -> bool:
        """Write a call's progress down at once; dropped, and False, where that does not work."""
        self._writer.write()
        return not self._lines.waiting.concerned and self._lines.put(file, encode(Line(tick=tick)))

    def close(self, file: JournalFile, record: Record) -> None:
        """Write the settled call down where it was opened; sets `record.event_id` ("": it is lost). Never raises."""
        self._writer.close(file, record)
        file.calls -= 1
        if file.calls == 0 and file is not self._files.current:
            self._files.end_idle()

    def add(self, record: Record) -> None:
        """As `close`, of a record that no call opened; its request id must be its own."""
        self._writer.close(self._files.current, record)

    def append(self, record: Record) -> None:
        """Write a record down that no call opened (a correction); sets `record.event_id`.

        Raises JournalError where it cannot be written now: nobody waits for an answer, so nothing is put off.
        """
        self._writer.write()
        file = self._files.current
        if file.size >= self._files.roll_at:
            file = self._files.roll()
        record.event_id = f"{file.event_prefix}{file.seq + 1}"
        if self._lines.waiting or not self._lines.put(file, close_line(record)):
            record.event_id = ""
            raise JournalError(f"cannot write the journal {file.path}")
        file.seq += 1

    async def durable(self) -> None:
        """Wait until every line written before this call is on stable storage, together with whoever else waits.

        For `fsync = "always"`: after `open`, and after `close`. Raises JournalError where the disk refused and
        `on_error` is "refuse".
        """
        self._writer.write()
        error = await self._sync.durable()
        if error is not None and self._refuses:
            raise JournalError(f"cannot sync the journal in {self._directory}: {error.strerror}") from error

    def is_whole(self) -> bool:
        """Whether nothing is in this process's hands alone: no line that waits, no file that others do not find."""
        self._writer.end_turn()
        return self._files.look_after() and not self._lines.waiting

    def shutdown(self) -> None:
        """End the files, sync them and release their locks. A file with calls still open is left to recovery."""
        if self._lines.closed:
            return
        self._writer.end_turn()
        self._lines.flush(len(self._lines.waiting))
        self._lines.closed = True
        self._files.shutdown()
        self._sync.close()
        self._lines.shutdown()

    async def attend(self) -> None:
        """Look after the files while no call does, until it is cancelled: what was taken from an idle writer is put
        back, too, or it would count as gone."""
        while not self._lines.closed:
            await asyncio.sleep(ATTEND_S)
            self._sync.look()
            self._told.tell()

    def _flushed(self) -> None:
        self._files.end_idle()

    def _collect(self) -> Round:
        found = self._files.collect()
        self._told.stay()
        return found

    def _sync_failed(self, error: OSError) -> None:
        self.status.errors += 1
        log.error("cannot sync the journal in %s: %s", self._directory, error.strerror)
        self._lines.tell()
