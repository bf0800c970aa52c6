"""Which slices of budgets this node's workers hold: a file a worker, locked as long as it lives.

A worker writes a slice's name down before Redis hears of it; so whatever becomes of it, the control process knows what
to let go, once all that the dead worker's calls used is counted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from taximeter.node.replacing import sync_directory

FOLDER = "slices"
ENDED = ".ended"
"""At the end of a file's name: its worker waited for what it had asked for, and asks for nothing more."""
DEAD_S = 10.0
"""A file must be unlocked for so long: by then a dead worker's journal is taken over, which takes about a second."""


class SliceFile:
    """A worker's own."""

    def __init__(self, data_dir: Path) -> None:
        """Nothing is made before the first slice."""
        self._folder = data_dir / FOLDER
        self._path = self._folder / secrets.token_hex(8)
        self._fd: int | None = None

    def write(self, slices: Sequence[tuple[str, str]]) -> None:
        """Write slices (workspace, name) down for good. Blocks. Raises OSError: then none of them must be asked for."""
        if self._fd is None:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            self._fd = fd
            sync_directory(self._folder)
            sync_directory(self._folder.parent)
        lines = "".join([f"{workspace} {name}\n" for workspace, name in slices]).encode()
        written = os.write(self._fd, lines)
        if written != len(lines):
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        os.fsync(self._fd)

    def close(self) -> None:
        """The worker ends; the control process lets go, once more, whatever it ever held: a Redis that went back since
        holds what had been given back."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                self._path.rename(self._path.with_name(f"{self._path.name}{ENDED}"))
            os.close(self._fd)
            self._fd = None


class DeadSlices:
    """The control process's part: slices of workers that ended or died."""

    def __init__(
        self,
        data_dir: Path,
        release: Callable[[str, Sequence[str]], Awaitable[int]],
        drained: Callable[[str], Awaitable[bool]],
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`release`: lets go what these hold of a workspace; `drained`: see budgets.holdings."""
        self._folder = data_dir / FOLDER
        self._release = release
        self._drained = drained
        self._clock_s = clock_s
        self._since: dict[Path, float] = {}

    async def look(self, *, all_counted: bool = False) -> None:
        """Let go what can be. `all_counted`: no journal here has an open call, so those of workers that ended in order
        need not wait. Raises redis.client.ERRORS."""
        dead = [path for path in self._files() if _is_free(path)]
        self._since = {path: self._since.get(path, self._clock_s()) for path in dead}
        for path, since in self._since.items():
            due = self._clock_s() - since >= DEAD_S or (all_counted and path.name.endswith(ENDED))
            if not due or not await self._drained("redis"):
                continue
            names: dict[str, list[str]] = {}
            for workspace, name in _names(path.read_text()):
                names.setdefault(workspace, []).append(name)
            for workspace, them in names.items():
                await self._release(workspace, them)
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(self._folder.iterdir())
        return []


def take_over(source: Path, into: Path) -> None:
    """Move what another node's workers wrote down to this one's data directory, once that node is gone for good.

    Its journals have to be here before: what is let go must be counted. May be repeated. Raises OSError; and
    BlockingIOError where such a worker lives.
    """
    with contextlib.suppress(FileNotFoundError):
        for path in sorted((source / FOLDER).iterdir()):
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                slices = SliceFile(into)
                slices.write(list(_names(file.read().decode())))
                slices.close()
                path.unlink()


def _names(text: str) -> Iterator[tuple[str, str]]:
    """Workspace and name of each slice of a file."""
    for line in text.splitlines(keepends=True):
        workspace, _, name = line.partition(" ")
        if name.endswith("\n"):  # else it was cut: that slice was never asked for
            yield workspace, name.strip()


def _is_free(path: Path) -> bool:
    """Whether no living worker holds this file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
