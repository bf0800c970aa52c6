"""One sink's own loop: ask where it is, send what follows, believe only its answer, back off alone (DESIGN §5)."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from taximeter.core.errors import TaximeterError
from taximeter.delivery.feed import Feed
from taximeter.delivery.setting_aside import SettingAside
from taximeter.delivery.verify import verify
from taximeter.sinks.batch import Batch
from taximeter.sinks.sink import JournalKeeper, Sink
from taximeter.sinks.unfit import is_outage, is_unfit

log = logging.getLogger(__name__)

BATCH_RECORDS = 1_000
"""About how many records one `deliver` gets: what a transaction or a script call is paid for once."""

SLOW_S = 1.0
"""A sink that takes longer for one batch is waited for by nobody."""

ASK_AGAIN_S = 30.0
"""How often a sink is asked where it is though nothing went wrong: another node may have set it back."""

BACK_OFF_S = (0.05, 5.0)
"""First and longest wait after a failure; doubled each time, of which a random part between half and all is waited."""


class NoProgress(TaximeterError):
    """A sink answered without having applied anything, and without having anything already."""


class NotBegun(TaximeterError):
    """Nothing may be delivered yet; the message says why."""


class Shipper:
    """Brings every feed's records to one sink."""

    def __init__(
        self, sink: Sink, feeds: Mapping[str, Feed], answered: Callable[[], None], setting_aside: SettingAside
    ) -> None:
        """`answered` is called after every answer of the sink, good or bad."""
        self.sink = sink
        self.name = sink.name
        self.keeper: JournalKeeper | None = sink if isinstance(sink, JournalKeeper) else None
        self.wake = asyncio.Event()
        """Set it when there may be something to deliver."""
        self.errors = 0
        self.duplicates_skipped = 0
        self.failing: str | None = None
        """What it failed with, while it is failing."""
        self.held = ""
        """Why it is to get nothing yet; whoever says so has told the log."""
        self.setting_aside = setting_aside
        self._feeds = feeds
        self._answered = answered
        self._since: float | None = None
        self._failures = 0
        self._ask_at = time.monotonic() + ASK_AGAIN_S

    @property
    def keeps_up(self) -> bool:
        """Neither failing nor slow: memory may be held for it."""
        return self.failing is None and (self._since is None or time.monotonic() - self._since < SLOW_S)

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
            if worked:  # or a follower without room and a sink with nothing to do would wake each other for ever
                self._answered()
            if self.failing is not None:
                await asyncio.sleep(self._back_off_s())
            elif not worked:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._ask_at - time.monotonic()):  # not the loop's own clock
                        await self.wake.wait()

    async def _step(self) -> bool:
        """Ask about journals not asked about yet, then deliver one round. False: there was nothing to do."""
        if self.held:
            raise NotBegun(self.held)
        if time.monotonic() >= self._ask_at:
            self._ask_all_again()
        feeds = [feed for feed in self._feeds.values() if not feed.halted]
        unasked = [feed for feed in feeds if self.name not in feed.asked]
        unverified = [feed for feed in feeds if self.keeper is not None and self.name not in feed.verified]
        try:
            self._since = time.monotonic()
            if unasked:  # all at once: a sink that lost data judges by all its journals what it lost
                await self._ask(unasked)
            if self.keeper is not None and unverified:
                await verify(self.keeper, self.name, unverified)
            cut = self._cut()
            if cut:
                await self._deliver(cut)
        finally:
            self._since = None
        return bool(unasked or unverified or cut)

    async def _deliver(self, cut: list[tuple[Feed, Batch]]) -> None:
        """One round; where the sink fails at the records themselves, journal by journal and part by part."""
        try:
            await self._send(cut)
        except Exception as error:
            if not is_unfit(error):
                raise
            log.warning(
                "sink %s cannot take a record, which is looked for: %s", self.name, error, exc_info=_fault(error)
            )
            for feed, batch in cut:
                await self.setting_aside.sort_out(feed, batch, self._send)

    async def _send(self, cut: list[tuple[Feed, Batch]]) -> None:
        self._since = time.monotonic()
        self._take(cut, await self.sink.deliver([batch for _, batch in cut]))

    async def _ask(self, feeds: list[Feed]) -> None:
        cursors = await self.sink.cursors([feed.journal_id for feed in feeds])
        for feed in feeds:
            feed.cursors[self.name] = cursors.get(feed.journal_id, 0)
            feed.asked.add(self.name)

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
                if (self.name, feed.journal_id) in self.setting_aside.letters.seqs:
                    batch = self.setting_aside.left_of(batch)
                cut.append((feed, batch))
                room -= len(batch.records)
                if room <= 0:
                    break
        return cut

    def _take(self, cut: list[tuple[Feed, Batch]], cursors: Mapping[str, int]) -> None:
        """Believe the sink's answer, whatever was sent."""
        moved = False
        for feed, batch in cut:
            actual = cursors.get(batch.journal_id)
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
                where = feed.journal_id
                log.warning("sink %s went back from %d to %d in journal %s", self.name, batch.after, actual, where)
        if not moved:
            raise NoProgress(f"sink {self.name} applied nothing of {len(cut)} batches")

    def _fail(self, error: Exception) -> None:
        self.errors += 1
        self._failures += 1
        if self.failing is None and not self.held:
            log.warning("sink %s failed, it is tried again: %s", self.name, error, exc_info=_fault(error))
        self.failing = f"{type(error).__name__}: {error}"
        self._ask_all_again()

    def _ask_all_again(self) -> None:
        self._ask_at = time.monotonic() + ASK_AGAIN_S
        for feed in self._feeds.values():
            feed.asked.discard(self.name)

    def _recover(self) -> None:
        if self.failing is not None:
            log.info("sink %s works again after %d failures", self.name, self._failures)
        self.failing, self._failures = None, 0

    def _back_off_s(self) -> float:
        first, longest = BACK_OFF_S
        return min(longest, first * (1 << min(self._failures - 1, 16))) * random.uniform(0.5, 1)  # noqa: S311 (jitter)


def _fault(error: Exception) -> Exception | None:
    """What to show the traceback of: an outage has none to tell anybody."""
    return None if is_outage(error) else error
