"""The loop that follows the journals of this node: looks at the files, reads on, wakes the sinks (DESIGN §5).

What was read is held in memory until every sink that keeps up has it; what there is not, is read again from the files.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable

from taximeter.delivery.feed import RESTORED, Feed
from taximeter.delivery.files import JournalFiles
from taximeter.delivery.shipper import BATCH_RECORDS

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

BUFFER_RECORDS = 8_192
"""Records held in memory for sinks that have not got them yet; about 2 KB each."""


class Follower:
    """One per node. Everything happens in one event loop."""

    def __init__(self, files: JournalFiles, *, tidied: Callable[[], None]) -> None:
        """`tidied` is called whenever delivered files were removed."""
        self.moves = asyncio.Event()
        """Set, and replaced by another, after every look and every answer of a sink."""
        self._files, self._tidied = files, tidied
        self._wake = asyncio.Event()
        self._looks = self._covered = 0
        """Looks at the files begun; the number of the last that saw every file's end."""
        self._held_up = False
        """The last look stopped for want of room in memory."""
        self._stopped_at: str | None = None
        """The journal where it stopped."""
        self._unannounced = 0
        """Records, and ends, read since the sinks were last woken."""
        self._tend_at = self._tidy_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Follow until cancelled."""
        trouble = ""
        while True:
            try:
                await self._look()
                trouble, wait_s = "", BUSY_S
            except Exception as error:  # an outer loop: no file, however strange, ends delivery
                if trouble != repr(error):
                    log.exception("cannot follow the journals")
                trouble, wait_s = repr(error), TROUBLED_S
            self._notify()
            self._glance_after(wait_s)
            await self._wake.wait()
            if self._timer is not None:
                self._timer.cancel()

    async def look_now(self) -> None:
        """Have a look begun after this call that sees every file's end.

        Asked for once: a look that fails or has no room is followed by another when a sink answers, or a little later.
        """
        wanted = self._looks + 1
        self._files.stamp = -1  # the directory's time is as coarse as a tick: a file made just now may not show in it
        self._wake.set()
        while self._covered < wanted:
            await self.moves.wait()

    def answered(self) -> None:
        """A sink answered: room in memory may be free, and somebody may wait for just this."""
        if self._held_up:
            self._wake.set()
        self._notify()

    def _notify(self) -> None:
        """Let everybody who waits look again."""
        self.moves.set()
        self.moves = asyncio.Event()

    def _glance_after(self, wait_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._glance, wait_s)

    def _glance(self, waited_s: float) -> None:
        """Have a look if anything changed, else glance again a little later: an idle node costs next to nothing."""
        if self._held_up or time.monotonic() >= self._tend_at or self._changed():
            self._wake.set()
        else:
            self._glance_after(min(IDLE_S, waited_s * 1.5))

    def _changed(self) -> bool:
        """Something was written or came into being since the last look."""
        try:
            return self._files_changed() or any(
                os.stat(feed.tail.path).st_size != feed.tail.size  # noqa: PTH116 (half the time)
                for feed in self._files.by_id.values()
                if not feed.ended and not feed.halted
            )
        except OSError:
            return True

    def _files_changed(self) -> bool:
        """The directory changed since its files were looked for; its time is too coarse to trust for good."""
        try:
            return os.stat(self._files.directory).st_mtime_ns != self._files.stamp  # noqa: PTH116
        except OSError:
            return True

    async def _look(self) -> None:
        """Read all files on, then wake the sinks: once for all that was read, as every batch has its price."""
        self._wake.clear()
        self._looks += 1
        look, now_s = self._looks, time.monotonic()
        tend = now_s >= self._tend_at
        if tend or self._files_changed():
            self._files.scan()
        try:
            self._held_up = not await self._read_all()
        finally:
            self._announce()
        if not self._held_up:
            self._covered = look
        for feed in self._files.by_id.values():
            if feed.buffered:
                feed.forget(self._everybody_has(feed))
        if tend:
            self._tend_at = now_s + TEND_S
            if self._files.close_abandoned(self._read_slab):
                self._wake.set()
            self._announce()  # written between the last look and its writer's end
        if now_s >= self._tidy_at:
            self._tidy_at = now_s + TIDY_S
            self._files.remove_delivered()
            self._tidied()

    async def _read_all(self) -> bool:
        """Read every file on. False: it stopped before their ends, for sinks that keep up hold what is in memory."""
        complete = True
        for feed in self._in_turn():
            ahead = max(feed.cursors.values(), default=0)
            try:
                if not (feed.ended and feed.tail.at_end) and not await self._read(feed):
                    self._stopped_at = feed.journal_id
                    return False
            except OSError as error:
                log.error("cannot read the journal %s: %s", feed.tail.path, error)
                complete = False
                continue
            if ahead > feed.seq and not feed.halted and not self._files.may_be_short(feed):
                feed.halt(f"a sink has its records up to seq {ahead}, but it ends at {feed.seq}; {RESTORED}")
        return complete

    def _in_turn(self) -> list[Feed]:
        """All feeds, beginning where the last look had to stop: no busy file keeps the others waiting for ever."""
        feeds, ids = list(self._files.by_id.values()), list(self._files.by_id)
        start = ids.index(self._stopped_at) if self._stopped_at in self._files.by_id else 0
        self._stopped_at = None
        return feeds[start:] + feeds[:start]

    async def _read(self, feed: Feed) -> bool:
        if not feed.tail.offset:
            self._files.skip_known(feed)
        while not feed.halted:
            buffered = sum(each.buffered for each in self._files.by_id.values())
            if buffered >= BUFFER_RECORDS and not self._files.make_room(BUFFER_RECORDS):
                self._announce(always=True)
                return False
            self._read_slab(feed)
            if self._unannounced >= BATCH_RECORDS:
                self._announce()
            if feed.tail.at_end:
                break
            await asyncio.sleep(0)
        return True

    def _read_slab(self, feed: Feed) -> None:
        seq = feed.seq
        if feed.read(self._everybody_has(feed)) or feed.ended:
            self._unannounced += feed.seq - seq + feed.ended

    def _everybody_has(self, feed: Feed) -> int:
        """Up to where every sink has its records."""
        return min((feed.cursors.get(shipper.name, 0) for shipper in self._files.shippers), default=0)

    def _announce(self, *, always: bool = False) -> None:
        """Wake the sinks for what was read."""
        if self._unannounced or always:
            self._unannounced = 0
            for shipper in self._files.shippers:
                shipper.wake.set()
