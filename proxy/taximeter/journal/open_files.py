"""The files one writer has open: the current one, and older ones until their calls are closed. Rolled, ended, put back
where somebody took one away, and collected for syncing.
"""

from __future__ import annotations

import logging

from taximeter.core.lines import End, Line
from taximeter.journal.batched import BatchedWriter
from taximeter.journal.durable import Round, Syncer
from taximeter.journal.file import JournalFile
from taximeter.journal.format import encode
from taximeter.journal.lines import LineWriter
from taximeter.journal.machine import Identity
from taximeter.journal.taken import Whereabouts, begin_anew, put_back, whereabouts

log = logging.getLogger(__name__)


class OpenFiles:
    """Files of one directory. The first is begun at once; where the disk refuses that, when it is first written."""

    def __init__(
        self, identity: Identity, sync: Syncer, lines: LineWriter, writer: LineWriter | BatchedWriter, roll_bytes: int
    ) -> None:
        """`writer` may hold lines back that are numbered already; `lines` writes at once."""
        self.current = JournalFile(identity)
        self.roll_at = self._roll_bytes = roll_bytes
        """The size at which another file is begun (`roll`)."""
        self._identity = identity
        self._sync, self._lines, self._writer = sync, lines, writer
        self.all = [self.current]
        self._renamed = self._endangered = False
        """The directory changed since the last sync round; a file that was taken away could not be put back."""
        lines.revive(self.current)

    def roll(self) -> JournalFile:
        """Begin a new file; the old one lives on until its calls are closed. Where that fails the old one goes on."""
        old, new = self.current, JournalFile(self._identity)
        if not self._lines.revive(new):
            self.roll_at = old.size + self._roll_bytes  # ask again only then, not at every call
            return old
        self.roll_at = self._roll_bytes
        self.all.append(new)
        self.current = new
        self.end_idle()
        return new

    def end_idle(self) -> None:
        """End every old file that has neither open calls nor waiting lines.

        One that was taken away and cannot be put back now stays open: its lines are in nobody else's hands.
        """
        self._writer.write()
        for file in [f for f in self.all if f is not self.current and not f.calls and not f.waiting]:
            if self._look_after(file):
                self.all.remove(file)
                self._end(file)

    def look_after(self) -> bool:
        """Put back what was taken away; False where one cannot be now."""
        return not [file for file in self.all if not self._look_after(file)]

    def shutdown(self) -> None:
        """End every file, and release its lock. One with calls still open is left to recovery."""
        self.look_after()
        for file in self.all:
            if file.calls or file.waiting:
                log.warning("journal %s is left to recovery with %d open calls", file.path.name, file.calls)
                self._release(file)
            else:
                self._end(file)
        self.all.clear()

    def collect(self) -> Round:
        """What the next sync round has to cover."""
        self._writer.write()  # numbered in the file as it is
        self.look_after()
        if len(self.all) > 1:  # one that could not be ended, as it was taken away, may be put back now
            self.end_idle()
        fds = [file.fd for file in self.all if file.dirty and file.fd >= 0]
        directory = self._identity.directory if self._renamed or any(file.new for file in self.all) else None
        for file in self.all:
            file.dirty = file.new = False
        self._renamed = False
        return fds, directory

    def _end(self, file: JournalFile) -> None:
        """Write the end line (where that fails, recovery will) and let go of the file."""
        if file.fd >= 0:
            self._lines.put(file, encode(Line(end=End(seq=file.seq, at=self._identity.now_us()))))
        self._release(file)

    def _release(self, file: JournalFile) -> None:
        self._renamed |= file.new
        fd = file.detach()
        if fd >= 0:
            self._sync.retire(fd)

    def _look_after(self, file: JournalFile) -> bool:
        """Keep what somebody took from under us: a file removed, moved or replaced is put back as it was, under its own
        name, so that no sink counts twice; one that was cut is ended, and another goes on. Both are alarmed.

        False: it is taken away still, and cannot be put back now.
        """
        status = self._lines.status
        try:
            state = whereabouts(file)
            if state is Whereabouts.SOUND or (state is Whereabouts.CUT and file.waiting):
                return True
            path, size, seq = file.path, file.size, file.seq
            if state is Whereabouts.LOST:
                self._sync.retire(put_back(file))
                log.error("journal %s was taken away while it was being written; it is put back, whole", path)
            else:
                self._sync.retire(begin_anew(file))
                log.error(
                    "journal %s was cut by somebody below its %d bytes and %d records: what no sink had read of them is"
                    " lost; calls go on in %s", path, size, seq, file.path,
                )  # fmt: skip
        except OSError as error:
            status.errors += 1
            if not self._endangered:
                log.error("journal %s was taken away and cannot be put back yet: %s", file.path, error.strerror)
            self._endangered = True
        else:
            self._endangered = False
            status.repaired += 1
        self._lines.tell()
        return not self._endangered
