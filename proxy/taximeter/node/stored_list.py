"""What keys and budgets have in common: a stored file's items as this node holds them, merged with other copies.

Blocking (a small file): call it in a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Generic, TypeVar

from taximeter.core.errors import DataDirError
from taximeter.node.stored_file import StoredFile

log = logging.getLogger(__name__)

Item = TypeVar("Item")
View = TypeVar("View")


class StoredRing(Generic[Item, View]):
    """All items of one file, those ended too. Other processes may change the file; `current` sees that at once."""

    def __init__(
        self,
        file: StoredFile[Item],
        *,
        merge: Callable[[Iterable[Item], Iterable[Item]], list[Item]],
        view: Callable[[list[Item]], View],
    ) -> None:
        """`merge`: of two copies; `view`: the items as they are looked up. Raises DataDirError on a bad file."""
        self._file = file
        self._merge = merge
        self._view = view
        self._lock = Lock()
        self._read()

    def current(self) -> View:
        """The items in force now, for look-ups. One `stat` a call."""
        if self._file.changed():
            with self._lock:
                try:
                    self._read()
                except DataDirError as error:  # those known so far stay in force
                    log.error("%s", error)
        return self._in_force

    def stored(self) -> list[Item]:
        """All items of the file."""
        self.current()
        return self._stored

    def absorb(self, others: Iterable[Item]) -> list[Item]:
        """Take in another copy's items; the stored ones of both. Writes only where there is something new."""
        with self._lock:
            stored = self._file.load()
            merged = self._merge(stored, others)
            if merged != stored:
                self._file.save(merged)
            self._read()
            return merged

    def _read(self) -> None:
        self._stored = self._file.load()
        self._in_force = self._view(self._stored)
