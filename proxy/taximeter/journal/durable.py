"""When written lines reach the disk for good: fsync rounds, off the loop, one for many lines (group commit)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from taximeter.journal.files import sync_and_close, sync_data
from taximeter.node.replacing import sync_directory

Round = tuple[list[int], Path | None]
"""Descriptors to sync, and the directory where a file was created since."""


class Syncer:
    """Runs sync rounds in one thread of its own. A round covers every line written before it began."""

    def __init__(
        self,
        mode: Literal["interval", "always", "never"],
        interval_s: float,
        collect: Callable[[], Round],
        failed: Callable[[OSError], None],
    ) -> None:
        self.idle = mode != "always"
        """True where a write has to call `wrote`; False: a round is due already, or is asked for by `durable`."""
        self._mode = mode
        self._interval_s = interval_s
        self._collect = collect
        self._failed = failed
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="journal-sync")
        self._next: asyncio.Future[OSError | None] | None = None
        self._running = False

    def wrote(self) -> None:
        """A line was written: have a round within the interval. Without a running loop, only `close` syncs."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self.idle = False
        loop.call_later(self._interval_s, self._due, loop)

    def look(self) -> None:
        """Have a round though nothing was written: `collect` looks whether the files are still there."""
        self._request(asyncio.get_running_loop())

    async def durable(self) -> OSError | None:
        """Wait until every line written before this call is on stable storage; returns what went wrong, if anything."""
        loop = asyncio.get_running_loop()
        return await asyncio.shield(self._request(loop))  # one waiter that leaves takes nobody else along

    def retire(self, fd: int) -> None:
        """Sync and close a descriptor nothing will be written to again, after any round that still uses it."""
        self._pool.submit(sync_and_close, fd, sync=self._mode != "never")

    def close(self) -> None:
        """Wait for rounds under way and retired descriptors. Blocks."""
        self.idle = False
        self._pool.shutdown(wait=True)

    def _due(self, loop: asyncio.AbstractEventLoop) -> None:
        self.idle = True
        self._request(loop)

    def _request(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[OSError | None]:
        waited = self._next
        if waited is None:
            waited = self._next = loop.create_future()
            if not self._running:
                self._start(loop)
        return waited

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        waited, self._next = self._next, None
        fds, directory = self._collect()  # with "never" too: it looks whether the files are still where they were
        if self._mode == "never":
            fds, directory = [], None
        if not fds and directory is None:
            _resolve(waited, None)
            return
        self._running = True
        try:
            syncing = loop.run_in_executor(self._pool, _sync, fds, directory)
        except RuntimeError:  # closed meanwhile; `close` has synced what was written
            self._running = False
            _resolve(waited, None)
            return
        syncing.add_done_callback(lambda done: self._done(loop, waited, done))

    def _done(
        self,
        loop: asyncio.AbstractEventLoop,
        waited: asyncio.Future[OSError | None] | None,
        done: asyncio.Future[OSError | None],
    ) -> None:
        self._running = False
        error = None if done.cancelled() else done.result()
        if error is not None:
            self._failed(error)
        _resolve(waited, error)
        if self._next is not None:
            self._start(loop)


def _resolve(waited: asyncio.Future[OSError | None] | None, error: OSError | None) -> None:
    if waited is not None and not waited.done():
        waited.set_result(error)


def _sync(fds: list[int], directory: Path | None) -> OSError | None:
    try:
        for fd in fds:
            sync_data(fd)
        if directory is not None:
            sync_directory(directory)
    except OSError as error:
        return error
    return None
