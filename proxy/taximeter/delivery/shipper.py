"""One sink's own loop: ask where it is, send what follows, believe only its answer, back off alone (DESIGN §5)."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from taximeter.core.errors import TaximeterError
from taximeter.core.record import Record, seq_of
from taximeter.delivery.aside import Aside, Letter
from taximeter.delivery.feed import RESTORED, Feed
from taximeter.journal.read import departs, digest_at
from taximeter.sinks.sink import Batch, JournalKeeper, Sink
from taximeter.sinks.unfit import is_unfit

log = logging.getLogger(__name__)

BATCH_RECORDS = 1_000
"""About how many records one `deliver` gets: what a transaction or a script call is paid for once."""

VERIFIED_AT_ONCE = 16
"""Journals read for their digest in one step, newest first: after a long stop there may be hundreds of old ones."""

SLOW_S = 1.0
"""A sink that takes longer for one batch is waited for by nobody."""

BACK_OFF_S = (0.05, 5.0)
"""First and longest wait after a failure; doubled each time, of which a random part between half and all is waited."""


class NoProgress(TaximeterError):
    """A sink answered without having applied anything, and without having anything already."""


class Shipper:
    """Brings every feed's records to one sink."""

    def __init__(
        self,
        sink: Sink,
        feeds: Mapping[str, Feed],
        moved: Callable[[], None],
        clock_s: Callable[[], float] = time.monotonic,
        *,
        aside: Aside,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """`moved` is called after every answer of the sink, good or bad. `aside`: where records go it cannot take."""
        self.sink = sink
        self.name = sink.name
        self.keeper: JournalKeeper | None = sink if isinstance(sink, JournalKeeper) else None
        self.wake = asyncio.Event()
        """Set it when there may be something to deliver."""
        self.errors = 0
        self.duplicates_skipped = 0
        self.set_aside = 0
        """Records it could not take, since this process began."""
        self.failing: str | None = None
        self._aside = aside
        self._now_us = now_us
        self._feeds = feeds
        self._moved = moved
        self._clock_s = clock_s
        self._since: float | None = None
        self._failures = 0

    @property
    def keeps_up(self) -> bool:
        """Neither failing nor slow: memory may be held for it."""
        return self.failing is None and (self._since is None or self._clock_s() - self._since < SLOW_S)

    @property
    def answered(self) -> bool:
        """It has told where it is in every journal there is, or cannot tell now."""
        return self.failing is not None or all(self.name in feed.asked or feed.halted for feed in self._feeds.values())

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            self.wake.clear()
            try:
                worked = await self._step()
            except Exception as error:  # one of the two outer loops: whatever a sink raises, it is tried again
                worked = True
                self._fail(error)
            else:
                self._recover()
            self._moved()
            if self.failing is not None:
                await asyncio.sleep(self._back_off_s())
            elif not worked:
                await self.wake.wait()

    async def _step(self) -> bool:
        """Ask about journals not asked about yet, then deliver one round. False: there was nothing to do."""
        feeds = [feed for feed in self._feeds.values() if not feed.halted]
        unasked = [feed for feed in feeds if self.name not in feed.asked]
        unverified = [feed for feed in feeds if self.keeper is not None and self.name not in feed.verified]
        try:
            self._since = self._clock_s()
            if unasked:  # all at once: a sink that lost data judges by all its journals what it lost
                await self._ask(unasked)
            if self.keeper is not None and unverified:
                await self._verify(self.keeper, unverified[-VERIFIED_AT_ONCE:])
            cut = self._cut()
            if cut:
                self._since = self._clock_s()
                await self._deliver(cut)
        finally:
            self._since = None
        return bool(unasked or unverified or cut)

    async def _deliver(self, cut: list[tuple[Feed, Batch]]) -> None:
        """One round; where the sink fails at the records themselves, journal by journal and part by part."""
        try:
            answers = await self.sink.deliver([batch for _, batch in cut])
        except Exception as error:
            if not is_unfit(error):
                raise
            log.warning("sink %s cannot take a record, which is looked for: %s", self.name, error, exc_info=error)
            for feed, batch in cut:
                await self._sort_out(feed, batch)
        else:
            self._take(cut, answers)

    async def _sort_out(self, feed: Feed, batch: Batch) -> None:
        """Deliver a batch by halves, down to single records; one that cannot be taken by itself is set aside."""
        parts = [batch]
        while parts:
            part = parts.pop()
            at = (await self.sink.cursors([feed.journal_id])).get(feed.journal_id, 0)
            if at != part.after:  # it took effect after all, or went back: it is cut anew
                feed.cursors[self.name] = at
                return
            self._since = self._clock_s()
            try:
                answers = await self.sink.deliver([part])
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
                    parts.append(without(part, part.records[:1]))
                continue
            self._take([(feed, part)], answers)
            if feed.cursors[self.name] != part.upto:
                return

    async def _cut_at(self, feed: Feed, part: Batch, count: int) -> tuple[Batch, Batch]:
        """All but the first `count` records, and before them these (0: what there is before the first record)."""
        upto = seq_of(part.records[count - 1].event_id) if count else seq_of(part.records[0].event_id) - 1
        digest = "" if self.keeper is None else await asyncio.to_thread(digest_at, feed.tail.path, upto)
        earlier = replace(part, upto=upto, records=part.records[:count], digest=digest, ended=False)
        return replace(part, after=upto, records=part.records[count:]), earlier

    async def _put_aside(self, record: Record, error: Exception) -> None:
        """The cursor passes it only when the letter is safe. What keeps nothing will not need it later either."""
        problem = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()
        if self.sink.durable:
            letter = Letter(sink=self.name, problem=problem, set_aside_at=self._now_us(), record=record)
            await asyncio.to_thread(self._aside.put, letter)
        self.set_aside += 1
        log.error("sink %s cannot take the record %s, it is set aside: %s", self.name, record.event_id, problem)

    async def _ask(self, feeds: list[Feed]) -> None:
        cursors = await self.sink.cursors([feed.journal_id for feed in feeds])
        for feed in feeds:
            feed.cursors[self.name] = cursors.get(feed.journal_id, 0)
            feed.asked.add(self.name)

    async def _verify(self, keeper: JournalKeeper, feeds: list[Feed]) -> None:
        """Compare each file with what the keeper knows of it: one restored from a copy must not go on unnoticed."""
        states = await keeper.journals([feed.journal_id for feed in feeds])
        for feed in feeds:
            state = states.get(feed.journal_id)
            if state is not None and state.seq and state.digest:
                reason = await asyncio.to_thread(departs, feed.tail.path, state.seq, state.digest, ended=state.ended)
                if reason is not None:
                    feed.halt(f"{reason}; {RESTORED}")
                elif state.ended:
                    feed.told_end.add(self.name)
            feed.verified.add(self.name)
            feed.sound = True

    def _cut(self) -> list[tuple[Feed, Batch]]:
        cut: list[tuple[Feed, Batch]] = []
        room = BATCH_RECORDS
        for feed in self._feeds.values():
            if self.name not in feed.asked or (self.keeper is not None and self.name not in feed.verified):
                continue
            tell_end = self.keeper is not None and self.name not in feed.told_end
            try:
                batch = feed.batch(feed.cursors[self.name], room, tell_end=tell_end)
            except FileNotFoundError:  # the next look at the directory drops the feed
                continue
            if batch is not None:
                aside = self._aside.seqs(self.name, feed.journal_id)
                if aside:
                    batch = without(batch, [each for each in batch.records if seq_of(each.event_id) in aside])
                cut.append((feed, batch))
                room -= len(batch.records)
                if room <= 0:
                    break
        return cut

    def _take(self, cut: list[tuple[Feed, Batch]], answers: Mapping[str, int]) -> None:
        """Believe the sink's answer, whatever was sent."""
        moved = False
        for feed, batch in cut:
            actual = answers.get(batch.journal_id)
            if actual is None:
                feed.asked.discard(self.name)
                continue
            feed.cursors[self.name] = actual
            if actual == batch.upto:
                moved = True
                if batch.ended:
                    feed.told_end.add(self.name)
            elif actual > batch.after:
                moved = True
                self.duplicates_skipped += min(actual, batch.upto) - batch.after
            elif actual < batch.after:
                log.warning(
                    "sink %s went back from %d to %d in journal %s", self.name, batch.after, actual, batch.journal_id
                )
        if not moved:
            raise NoProgress(f"sink {self.name} applied nothing of {len(cut)} batches")

    def _fail(self, error: Exception) -> None:
        self.errors += 1
        self._failures += 1
        if self.failing is None:
            log.warning("sink %s failed, it is tried again: %s", self.name, error, exc_info=error)
        self.failing = f"{type(error).__name__}: {error}"
        for feed in self._feeds.values():
            feed.asked.discard(self.name)

    def _recover(self) -> None:
        if self.failing is not None:
            log.info("sink %s works again after %d failures", self.name, self._failures)
        self.failing = None
        self._failures = 0

    def _back_off_s(self) -> float:
        first, longest = BACK_OFF_S
        return min(longest, first * (1 << min(self._failures - 1, 16))) * random.uniform(0.5, 1)  # noqa: S311 (jitter)


def without(batch: Batch, records: Sequence[Record]) -> Batch:
    """The batch without some of its records; the same one where there are none."""
    gone = {record.event_id for record in records}
    kept = [record for record in batch.records if record.event_id not in gone]
    return replace(batch, records=kept) if gone else batch
