"""Delivery: keeps every sink up to date with this node's journals, each exactly once (DESIGN §5); and what may be asked
of it. It remembers nothing of its own: where a sink is, the sink says; what there is, the files say.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from taximeter.config import JournalSettings
from taximeter.core.errors import JournalError, NotFound, NotReady
from taximeter.core.record import seq_of
from taximeter.delivery.aside import Aside, Letter
from taximeter.delivery.feed import Feed
from taximeter.delivery.files import JournalFiles
from taximeter.delivery.follow import Follower
from taximeter.delivery.health import Drained, Replayed, Writers
from taximeter.delivery.setting_aside import SettingAside
from taximeter.delivery.shipper import Shipper
from taximeter.journal.files import make_directory
from taximeter.journal.recover import Price
from taximeter.sinks.health import DeliveryHealth, SinkHealth
from taximeter.sinks.sink import Retaker, Sink

log = logging.getLogger(__name__)

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
            make_directory(directory)
            self.aside = Aside(directory)
        except OSError as error:
            raise JournalError(f"cannot make the journal's directory {directory}: {error.strerror}") from error
        self.node = node
        self._now_us = now_us
        self._files = JournalFiles(directory, keep_s=settings.keep_s, now_us=now_us, price=price)
        self._writers = Writers(directory)
        self._follower = Follower(self._files, tidied=self._writers.refresh)
        self._shippers: dict[str, Shipper] = {}
        self._group: asyncio.TaskGroup | None = None
        self._running: dict[str, asyncio.Task[None]] = {}
        self.held = ""
        """Why no sink is to get anything yet; "": they are."""
        for sink in sinks:
            self.add(sink)
        self._open: Counter[tuple[str | None, str | None]] = Counter()
        """Open calls by workspace and track, either None for any; as counted after the look `_counted`."""
        self._counted: asyncio.Event | None = None

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._group = tasks
            for shipper in self._shippers.values():
                self._run(shipper)
            with suppress(OSError, TimeoutError):  # find the files, and hear where the sinks are, before reading begins
                self._files.scan()
                async with asyncio.timeout(FIRST_ASK_S):
                    while not all(shipper.answered for shipper in self._shippers.values()):
                        await self._follower.moves.wait()
            tasks.create_task(self._follower.run(), name="follow the journals")

    def add(self, sink: Sink) -> None:
        """Deliver to one more sink, from where it says that it is."""
        answered = self._follower.answered
        shipper = Shipper(sink, self._files.by_id, answered, SettingAside(sink, self.aside, self._now_us))
        shipper.held = self.held
        self._shippers[sink.name] = shipper
        self._files.shippers = list(self._shippers.values())
        if self._group is not None:
            self._run(shipper)

    def remove(self, name: str) -> None:
        """Deliver no more to the sink of this name. What it has not got, it can ask for when it is back."""
        del self._shippers[name]
        self._files.shippers = list(self._shippers.values())
        if name in self._running:
            self._running.pop(name).cancel()
        for feed in self._files.by_id.values():
            feed.asked.discard(name)
        self._follower.answered()

    def hold(self, why: str) -> None:
        """Deliver to no sink until `release`: all are failing for this reason. The journals are read."""
        self.held = why
        for shipper in self._shippers.values():
            shipper.held = why

    async def release(self) -> None:
        """Deliver from now on. Sinks that begin where history is are asked before it gets anything: else they miss it.

        Raises what a sink raises that cannot tell; then nothing is delivered yet.
        """
        journals = [feed.journal_id for feed in self._files.by_id.values()]
        for shipper in self._shippers.values():
            if not shipper.sink.durable:
                await shipper.sink.cursors(journals)
        self.hold("")

    def keep(self, keep_s: float) -> None:
        """How long a file stays that every durable sink has."""
        self._files.keep(keep_s)

    def _run(self, shipper: Shipper) -> None:
        if self._group is not None:
            task = self._group.create_task(shipper.run(), name=f"deliver to {shipper.name}")
            self._running[shipper.name] = task

    async def drain(self, timeout_s: float, sinks: Sequence[str] = ("history",), *, ends: bool = False) -> Drained:
        """Wait, bounded, until everything on disk now is in these sinks; with `ends` they know of the journals' ends,
        too. Raises KeyError for an unknown sink."""
        shippers = [self._shippers[name] for name in sinks]
        try:
            async with asyncio.timeout(timeout_s):
                await self._follower.look_now()
                goals = [(feed, feed.seq) for feed in self._files.by_id.values() if not feed.halted]
                for feed, seq in goals:
                    for shipper in shippers:
                        while not (_has(shipper, feed, seq, ends=ends) or feed.halted):
                            await self._follower.moves.wait()
        except TimeoutError:
            return Drained(complete=False, lag_seconds=max((self._lag_s(s.name) for s in shippers), default=0.0))
        return Drained(complete=not self._halted(), lag_seconds=0.0)

    async def settled(self, track: str, timeout_s: float, workspace: str | None = None) -> bool:
        """Wait, bounded, until no call of a track is open on this node. False: some still are."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._follower.look_now()
                while self.in_flight(workspace, track):
                    await self._follower.moves.wait()
        except TimeoutError:
            return False
        return True

    def in_flight(self, workspace: str | None = None, track: str | None = None) -> int:
        """Open calls on this node, as of the last look at the files (at most 100 ms ago).

        They are counted once for all who ask after a look: many may wait for a track.
        """
        if self._counted is not self._follower.moves:
            self._counted, self._open = self._follower.moves, Counter()
            for feed in self._files.by_id.values():
                for call in feed.tail.calls.values():
                    of, named = call.workspace, call.track
                    self._open.update({(of, named), (None, named), (of, None), (None, None)})
        return self._open[workspace, track]

    def place(self, sink: str) -> int:
        """How far a sink is: a number that is another as soon as it has more. Raises KeyError for an unknown sink."""
        name = self._shippers[sink].name
        return sum(feed.cursors.get(name, 0) for feed in self._files.by_id.values())

    async def beyond(self, sink: str, place: int, timeout_s: float) -> bool:
        """Wait, bounded, until a sink is at another place. False: it is not."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.place(sink) == place:
                    await self._follower.moves.wait()
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
        feeds = list(self._files.by_id.values())
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
            redirects_away=self._writers.redirects_away,
            open_files_ran_out=self._writers.open_files_ran_out,
            unreadable_lines=sum(feed.tail.unreadable for feed in feeds),
            settled=self._files.settled,
            halted=self._halted(),
            writers=self._writers.living,
        )

    def _halted(self) -> dict[str, str]:
        halted = {feed.tail.path.name: feed.halted for feed in self._files.by_id.values() if feed.halted}
        return {**halted, **self._files.strangers}

    def _lag_s(self, name: str) -> float:
        oldest = [feed.oldest_at(feed.cursors.get(name, 0)) for feed in self._files.by_id.values()]
        first = min((at for at in oldest if at is not None), default=None)
        return 0.0 if first is None else max(0.0, (self._now_us() - first) / 1_000_000)

    def _sink_health(self, shipper: Shipper) -> SinkHealth:
        feeds = [feed for feed in self._files.by_id.values() if not feed.halted]
        told = all(shipper.name in feed.cursors for feed in feeds)
        lag = sum(max(0, feed.seq - feed.cursors[shipper.name]) for feed in feeds) if told else None
        return SinkHealth(
            lag_records=lag,
            lag_seconds=self._lag_s(shipper.name),
            errors=shipper.errors,
            duplicates_skipped=shipper.duplicates_skipped,
            failing=shipper.failing,
            set_aside=shipper.setting_aside.records,
            set_aside_records=self.aside.waiting(shipper.name),
        )


def _has(shipper: Shipper, feed: Feed, seq: int, *, ends: bool) -> bool:
    """Whether a sink has the records of a journal up to `seq`, and where that is asked, knows of its end."""
    untold = ends and seq and feed.ended and shipper.keeper is not None and shipper.name not in feed.told_end
    return not untold and feed.cursors.get(shipper.name, 0) >= seq
