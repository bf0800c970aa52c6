"""A small list in a JSON file of the data directory, such as keys and budgets: a process replaces it, others follow it.

A worker needs no Redis to know it, and a Redis that lost its data loses none of it. Blocking (a small file): call in a
thread what writes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

import msgspec

from taximeter.core.errors import DataDirError
from taximeter.node.replacing import replace_file

log = logging.getLogger(__name__)

Item = TypeVar("Item")
View = TypeVar("View")


class StoredList(Generic[Item, View]):
    """All items of `<data_dir>/<name>.json` (`{"<name>": […], "schema": 1}`), those ended too."""

    def __init__(
        self,
        data_dir: Path,
        name: str,
        kind: type[Item],
        *,
        merge: Callable[[Iterable[Item], Iterable[Item]], list[Item]],
        view: Callable[[list[Item]], View],
        is_sound: Callable[[Item], bool],
    ) -> None:
        """`merge`: of two copies; `view`: the items as they are looked up; `is_sound`: whether another node may have
        made an item. Raises DataDirError when the file is there and cannot be read."""
        self.path = data_dir / f"{name}.json"
        self.name = name
        self.kind = kind
        self.is_sound = is_sound
        self._merge = merge
        self._view = view
        stored: Any = msgspec.defstruct("Stored", [(name, list[kind], []), ("schema", int, 1)])  # type: ignore[valid-type]
        self._decode = msgspec.json.Decoder(stored).decode
        self._seen: tuple[int, int, int] | None = None
        self._lock = Lock()
        self._read()

    def changed(self) -> bool:
        """Whether the file is another than the one last read. One `stat`."""
        return self._stamp() != self._seen

    def in_force(self) -> View:
        """The items that hold now, for look-ups. One `stat` a call."""
        self.stored()
        return self._in_force

    def stored(self) -> list[Item]:
        """All items of the file; of one that got broken, those known so far."""
        if self.changed():
            with self._lock:
                try:
                    self._read()
                except DataDirError as error:
                    log.error("%s", error)
        return self._stored

    def absorb(self, others: Iterable[Item]) -> list[Item]:
        """Take in another copy's items; returns the stored ones of both. Writes only where there is something new.

        Raises DataDirError.
        """
        with self._lock:
            stored = self._load()
            merged = self._merge(stored, others)
            if merged != stored:
                self._save(merged)
            self._read()
            return merged

    def _read(self) -> None:
        self._stored = self._load()
        self._in_force = self._view(self._stored)

    def _load(self) -> list[Item]:
        try:
            self._seen = self._stamp()
            found: list[Item] = getattr(self._decode(self.path.read_bytes()), self.name)
            return found
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            raise DataDirError(f"{self.path}: cannot be read: {error}") from error

    def _save(self, items: list[Item]) -> None:
        """Replace the file (mode 0600), durable before it returns."""
        body = msgspec.json.format(msgspec.json.encode({self.name: items, "schema": 1}), indent=1)
        replace_file(self.path, body)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size
