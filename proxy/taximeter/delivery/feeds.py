"""The journals of one directory: found, read in turn, settled when their writer is gone, removed when all have them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from taximeter.delivery.feed import RESTORED, Feed
from taximeter.delivery.shipper import BATCH_RECORDS, Shipper
from taximeter.journal.files import lock_if_free, remove_abandoned, sync_and_close
from taximeter.journal.format import SUFFIX, is_journal_id
from taximeter.journal.read import last_line
from taximeter.journal.recover import Price, settle

log = logging.getLogger(__name__)

BUFFER_RECORDS = 8_192
"""Records held in memory for sinks that have not got them yet; about 2 KB each."""


class Feeds:
    """All feeds by journal id, oldest first."""

    def __init__(self, directory: Path, *, keep_s: float, now_us: Callable[[], int], price: Price | None) -> None:
        self.by_id: dict[str, Feed] = {}
        self.shippers: Sequence[Shipper] = ()
        self.settled = 0
        """Calls settled for writers that died."""
        self.strangers: dict[str, str] = {}
        """Names in the directory that cannot be journals -> why."""
        self._directory = directory
        self._keep_us = int(keep_s * 1_000_000)
        self._now_us = now_us
        self._price = price
        self._stamp = -1
        self._stopped_at: str | None = None
        self._unannounced = 0
        """Records, and ends, read since the sinks were last woken."""

    def scan(self, *, always: bool) -> None:
        """Take in new files, drop those that are gone or were replaced. Raises OSError.

        Without `always`, only where the directory changed since; its time is too coarse to trust for good.
        """
        try:
            stamp = self._directory.stat().st_mtime_ns
        except FileNotFoundError:  # whoever took it took the files with it; their writers put them back
            log.error("the journals' directory %s was removed; it is made anew", self._directory)
            self._directory.mkdir(parents=True)
            stamp = self._directory.stat().st_mtime_ns
        if stamp == self._stamp and not always:
            return
        self._stamp = stamp
        found: dict[str, tuple[float, os.DirEntry[str]]] = {}
        strangers, self.strangers = self.strangers, {}
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                    self._found(entry, found)
        for name in self.strangers.keys() - strangers.keys():
            log.error("%s in %s is not read: %s", name, self._directory, self.strangers[name])
        for journal_id in [name for name, feed in self.by_id.items() if name not in found]:
            self._gone(self.by_id.pop(journal_id))
        for journal_id, (_, entry) in sorted(found.items(), key=lambda item: item[1][0]):
            feed = self.by_id.get(journal_id)
            if feed is not None and feed.inode != entry.inode():
                log.warning("journal %s was replaced by another file; it is read anew", entry.path)
                feed = None
            if feed is None:
                self.by_id[journal_id] = self._new(Path(entry.path), entry.inode())

    def changed(self) -> bool:
        """Something was written or came into being since the last look."""
        try:
            return os.stat(self._directory).st_mtime_ns != self._stamp or any(  # noqa: PTH116 (half the time)
                os.stat(feed.tail.path).st_size != feed.tail.size  # noqa: PTH116
                for feed in self.by_id.values()
                if not feed.ended and not feed.halted
            )
        except OSError:
            return True

    async def read(self) -> bool:
        """Read all feeds on, then wake the sinks; once for all that was read, as every batch has its price.

        False: it stopped before their ends because sinks that keep up hold what is in memory.
        """
        try:
            return await self._read_all()
        finally:
            if self._unannounced:
                self._wake_all()

    async def _read_all(self) -> bool:
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
            if ahead > feed.seq and not feed.halted:
                feed.halt(f"a sink has its records up to seq {ahead}, but it ends at {feed.seq}; {RESTORED}")
        return complete

    def settle_abandoned(self) -> bool:
        """Settle and end the files whose writer is gone. True: there were any, and there is more to read."""
        worked = False
        for feed in list(self.by_id.values()):
            if feed.ended or feed.halted or not feed.tail.at_end:
                continue
            try:
                worked |= self._settle(feed)
            except OSError as error:
                log.error("journal %s cannot be settled yet: %s", feed.tail.path, error)
        if self._unannounced:  # written between the last look and its writer's end
            self._wake_all()
        return worked

    def remove_delivered(self) -> None:
        """Remove ended files every durable sink has passed and which are old enough."""
        remove_abandoned(self._directory, self._now_us() / 1_000_000)
        durable = [shipper for shipper in self.shippers if shipper.sink.durable]
        if not durable:
            return
        for journal_id, feed in list(self.by_id.items()):
            end = feed.tail.end
            if end is None or feed.halted or self._now_us() - end.at < self._keep_us:
                continue
            if all(has_all(feed, shipper) for shipper in durable):
                feed.tail.path.unlink(missing_ok=True)
                del self.by_id[journal_id]

    def forget_delivered(self) -> None:
        """Drop from memory what every sink has."""
        for feed in self.by_id.values():
            if feed.buffered:
                feed.forget(min((feed.cursors.get(shipper.name, 0) for shipper in self.shippers), default=0))

    def _in_turn(self) -> list[Feed]:
        """All feeds, beginning where the last look had to stop: no busy file keeps the others waiting for ever."""
        feeds, ids = list(self.by_id.values()), list(self.by_id)
        start = ids.index(self._stopped_at) if self._stopped_at in self.by_id else 0
        self._stopped_at = None
        return feeds[start:] + feeds[:start]

    async def _read(self, feed: Feed) -> bool:
        self._skip_known(feed)
        while not feed.halted:
            if not self._room():
                self._wake_all()
                return False
            self._read_slab(feed)
            if self._unannounced >= BATCH_RECORDS:
                self._wake_all()
            if feed.tail.at_end:
                break
            await asyncio.sleep(0)
        return True

    def _read_slab(self, feed: Feed) -> None:
        seq = feed.seq
        if feed.read(self._known(feed)) or feed.ended:
            self._unannounced += feed.seq - seq + feed.ended

    def _wake_all(self) -> None:
        self._unannounced = 0
        for shipper in self.shippers:
            shipper.wake.set()

    def _found(self, entry: os.DirEntry[str], found: dict[str, tuple[float, os.DirEntry[str]]]) -> None:
        journal_id = entry.name.removesuffix(SUFFIX)
        if not is_journal_id(journal_id):
            self.strangers[entry.name] = "its name is not a journal's"
            return
        try:
            found[journal_id] = entry.stat().st_mtime, entry
        except FileNotFoundError:
            return

    def _new(self, path: Path, inode: int) -> Feed:
        feed = Feed(path, inode)
        feed.sound = not any(shipper.keeper for shipper in self.shippers)
        self._wake_all()
        return feed

    def _gone(self, feed: Feed) -> None:
        durable = [shipper for shipper in self.shippers if shipper.sink.durable]
        if not feed.tail.at_end or not all(has_all(feed, shipper) for shipper in durable):
            log.error("journal %s was removed before every sink had its records", feed.tail.path)

    def _known(self, feed: Feed) -> int:
        """Up to where every sink has the records already."""
        return min((feed.cursors.get(shipper.name, 0) for shipper in self.shippers), default=0)

    def _skip_known(self, feed: Feed) -> None:
        """Do not read an ended file at all whose records every sink has: there may be gigabytes after a stop."""
        if not feed.tail.offset and self.shippers and all(shipper.name in feed.asked for shipper in self.shippers):
            end = last_line(feed.tail.path)
            if end is not None and all(has_all(feed, shipper, end.seq) for shipper in self.shippers):
                feed.skip(end)

    def _room(self) -> bool:
        """Make room in memory for another slab; False where a sink that keeps up still needs what is there."""
        if sum(feed.buffered for feed in self.by_id.values()) < BUFFER_RECORDS:
            return True
        self.forget_delivered()
        waited_for = [shipper.name for shipper in self.shippers if shipper.keeps_up]
        excess = sum(feed.buffered for feed in self.by_id.values()) - BUFFER_RECORDS
        for feed in self.by_id.values():
            if excess < 0:
                break
            if waited_for:
                excess -= feed.forget(min(feed.cursors.get(name, 0) for name in waited_for))
            else:
                while excess >= 0 and feed.buffered:
                    excess -= feed.forget_oldest()
        return excess < 0

    def _settle(self, feed: Feed) -> bool:
        fd = lock_if_free(feed.tail.path)
        if fd is None:
            feed.sound = True
            return False
        appended = False
        try:
            appended = self._settle_locked(feed, fd)
        finally:
            if appended:  # a sync may take seconds on a busy disk
                asyncio.get_running_loop().run_in_executor(None, sync_and_close, fd)
            else:
                os.close(fd)
        return appended

    def _settle_locked(self, feed: Feed, fd: int) -> bool:
        if not feed.sound or max(feed.cursors.values(), default=0) > feed.seq:
            return False  # it may be a restored copy: nothing must be appended to that
        while not feed.halted:  # what it wrote between the last look and its death
            self._read_slab(feed)
            if feed.tail.at_end:
                break
        if feed.halted or feed.ended:
            return False
        self.settled += settle(fd, feed.tail, now_us=self._now_us(), price=self._price)
        return True


def has_all(feed: Feed, shipper: Shipper, upto: int | None = None) -> bool:
    """A sink has the records up to `upto` (default: all that were read) and, if it keeps journals, knows of the end."""
    seq = feed.seq if upto is None else upto
    told = shipper.keeper is None or not seq or shipper.name in feed.told_end
    return told and feed.cursors.get(shipper.name, 0 if not seq else -1) >= seq
