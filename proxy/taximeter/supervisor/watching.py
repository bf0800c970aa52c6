"""The files that settings come from and name: whether one changed since they were read (`reload_on_change`)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from taximeter.config import Settings
from taximeter.config.settings import tls_files
from taximeter.pricebook.compile import own_file

Seen = dict[Path, tuple[int, int, int] | None]
"""Inode, size and time of each file; None: it is not there. A link is followed: Kubernetes exchanges what is behind."""


class Watched:
    """Remembers files as they were when they were read. A change counts once it has stood for one look."""

    def __init__(self, settings: Settings, file: Path | None) -> None:
        self._follow(settings, file)
        self._taken = self._last = self._look()

    def follow(self, settings: Settings, file: Path | None) -> None:
        """These settings name the files from now on; further ones count from now."""
        self._follow(settings, file)
        now = self._look()
        self._taken = {path: self._taken.get(path, seen) for path, seen in now.items()}
        self._last = now

    def taken(self) -> None:
        """They are about to be read, as they are."""
        self._taken = self._last = self._look()

    def changed(self) -> bool:
        """Whether one is other than it was, and is no longer being written."""
        before, self._last = self._last, self._look()
        return self._last == before and self._last != self._taken

    def _follow(self, settings: Settings, file: Path | None) -> None:
        self._settings, self._file = settings, file

    def _look(self) -> Seen:
        return {path: _seen(path) for path in self._files()}

    def _files(self) -> Iterator[Path]:
        settings = self._settings
        named = [name for upstream in settings.upstream for name in tls_files(upstream)]
        named.append(settings.auth.shared_secret_file)
        yield from (Path(each) for each in named if each)
        yield from (each for each in (self._file, own_file(settings)) if each is not None)
        if settings.env_file:
            path = Path(settings.env_file)
            yield path
            with contextlib.suppress(OSError):  # it was taken away, or from us: its own time tells
                yield from sorted(path.iterdir()) if path.is_dir() else ()


def _seen(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - one system call
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
