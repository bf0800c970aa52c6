"""Lines written in batches: all of one turn of the event loop are one `write`; under load one for a dozen calls.

Whatever may leave only after a line was written goes through `after_written`. Not for who must know at once that a line
is on disk (`journal.on_error = "refuse"`, `journal.fsync = "always"`): that is `LineWriter` itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from taximeter.core.record import Record
from taximeter.journal.durable import Syncer
from taximeter.journal.file import JournalFile
from taximeter.journal.format import CLOSE, close_line
from taximeter.journal.lines import LineWriter

log = logging.getLogger(__name__)


class BatchedWriter:
    """Gathers lines before a `LineWriter`. Needs a running event loop; `open` and `close` never raise."""

    def __init__(self, lines: LineWriter, sync: Syncer) -> None:
        self._lines = lines
        self._sync = sync
        self._waiting, self._status = lines.waiting, lines.status
        self._file: JournalFile | None = None
        """Whose lines are gathered; those of another one are written first, which only happens where files change."""
        self._gathered: list[bytes] = []
        """Lines of this turn, in their order."""
        self._records: list[Record] = []
        """Of each line, its record: to be numbered again where the line cannot be written."""
        self._after: list[tuple[Callable[[bytes], None], bytes]] = []
        """What waits for them."""

    def open(self, file: JournalFile, line: bytes, opening: Record) -> None:
        """Have a call's open line written at the end of the turn."""
        if self._waiting.concerned:
            self.write()
            self._lines.open(file, line, opening)
        else:
            self._gather(file, line, opening)

    def close(self, file: JournalFile, record: Record) -> None:
        """Number a record, and have its close line written at the end of the turn."""
        if self._waiting.concerned or self._lines.closed:
            self.write()
            self._lines.close(file, record)
            return
        file.seq += 1
        record.event_id = f"{file.event_prefix}{file.seq}"
        self._gather(file, close_line(record), record)

    def after_written(self, act: Callable[[bytes], None], data: bytes) -> None:
        """See `Journal.after_written`: that is at the end of this turn."""
        if self._gathered or self._after:
            self._after.append((act, data))
        else:
            act(data)

    def write(self) -> None:
        """Write what is gathered; where that fails, each line by itself."""
        file, gathered = self._file, self._gathered
        if file is None or not gathered:
            return
        records, self._gathered, self._records = self._records, [], []
        lines = gathered[0] if len(gathered) == 1 else b"".join(gathered)
        if self._sync.idle or not self._status.healthy:
            written = self._lines.put(file, lines)
        else:
            try:
                written = file.write(lines)
            except OSError:  # the file is as it was: once more, by who knows what is to be done
                written = self._lines.put(file, lines)
        if not written:
            self._write_singly(file, gathered, records)

    def end_turn(self) -> None:
        """Write what is gathered, then do what waits for it."""
        self.write()
        after, self._after = self._after, []
        for act, data in after:
            try:
                act(data)
            except Exception:  # one connection's trouble is not another's
                log.exception("what waited for the journal failed")

    def _gather(self, file: JournalFile, line: bytes, record: Record) -> None:
        if file is not self._file:
            self.write()
            self._file = file
        if not self._gathered and not self._after:
            asyncio.get_running_loop().call_soon(self.end_turn)
        self._gathered.append(line)
        self._records.append(record)

    def _write_singly(self, file: JournalFile, lines: list[bytes], records: list[Record]) -> None:
        """What cannot be kept must leave no gap in the numbers, so records are numbered again."""
        file.seq -= sum(line.startswith(CLOSE) for line in lines)
        for line, record in zip(lines, records, strict=True):
            if line.startswith(CLOSE):
                self._lines.close(file, record)
            else:
                self._lines.open(file, line, record)
