"""Lines that wait in memory while the journal cannot be written: bounded, in order, and counted when they don't fit.

The rule: a call with a line on disk always has a place for its close line (so this holds at most the bound plus the
calls in flight); a call none of whose lines is on disk has one while there is room. What is lost is thus exactly the
calls of which no line exists at all.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from taximeter.journal.file import JournalFile

Call = tuple[str, int]
"""request_id and attempt."""


class Entry(NamedTuple):
    """A line, and the file it waits for."""

    file: JournalFile
    line: bytes
    saved: bool
    """The call has a line on disk already."""


class Waiting:
    """An ordered buffer of open and close lines, at most one a call."""

    def __init__(self, bound: int) -> None:
        self.concerned = False
        """True while any line waits or an open call has no line: closing has to go through `add_close`."""
        self._unsaved = 0
        self._bound = bound
        self._entries: dict[tuple[Call, bool], Entry] = {}
        self._turned_away: set[Call] = set()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def unsaved(self) -> int:
        """Calls none of whose lines is on disk: lost, were the process to die now."""
        return self._unsaved + len(self._turned_away)

    def add_open(self, call: Call, file: JournalFile, line: bytes) -> None:
        """Keep the open line of a call if there is room; else remember that this call has no line."""
        if len(self._entries) >= self._bound:
            self._turned_away.add(call)
            self.concerned = True
        else:
            self._add((call, False), Entry(file, line, False))

    def add_close(self, call: Call, file: JournalFile, line: bytes) -> bool:
        """Keep a close line, in place of its open line where that still waits. False: no room, the call is lost."""
        opened = self._entries.get((call, False))
        if opened is not None:
            self.done((call, False))
        homeless = call in self._turned_away
        self._turned_away.discard(call)
        if homeless and len(self._entries) >= self._bound:
            self.concerned = bool(self._entries or self._turned_away)
            return False
        self._add((call, True), Entry(file, line, saved=opened is None and not homeless))
        return True

    def first(self, most: int) -> list[tuple[tuple[Call, bool], Entry]]:
        """The oldest entries, in the order in which they have to be written."""
        return list(islice(self._entries.items(), most))

    def done(self, key: tuple[Call, bool]) -> None:
        """An entry was written or is superseded."""
        entry = self._entries.pop(key)
        entry.file.waiting -= 1
        self._unsaved -= not entry.saved
        self.concerned = bool(self._entries or self._turned_away)

    def clear(self) -> None:
        """Forget everything: the process ends, and what was unsaved is lost."""
        for entry in self._entries.values():
            entry.file.waiting -= 1
        self._entries.clear()
        self._turned_away.clear()
        self._unsaved, self.concerned = 0, False

    def _add(self, key: tuple[Call, bool], entry: Entry) -> None:
        self._entries[key] = entry
        self.concerned = True
        entry.file.waiting += 1
        self._unsaved += not entry.saved
