"""What one workspace may have at a time, so that it cannot keep others waiting: live views, waits, downloads, queries.

Who asks is known from the request's context (`request_of`). What is held is let go when the request ends, in any way.
An admin has as much as all workspaces together, and a count of his own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple

from taximeter.core.errors import RateLimited

Kind = Literal["live", "wait", "export"]


class ShareBound(NamedTuple):
    """How many of a kind there may be."""

    each: int
    """For one workspace."""
    all: int
    """For all workspaces; and for the admin."""
    words: str


BOUNDS: dict[Kind, ShareBound] = {
    "live": ShareBound(20, 200, "live views"),  # each may hold live.WAITING_RECORDS records
    "wait": ShareBound(20, 400, "waits"),
    "export": ShareBound(4, 32, "downloads"),  # a Parquet file is made in 8 MB of memory or on disk
}
RETRY_S = 5
"""What a refused one is told to wait: downloads take seconds, views and waits minutes."""

RUNNING = 2
"""Queries of one workspace that read at once: one less than history has readers, so another's never wait for it."""
WAITING = 64
"""Further ones that wait for these; a page of the dashboard makes up to eight."""


class Holder:
    """A request as it is bounded: whose, and what it holds until it ends."""

    def __init__(self, workspace: str | None) -> None:
        self.workspace = workspace
        """None: the admin."""
        self.held = ExitStack()


_HOLDER: ContextVar[Holder | None] = ContextVar("holder", default=None)


@contextmanager
def request_of(workspace: str | None) -> Iterator[None]:
    """A request of a workspace, or of the admin (None), while the context lasts."""
    holder = Holder(workspace)
    before = _HOLDER.set(holder)
    try:
        with holder.held:
            yield
    finally:
        _HOLDER.reset(before)


class Shares:
    """Who has how many of what."""

    def __init__(self) -> None:
        self._held: Counter[tuple[Kind, str | None]] = Counter()
        self._in_all: Counter[Kind] = Counter()
        self._queues: dict[str, Queue] = {}

    def hold(self, kind: Kind) -> None:
        """One more, until this request ends. Raises RateLimited where that were too many."""
        holder = _HOLDER.get()
        if holder is not None:
            holder.held.enter_context(self._one(kind, holder.workspace))

    @contextmanager
    def _one(self, kind: Kind, workspace: str | None) -> Iterator[None]:
        bound, admin = BOUNDS[kind], workspace is None
        if self._held[kind, workspace] >= (bound.all if admin else bound.each):
            raise RateLimited(f"{self._held[kind, workspace]} {bound.words} are open already.", retry_after_s=RETRY_S)
        if not admin and self._in_all[kind] >= bound.all:
            raise RateLimited(f"All {bound.all} {bound.words} are taken.", retry_after_s=RETRY_S)
        self._held[kind, workspace] += 1
        self._in_all[kind] += not admin
        try:
            yield
        finally:
            self._in_all[kind] -= not admin
            self._held[kind, workspace] -= 1
            if not self._held[kind, workspace]:
                del self._held[kind, workspace]

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A turn to read history: at most RUNNING of a workspace at once. Raises RateLimited where too many wait."""
        holder = _HOLDER.get()
        if holder is None or holder.workspace is None:
            yield
            return
        queue = self._queues.setdefault(holder.workspace, Queue())
        if queue.length >= RUNNING + WAITING:
            raise RateLimited(f"{queue.length} queries of this workspace are being answered.", retry_after_s=1)
        queue.length += 1
        try:
            async with queue.running:
                yield
        finally:
            queue.length -= 1
            if not queue.length:
                self._queues.pop(holder.workspace, None)


class Queue:
    """The queries of one workspace."""

    def __init__(self) -> None:
        self.length = 0
        """Running and waiting."""
        self.running = asyncio.Semaphore(RUNNING)
