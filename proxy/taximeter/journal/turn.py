"""A writer for event loops: all lines of one turn of the loop are one `write`; under load one for a dozen calls.

Whatever may leave only after a line was written goes through `then`. Not for who must know at once that a line is on
disk (`journal.on_error = "refuse"`, `journal.fsync = "always"`): that is `Journal` itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from taximeter.config import JournalSettings
from taximeter.core.record import Open, Record, Tick
from taximeter.journal.durable import Round
from taximeter.journal.file import JournalFile
from taximeter.journal.format import close_line, open_line
from taximeter.journal.write import Journal

log = logging.getLogger(__name__)


class _Gathered(NamedTuple):
    file: JournalFile
    line: bytes
    item: Open | Record


class TurnJournal(Journal):
    """A `Journal` that writes at the end of the turn. Needs a running event loop; until `shutdown`, `open` and `close`
    never raise."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._gathered: list[_Gathered] = []
        """Lines of this turn, in their order."""
        self._after: list[tuple[Callable[[bytes], None], bytes]] = []
        """What waits for them."""
        super().__init__(*args, **kwargs)

    def open(self, opening: Open) -> JournalFile:
        if self._waiting.concerned or self._closed:
            self._write_gathered()
            return super().open(opening)
        file = self._file
        if file.size >= self._roll_bytes:
            file = self._roll()
        self._gather(file, open_line(opening), opening)
        file.calls += 1
        return file

    def tick(self, file: JournalFile, tick: Tick) -> bool:
        self._write_gathered()
        return super().tick(file, tick)

    def close(self, file: JournalFile, record: Record) -> None:
        if self._waiting.concerned or self._closed:
            self._write_gathered()
            super().close(file, record)
            return
        file.seq += 1
        record.event_id = f"{file.event_prefix}{file.seq}"
        self._gather(file, close_line(record), record)
        self._call_ended(file)

    def then(self, act: Callable[[bytes], None], data: bytes) -> None:
        """Do `act(data)` when every line of before is in its file, in the order asked for: at the end of this turn."""
        if self._gathered or self._after:
            self._after.append((act, data))
        else:
            act(data)

    async def durable(self) -> None:
        self._write_gathered()
        await super().durable()

    def append(self, record: Record) -> None:
        self._write_gathered()
        super().append(record)

    def shutdown(self) -> None:
        self._end_turn()
        super().shutdown()

    def _gather(self, file: JournalFile, line: bytes, item: Open | Record) -> None:
        if not self._gathered and not self._after:
            asyncio.get_running_loop().call_soon(self._end_turn)
        self._gathered.append(_Gathered(file, line, item))

    def _end_turn(self) -> None:
        self._write_gathered()
        after, self._after = self._after, []
        for act, data in after:
            try:
                act(data)
            except Exception:  # one connection's trouble is not another's
                log.exception("what waited for the journal failed")

    def _write_gathered(self) -> None:
        """Write the lines, file by file; where that fails, each by itself, as `Journal` does."""
        while self._gathered:
            file = self._gathered[0].file
            here = [one for one in self._gathered if one.file is file]
            self._gathered = [one for one in self._gathered if one.file is not file]
            if not self._put(file, b"".join([one.line for one in here])):
                self._write_singly(file, here)

    def _write_singly(self, file: JournalFile, gathered: list[_Gathered]) -> None:
        """What cannot be kept must leave no gap in the numbers, so records are numbered again."""
        file.seq -= sum(isinstance(one.item, Record) for one in gathered)
        for one in gathered:
            if isinstance(one.item, Record):
                self._close(file, one.item)
            else:
                self._open(file, one.line, one.item)

    def _end_idle(self) -> None:
        self._write_gathered()
        super()._end_idle()

    def _collect(self) -> Round:
        self._write_gathered()  # numbered in the file as it is
        return super()._collect()


def writer_for(settings: JournalSettings) -> type[Journal]:
    """The writer for a worker with these settings."""
    must_know = settings.on_error == "refuse" or settings.fsync == "always"
    return Journal if must_know else TurnJournal
