"""The journal's writer: one per process, one `write` a line, no wait beyond it (DESIGN §4).

Trouble with the disk never reaches a request unless `journal.on_error = "refuse"`: lines wait in memory, in order,
and what does not fit is counted. Knows nothing of readers and sinks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from taximeter.config import JournalSettings
from taximeter.core.errors import JournalError
from taximeter.core.record import End, Line, Open, Record, Tick
from taximeter.journal.durable import Round, Syncer
from taximeter.journal.file import JournalFile, Whereabouts
from taximeter.journal.format import close_line, encode, open_line
from taximeter.journal.status import StatusFile
from taximeter.journal.waiting import Waiting

log = logging.getLogger(__name__)

ATTEND_S = 1.0
"""How often the files of an idle writer are looked after."""
RETRY_S = 0.1
"""How often a journal that cannot be written is tried again while no call does so by itself."""

_FLUSH_LINES = 256
"""Waiting lines written in one go when writing works again: half a millisecond of the loop."""


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
    ) -> None:
        """Begins a first file; where the disk refuses that, calls wait in memory as for any later trouble.

        Raises JournalError when `directory` cannot be made.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"cannot make the journal's directory {directory}: {error.strerror}") from error
        self.errors = 0
        """Writes, truncations and syncs that failed."""
        self.lost = 0
        """Calls of which no line could be kept."""
        self.repaired = 0
        """Files that somebody took away, replaced or cut while they were being written."""
        self._endangered = False
        self.healthy = True
        """False from the first failed write on until one works and nothing waits any more."""
        self._directory = directory
        self._node, self._worker = node, worker
        self._now_us = now_us
        self._refuses = settings.on_error == "refuse"
        self._roll_bytes = self._file_bytes = settings.roll_bytes
        self._waiting = Waiting(settings.buffer_records)
        self._status = StatusFile(directory, node=node, worker=worker)
        self._sync = Syncer(settings.fsync, settings.fsync_interval_ms / 1000, self._collect, self._sync_failed)
        self._created = False
        """A file was created since the last sync round."""
        self._retrying = self._closed = False
        self._file = JournalFile(directory)
        self._files = [self._file]
        """The current file and older ones with calls still open."""
        self._create(self._file)

    def open(self, opening: Open) -> JournalFile:
        """Write a call down before it is sent; answers the file it has to be closed in.

        Raises JournalError where `on_error` is "refuse" and the line could not be written; and after `shutdown`, since
        no line of this call would ever be.
        """
        if self._closed:
            raise JournalError(f"the journal in {self._directory} has been shut down: this process ends")
        file = self._file
        if file.size >= self._roll_bytes:
            file = self._roll()
        self._open(file, open_line(opening), opening)
        file.calls += 1
        return file

    def tick(self, file: JournalFile, tick: Tick) -> bool:
        """Write a call's progress down; dropped, and False, where that does not work at once."""
        return not self._waiting.concerned and self._put(file, encode(Line(tick=tick)))

    def close(self, file: JournalFile, record: Record) -> None:
        """Write the settled call down in the file it was opened in; sets `record.event_id`. Never raises.

        `event_id` stays "" where the call is lost.
        """
        self._close(file, record)
        self._call_ended(file)

    def then(self, act: Callable[[bytes], None], data: bytes) -> None:
        """Do `act(data)` when every line of before is in its file, in the order asked for: here, that is at once."""
        act(data)

    def append(self, record: Record) -> None:
        """Write a record down that no call opened (a correction); sets `record.event_id`.

        Raises JournalError where it cannot be written now: nobody waits for an answer, so nothing is put off.
        """
        file = self._file
        if file.size >= self._roll_bytes:
            file = self._roll()
        record.event_id = f"{file.event_prefix}{file.seq + 1}"
        if self._waiting or not self._put(file, close_line(record)):
            record.event_id = ""
            raise JournalError(f"cannot write the journal {file.path}")
        file.seq += 1

    async def durable(self) -> None:
        """Wait until every line written before this call is on stable storage, together with whoever else waits.

        For `fsync = "always"`: after `open`, and after `close`. Raises JournalError where the disk refused and
        `on_error` is "refuse".
        """
        error = await self._sync.durable()
        if error is not None and self._refuses:
            raise JournalError(f"cannot sync the journal in {self._directory}: {error.strerror}") from error

    def shutdown(self) -> None:
        """End the files, sync them and release their locks. A file with calls still open is left to recovery."""
        if self._closed:
            return
        self._flush(len(self._waiting))
        self._closed = True
        for file in self._files:
            if file.calls or file.waiting:
                self._look_after(file)
                log.warning("journal %s is left to recovery with %d open calls", file.path.name, file.calls)
                self._release(file)
            else:
                self._end(file)
        self._files.clear()
        self._sync.close()
        self.lost += self._waiting.unsaved
        self._waiting.clear()
        self._tell()
        self._status.release()

    def _open(self, file: JournalFile, line: bytes, opening: Open) -> None:
        if self._put(file, line):
            return
        if self._refuses:
            raise JournalError(f"cannot write the journal {file.path}")
        self._waiting.add_open((opening.request_id, opening.attempt), file, line)
        self._tell()

    def _close(self, file: JournalFile, record: Record) -> None:
        record.event_id = f"{file.event_prefix}{file.seq + 1}"
        line = close_line(record)
        if self._waiting.concerned:
            kept = self._close_in_turn(file, record, line)
        else:
            kept = self._put(file, line) or self._keep(file, record, line)
        if kept:
            file.seq += 1
        else:
            record.event_id = ""

    def _call_ended(self, file: JournalFile) -> None:
        file.calls -= 1
        if file.calls == 0 and file is not self._file:
            self._end_idle()

    def _put(self, file: JournalFile, line: bytes) -> bool:
        """Write one line whole (or several), or leave the file as it was and answer False."""
        try:
            file.write(line)
        except OSError as error:
            return self._put_again(file, line, error)
        if self._sync.idle:
            self._sync.wrote()
        if not self.healthy and not self._waiting:
            self._works_again()
        return True

    def _put_again(self, file: JournalFile, line: bytes, error: OSError) -> bool:
        """After a failed write: if only the file was missing or torn, make it whole and write."""
        if file.fd >= 0 or self._closed:
            return self._failed(file, error)
        return self._revive(file) and self._put(file, line)

    def _revive(self, file: JournalFile) -> bool:
        if not file.created:
            return self._create(file)
        try:
            file.repair()
        except OSError as error:
            return self._failed(file, error)
        return True

    def _create(self, file: JournalFile) -> bool:
        try:
            file.create(node=self._node, worker=self._worker, now_us=self._now_us())
        except OSError as error:
            return self._failed(file, error)
        self._created = True
        return True

    def _roll(self) -> JournalFile:
        """Begin a new file; the old one lives on until its calls are closed. Where that fails the old one goes on."""
        old, new = self._file, JournalFile(self._directory)
        if not self._create(new):
            self._roll_bytes = old.size + self._file_bytes  # ask again only then, not at every call
            return old
        self._roll_bytes = self._file_bytes
        self._files.append(new)
        self._file = new
        self._end_idle()
        return new

    def _end_idle(self) -> None:
        """End every old file that has neither open calls nor waiting lines."""
        for file in [f for f in self._files if f is not self._file and not f.calls and not f.waiting]:
            self._files.remove(file)
            self._end(file)

    def _end(self, file: JournalFile) -> None:
        """Write the end line (where that fails, recovery will) and let go of the file."""
        self._look_after(file)
        if file.fd >= 0:
            self._put(file, encode(Line(end=End(seq=file.seq, at=self._now_us()))))
        self._release(file)

    def _release(self, file: JournalFile) -> None:
        fd = file.detach()
        if fd >= 0:
            self._sync.retire(fd)

    def _close_in_turn(self, file: JournalFile, record: Record, line: bytes) -> bool:
        """Let a close line take its turn behind those that wait. False: the call is lost."""
        works = self._flush()
        kept = self._keep(file, record, line)
        if works:
            self._flush()
        return kept

    def _keep(self, file: JournalFile, record: Record, line: bytes) -> bool:
        """Keep a close line in memory. False: there was no room, the call is lost and counted."""
        if self._closed:
            log.warning("call %s closed after the journal was shut down; recovery settles it", record.request_id)
            return False
        kept = self._waiting.add_close((record.request_id, record.attempt), file, line)
        self.lost += not kept
        self._tell()
        return kept

    def _flush(self, most: int = _FLUSH_LINES) -> bool:
        """Write lines that wait, oldest first; False at the first that fails."""
        if not self._waiting:
            return True
        for key, entry in self._waiting.first(most):
            if not self._put(entry.file, entry.line):
                return False
            self._waiting.done(key)
        if self._waiting:
            self._retry_later(0)
        elif not self.healthy:
            self._works_again()
        self._end_idle()
        self._tell()
        return True

    def _failed(self, file: JournalFile, error: OSError) -> bool:
        self.errors += 1
        if self.healthy:
            self.healthy = False
            log.error("cannot write the journal %s: %s; records wait in memory", file.path, error.strerror)
        self._tell()
        self._retry_later(RETRY_S)
        return False

    def _works_again(self) -> None:
        self.healthy = True
        log.warning("the journal can be written again; %d records lost so far", self.lost)
        self._tell()

    def _retry_later(self, delay_s: float) -> None:
        """Try again by a timer: for lines that wait, and for a readiness probe that keeps traffic away meanwhile."""
        if self._retrying or self._closed:
            return
        try:
            asyncio.get_running_loop().call_later(delay_s, self._retry)
            self._retrying = True
        except RuntimeError:  # no loop: the next call tries
            return

    def _retry(self) -> None:
        self._retrying = False
        if self._closed:
            return
        if self._waiting:
            self._flush()
        elif not self.healthy:
            self._probe(self._file)
        self._tell()

    def _probe(self, file: JournalFile) -> None:
        if file.fd < 0 and not self._revive(file):
            return
        try:
            file.probe()
        except OSError as error:
            self._failed(file, error)
        else:
            self._works_again()

    def _tell(self) -> None:
        """Bring the status file up to date."""
        status = self._status.status
        status.errors, status.lost, status.healthy = self.errors, self.lost, self.healthy
        status.unsaved, status.repaired = self._waiting.unsaved, self.repaired
        self._status.tell()

    def _look_after(self, file: JournalFile) -> None:
        """Keep what somebody took from under us: a file removed, moved or replaced is put back as it was, under its own
        name, so that no sink counts twice; one that was cut is ended, and another goes on. Both are alarmed."""
        try:
            state = file.whereabouts()
            if state is Whereabouts.SOUND or (state is Whereabouts.CUT and file.waiting):
                return
            path, size, seq = file.path, file.size, file.seq
            if state is Whereabouts.LOST:
                self._sync.retire(file.put_back())
                log.error("journal %s was taken away while it was being written; it is put back, whole", path)
            else:
                self._directory.mkdir(parents=True, exist_ok=True)
                self._sync.retire(file.begin_anew(node=self._node, worker=self._worker, now_us=self._now_us()))
                log.error(
                    "journal %s was cut by somebody below its %d bytes and %d records: what no sink had read of them is"
                    " lost; calls go on in %s", path, size, seq, file.path,
                )  # fmt: skip
        except OSError as error:
            self.errors += 1
            if not self._endangered:
                log.error("journal %s was taken away and cannot be put back yet: %s", file.path, error.strerror)
            self._endangered = True
        else:
            self._endangered = False
            self._created = True
            self.repaired += 1
        self._tell()

    async def attend(self) -> None:
        """Look after the files while no call does, until it is cancelled: what was taken from an idle writer is put
        back, too, or it would count as gone."""
        while not self._closed:
            await asyncio.sleep(ATTEND_S)
            self._sync.look()

    def _collect(self) -> Round:
        """What the next sync round has to cover."""
        for file in self._files:
            self._look_after(file)
        self._status.stay()
        fds = [file.fd for file in self._files if file.dirty and file.fd >= 0]
        for file in self._files:
            file.dirty = False
        directory = self._directory if self._created else None
        self._created = False
        return fds, directory

    def _sync_failed(self, error: OSError) -> None:
        self.errors += 1
        log.error("cannot sync the journal in %s: %s", self._directory, error.strerror)
        self._tell()
