"""Calls as they end, for whoever watches: a sink that keeps nothing, and one bounded queue a watcher.

It shows this node's records from the moment of watching on; it is no source of totals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from taximeter.core.deferred import TOLD
from taximeter.core.record import Record
from taximeter.sinks.batch import Batch
from taximeter.sinks.passing import Passing
from taximeter.sinks.query import Filters

if TYPE_CHECKING:
    from collections.abc import Iterator

WAITING_RECORDS = 1_000
"""Most records a slow watcher may be behind; what exceeds them it misses, and is told how many."""

MATCHED = (
    "workspace", "provider", "task", "key_id", "service_tier", "track", "document", "end_user", "request_id",
    "error_code",
)  # fmt: skip


class Watch:
    """One watcher's queue."""

    def __init__(self, filters: Filters) -> None:
        self.missed = 0
        """Records dropped since last asked, because the watcher was too slow."""
        self._filters = filters
        self._queue: asyncio.Queue[Record | None] = asyncio.Queue(WAITING_RECORDS)

    def offer(self, record: Record) -> None:
        if record.kind == TOLD or not matches(record, self._filters):
            return
        try:
            self._queue.put_nowait(record)
        except asyncio.QueueFull:
            self.missed += 1

    def end(self) -> None:
        """No more records: the watcher gets what is waiting, then its stream ends."""
        if self._queue.full():
            self._queue.get_nowait()
            self.missed += 1
        self._queue.put_nowait(None)

    async def next(self, timeout_s: float) -> Record | None:
        """The next record. Raises TimeoutError after `timeout_s` without one; None: the stream has ended."""
        return await asyncio.wait_for(self._queue.get(), timeout_s)


class Live:
    """The sink named `live`. Like Prometheus it begins, in each journal, where history was at its start."""

    name = "live"
    durable = False

    def __init__(self, start: Callable[[Iterable[str]], Awaitable[dict[str, int]]] | None = None) -> None:
        """`start`: history's `cursors`; None: from each journal's beginning."""
        self._passing = Passing(start)
        self._watches: set[Watch] = set()
        self._closed = False

    @property
    def watchers(self) -> int:
        return len(self._watches)

    @contextmanager
    def watch(self, filters: Filters) -> Iterator[Watch]:
        """Watch the records that match (time and outcome filters aside) while the context lasts."""
        watch = Watch(filters)
        self._watches.add(watch)
        if self._closed:
            watch.end()
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    async def cursors(self, journal_ids: Iterable[str]) -> dict[str, int]:
        return await self._passing.cursors(journal_ids)

    async def deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
        journals = [batch.journal_id for batch in batches]
        await self.cursors(journals)
        for batch in self._passing.fresh(batches):
            for watch in self._watches:
                for record in batch.records:
                    watch.offer(record)
        return await self.cursors(journals)

    async def close(self) -> None:
        """End every watcher's stream, so that a server can shut down."""
        self._closed = True
        for watch in list(self._watches):
            watch.end()


def matches(record: Record, filters: Filters) -> bool:
    """Whether a record is one of those asked for, by its names ("" stands for none)."""
    named = {name: getattr(record, name) for name in MATCHED}
    named |= {"model": record.model, "operation": record.operation.value, "outcome": record.outcome.value}
    for name, value in named.items():
        wanted = getattr(filters, name)
        if wanted is None:
            continue
        if (value or "") not in ((wanted,) if isinstance(wanted, str) else wanted):
            return False
    return True
