"""Finding the records that one sink cannot take, and setting them aside: its cursor passes them, the others go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from taximeter.core.record import Record, seq_of
from taximeter.delivery.aside import Aside, Letter
from taximeter.delivery.feed import Feed
from taximeter.journal.read import digest_at
from taximeter.sinks.batch import Batch
from taximeter.sinks.sink import JournalKeeper, Sink
from taximeter.sinks.unfit import is_unfit

log = logging.getLogger(__name__)

Send = Callable[[list[tuple[Feed, Batch]]], Awaitable[None]]
"""Deliver batches, and take the sink's answer into their feeds' cursors. Raises what the sink raises."""


class SettingAside:
    """Of one sink."""

    def __init__(self, sink: Sink, letters: Aside, now_us: Callable[[], int]) -> None:
        self.letters = letters
        self.records = 0
        """How many it could not take, since this process began."""
        self._sink = sink
        self._now_us = now_us

    def left_of(self, batch: Batch) -> Batch:
        """The batch without the records that were set aside before."""
        gone = self.letters.seqs[self._sink.name, batch.journal_id]
        return _without(batch, [record for record in batch.records if seq_of(record.event_id) in gone])

    async def sort_out(self, feed: Feed, batch: Batch, send: Send) -> None:
        """Deliver a batch by halves, down to single records; one that cannot be taken by itself is set aside."""
        name, parts = self._sink.name, [batch]
        while parts:
            part = parts.pop()
            at = (await self._sink.cursors([feed.journal_id])).get(feed.journal_id, 0)
            if at != part.after:  # it took effect after all, or went back: it is cut anew
                feed.cursors[name] = at
                return
            try:
                await send([(feed, part)])
            except Exception as error:
                if not is_unfit(error) or not part.records:
                    raise
                before = seq_of(part.records[0].event_id) - 1
                if len(part.records) > 1:
                    parts += await self._cut_at(feed, part, len(part.records) // 2)
                elif before > part.after:  # what was set aside before is passed first: a sink that cannot even do that
                    parts += await self._cut_at(feed, part, 0)  # is out of order, and more must not be set aside
                else:
                    await self._put_aside(part.records[0], error)
                    parts.append(_without(part, part.records[:1]))
                continue
            if feed.cursors[name] != part.upto:
                return

    async def _cut_at(self, feed: Feed, part: Batch, count: int) -> tuple[Batch, Batch]:
        """All but the first `count` records, and before them these (0: what there is before the first record)."""
        upto = seq_of(part.records[count - 1].event_id) if count else seq_of(part.records[0].event_id) - 1
        keeps = isinstance(self._sink, JournalKeeper)
        digest = await asyncio.to_thread(digest_at, feed.tail.path, upto) if keeps else ""
        earlier = replace(part, upto=upto, records=part.records[:count], digest=digest, ended=False)
        return replace(part, after=upto, records=part.records[count:]), earlier

    async def _put_aside(self, record: Record, error: Exception) -> None:
        """The cursor passes it only when the letter is safe. What keeps nothing will not need it later either."""
        problem = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()
        if self._sink.durable:
            letter = Letter(sink=self._sink.name, problem=problem, set_aside_at=self._now_us(), record=record)
            await asyncio.to_thread(self.letters.put, letter)
        self.records += 1
        log.error("sink %s cannot take the record %s, it is set aside: %s", self._sink.name, record.event_id, problem)


def _without(batch: Batch, records: Sequence[Record]) -> Batch:
    """The batch without some of its records; the same one where there are none."""
    gone = {record.event_id for record in records}
    return replace(batch, records=[each for each in batch.records if each.event_id not in gone]) if gone else batch
