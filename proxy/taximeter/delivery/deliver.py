"""Delivery: follows this node's journals and keeps every sink up to date, each exactly once (DESIGN §5).

It remembers nothing of its own: where a sink is, the sink says; what there is, the files say.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from taximeter.config import JournalSettings
from taximeter.core.errors import JournalError, NotFound, NotReady
from taximeter.core.record import seq_of
from taximeter.delivery.aside import Aside, Letter
from taximeter.delivery.feeds import Feeds
from taximeter.delivery.health import DeliveryHealth, Drained, Replayed, SinkHealth, Writers
from taximeter.delivery.shipper import Shipper
from taximeter.journal.recover import Price
from taximeter.sinks.sink import Retaker, Sink

log = logging.getLogger(__name__)

BUSY_S = 0.06
"""Wait between two looks at the files while there is traffic; a batch then holds what came meanwhile.

With the time a batch takes, a record is in every sink within 100 ms; a third of it costs half as much again in
commits and round trips."""

IDLE_S = 0.08
"""Longest wait between two glances: a record may take 100 ms to reach an idle sink."""

TROUBLED_S = 1.0
"""Wait after a look that failed."""

TEND_S = 0.5
"""How often writers' locks are tried, and the directory is read whether it changed or not."""

TIDY_S = 2.0
"""How often files are removed and status files read."""

FIRST_ASK_S = 1.0
"""How long reading waits at start for the sinks to tell where they are, so that little is decoded for nothing."""


class Delivery:
    """One per node, in the control process. Everything but `run` may be called from the same event loop only."""

    def __init__(
        self,
        directory: Path,
        sinks: Sequence[Sink],
        *,
        settings: JournalSettings,
        node: str,
        now_us: Callable[[], int],
        price: Price | None = None,
    ) -> None:
        """`directory` is the journal's, as the writers have it. `price` prices calls settled for a dead writer.

        Raises JournalError when the directory cannot be made.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self.aside = Aside(directory)
        except OSError as error:
            raise JournalError(f"cannot make the journal's directory {directory}: {error.strerror}") from error
        self.node = node
        self._now_us = now_us
        self._feeds = Feeds(directory, keep_s=settings.keep_s, now_us=now_us, price=price)
        self._shippers = {
            sink.name: Shipper(sink, self._feeds.by_id, self._moved, aside=self.aside, now_us=now_us) for sink in sinks
        }
        self._feeds.shippers = list(self._shippers.values())
        self._writers = Writers(directory)
        self._wake = asyncio.Event()
        self._moves = asyncio.Event()
        self._looks = self._covered = 0
        """Looks at the files begun; the number of the last that saw every file's end."""
        self._held_up = False
        """The last look stopped for want of room in memory."""
        self._open: Counter[tuple[str | None, str | None]] | None = None
        """Open calls by workspace and track, either None for any; None: not counted since the last look."""
        self._tend_at = self._tidy_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for shipper in self._shippers.values():
                tasks.create_task(shipper.run(), name=f"deliver to {shipper.name}")
            tasks.create_task(self._follow(), name="follow the journals")

    async def drain(self, timeout_s: float, sinks: Sequence[str] = ("history",)) -> Drained:
        """Wait, bounded, until everything on disk now is in these sinks. Raises KeyError for an unknown sink."""
        shippers = [self._shippers[name] for name in sinks]
        try:
            async with asyncio.timeout(timeout_s):
                await self._look_now()
                goals = [(feed, feed.seq) for feed in self._feeds.by_id.values() if not feed.halted]
                for feed, seq in goals:
                    for shipper in shippers:
                        while feed.cursors.get(shipper.name, 0) < seq and not feed.halted:
                            await self._moves.wait()
        except TimeoutError:
            return Drained(complete=False, lag_seconds=max((self._lag_s(s.name) for s in shippers), default=0.0))
        return Drained(complete=not self._halted(), lag_seconds=0.0)

    async def settled(self, track: str, timeout_s: float, workspace: str | None = None) -> bool:
        """Wait, bounded, until no call of a track is open on this node. False: some still are."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._look_now()
                while self.in_flight(workspace, track):
                    await self._moves.wait()
        except TimeoutError:
            return False
        return True

    def in_flight(self, workspace: str | None = None, track: str | None = None) -> int:
        """Open calls on this node, as of the last look at the files (at most 100 ms ago).

        They are counted once for all who ask after a look: many may wait for a track.
        """
        if self._open is None:
            self._open = Counter()
            for feed in self._feeds.by_id.values():
                for call in feed.tail.calls.values():
                    of, named = call.workspace, call.track
                    self._open.update({(of, named), (None, named), (of, None), (None, None)})
        return self._open[workspace, track]

    def place(self, sink: str) -> int:
        """How far a sink is: a number that is another as soon as it has more. Raises KeyError for an unknown sink."""
        name = self._shippers[sink].name
        return sum(feed.cursors.get(name, 0) for feed in self._feeds.by_id.values())

    async def beyond(self, sink: str, place: int, timeout_s: float) -> bool:
        """Wait, bounded, until a sink is at another place. False: it is not."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.place(sink) == place:
                    await self._moves.wait()
        except TimeoutError:
            return False
        return True

    async def replay(self, keys: Sequence[str] | None = None) -> Replayed:
        """Offer records set aside to their sinks again: the letters with these keys, or all."""
        letters = await asyncio.to_thread(self.aside.letters)
        wanted = [letter for letter in letters if keys is None or letter.key in keys]
        failed: dict[str, str] = dict.fromkeys(keys or (), "there is no such letter")
        taken = 0
        for letter in wanted:
            failed.pop(letter.key, None)
            try:
                await self._replay(letter)
            except Exception as error:  # whatever a sink raises: the letter stays, and the others have their turn
                log.warning("%s cannot be taken yet: %s", letter.key, error)
                failed[letter.key] = f"{type(error).__name__}: {error}"
            else:
                taken += 1
        return Replayed(replayed=taken, failed=failed)

    async def _replay(self, letter: Letter) -> None:
        shipper = self._shippers.get(letter.sink)
        if shipper is None or not isinstance(shipper.sink, Retaker):
            raise NotFound(f"no sink {letter.sink} is configured that could take it")
        journal_id = letter.record.event_id.rpartition(":")[0]
        passed = (await shipper.sink.cursors([journal_id])).get(journal_id, 0)
        if passed < seq_of(letter.record.event_id):
            raise NotReady("the sink has not come so far yet")
        await shipper.sink.retake([letter.record])
        await asyncio.to_thread(self.aside.taken, letter)

    def health(self) -> DeliveryHealth:
        """The state of sinks, journals and writers now."""
        self._writers.refresh()
        feeds = list(self._feeds.by_id.values())
        return DeliveryHealth(
            sinks={name: self._sink_health(shipper) for name, shipper in self._shippers.items()},
            in_flight=self.in_flight(),
            journal_files=len(feeds),
            journal_bytes=sum(feed.tail.size for feed in feeds),
            lag_seconds=max((self._lag_s(name) for name in self._shippers), default=0.0),
            journal_healthy=self._writers.healthy,
            journal_errors=self._writers.errors,
            records_lost=self._writers.lost,
            journal_repairs=self._writers.repaired,
            unreadable_lines=sum(feed.tail.unreadable for feed in feeds),
            settled=self._feeds.settled,
            halted=self._halted(),
            writers=self._writers.living,
        )

    async def _follow(self) -> None:
        await self._first_answers()
        trouble = ""
        while True:
            wait_s = BUSY_S
            try:
                await self._look()
                trouble = ""
            except Exception as error:  # an outer loop: no file, however strange, ends delivery
                if trouble != repr(error):
                    log.exception("cannot follow the journals")
                trouble, wait_s = repr(error), TROUBLED_S
            self._notify()
            self._glance_after(wait_s)
            await self._wake.wait()
            if self._timer is not None:
                self._timer.cancel()

    def _glance_after(self, wait_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._glance, wait_s)

    def _glance(self, waited_s: float) -> None:
        """Have a look if anything changed, else glance again a little later: an idle node costs next to nothing."""
        if self._held_up or time.monotonic() >= self._tend_at or self._feeds.changed():
            self._wake.set()
        else:
            self._glance_after(min(IDLE_S, waited_s * 1.5))

    async def _first_answers(self) -> None:
        """Find the files, and let the sinks tell where they are before reading begins."""
        try:
            self._feeds.scan(always=True)
            async with asyncio.timeout(FIRST_ASK_S):
                while not all(shipper.answered for shipper in self._shippers.values()):
                    await self._moves.wait()
        except (OSError, TimeoutError):
            return

    async def _look(self) -> None:
        """Look at the directory and read its files on."""
        self._wake.clear()
        self._looks += 1
        look, now_s = self._looks, time.monotonic()
        tend = now_s >= self._tend_at
        self._feeds.scan(always=tend)
        self._held_up = not await self._feeds.read()
        if not self._held_up:
            self._covered = look
        self._feeds.forget_delivered()
        if tend:
            self._tend_at = now_s + TEND_S
            if self._feeds.settle_abandoned():
                self._wake.set()
        if now_s >= self._tidy_at:
            self._tidy_at = now_s + TIDY_S
            self._feeds.remove_delivered()
            self._writers.refresh()

    async def _look_now(self) -> None:
        """Have a look begun after this call that sees every file's end."""
        wanted = self._looks + 1
        while self._covered < wanted:
            self._wake.set()
            await self._moves.wait()

    def _moved(self) -> None:
        """A sink answered: room in memory may be free, and somebody may wait for just this."""
        if self._held_up:
            self._wake.set()
        self._notify()

    def _notify(self) -> None:
        """Let everybody who waits look again."""
        self._open = None
        self._moves.set()
        self._moves = asyncio.Event()

    def _halted(self) -> dict[str, str]:
        halted = {feed.tail.path.name: feed.halted for feed in self._feeds.by_id.values() if feed.halted}
        return {**halted, **self._feeds.strangers}

    def _lag_s(self, name: str) -> float:
        oldest = [feed.oldest_at(feed.cursors.get(name, 0)) for feed in self._feeds.by_id.values()]
        first = min((at for at in oldest if at is not None), default=None)
        return 0.0 if first is None else max(0.0, (self._now_us() - first) / 1_000_000)

    def _sink_health(self, shipper: Shipper) -> SinkHealth:
        feeds = [feed for feed in self._feeds.by_id.values() if not feed.halted]
        told = all(shipper.name in feed.cursors for feed in feeds)
        lag = sum(max(0, feed.seq - feed.cursors[shipper.name]) for feed in feeds) if told else None
        return SinkHealth(
            lag_records=lag,
            lag_seconds=self._lag_s(shipper.name),
            errors=shipper.errors,
            duplicates_skipped=shipper.duplicates_skipped,
            failing=shipper.failing,
            set_aside=shipper.set_aside,
            set_aside_records=self.aside.waiting(shipper.name),
        )
