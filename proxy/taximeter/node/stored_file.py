"""A small list in a JSON file of the data directory, replaced atomically: written by one process, watched by others."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from taximeter.core.errors import DataDirError

T = TypeVar("T")


class StoredFile(Generic[T]):
    """The file, and what it held when last read: `{"<name>": […], "schema": 1}` in `<data_dir>/<name>.json`."""

    def __init__(self, data_dir: Path, name: str, kind: type[T], words: str) -> None:
        """`words`: what the items are called in messages."""
        self.path = data_dir / f"{name}.json"
        self._name = name
        self._words = words
        stored: Any = msgspec.defstruct("Stored", [(name, list[kind], []), ("schema", int, 1)])  # type: ignore[valid-type]
        self._decode = msgspec.json.Decoder(stored).decode
        self._seen: tuple[int, int, int] | None = None

    def load(self) -> list[T]:
        """All stored items; none where there is no file. Raises DataDirError on one not readable."""
        try:
            self._seen = self._stamp()
            found: list[T] = getattr(self._decode(self.path.read_bytes()), self._name)
            return found
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            raise DataDirError(f"{self.path}: cannot read the {self._words}: {error}") from error

    def save(self, items: Iterable[T]) -> None:
        """Replace the file (mode 0600), durable before it returns. Raises DataDirError when it cannot be written."""
        body = msgspec.json.format(msgspec.json.encode({self._name: list(items), "schema": 1}), indent=1)
        fresh = self.path.with_suffix(f".{os.getpid()}.new")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            raise DataDirError(f"{self.path}: cannot write the {self._words}: {error}") from error

    def changed(self) -> bool:
        """Whether the file is another than the one last read. One `stat`; call it about once a second."""
        return self._stamp() != self._seen

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size
