"""The journal files of one directory: found, settled when their writer is gone, removed when every sink has them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from taximeter.delivery.feed import RESTORED, Feed
from taximeter.delivery.shipper import Shipper
from taximeter.journal.files import lock_if_free, make_directory, remove_abandoned, sync_and_close
from taximeter.journal.format import SUFFIX, is_journal_id
from taximeter.journal.machine import boot_id, is_earlier
from taximeter.journal.mend import mend
from taximeter.journal.read import last_line
from taximeter.journal.recover import Price, close_open_calls

log = logging.getLogger(__name__)


class JournalFiles:
    """The feeds of all files by journal id, oldest first."""

    def __init__(self, directory: Path, *, keep_s: float, now_us: Callable[[], int], price: Price | None) -> None:
        self.by_id: dict[str, Feed] = {}
        self.shippers: Sequence[Shipper] = ()
        self.settled = 0
        """Calls settled for writers that died."""
        self.strangers: dict[str, str] = {}
        """Names in the directory that cannot be journals -> why."""
        self.directory = directory
        self.stamp = -1
        """The directory's time when it was last scanned."""
        self.keep(keep_s)
        self._now_us = now_us
        self._price = price
        self._boot = boot_id()

    def keep(self, keep_s: float) -> None:
        """How long a file stays after its end, when every durable sink has it."""
        self._keep_us = int(keep_s * 1_000_000)

    def scan(self) -> None:
        """Take in new files, drop those that are gone or were replaced. Raises OSError."""
        if not self.directory.exists():  # whoever took it took the files with it; their writers put them back
            log.error("the journals' directory %s was removed; it is made anew", self.directory)
            make_directory(self.directory)
        self.stamp = self.directory.stat().st_mtime_ns
        found: dict[str, tuple[float, os.DirEntry[str]]] = {}
        strangers, self.strangers = self.strangers, {}
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                    self._found(entry, found)
        for name in self.strangers.keys() - strangers.keys():
            log.error("%s in %s is not read: %s", name, self.directory, self.strangers[name])
        for journal_id in [name for name, feed in self.by_id.items() if name not in found]:
            self._gone(self.by_id.pop(journal_id))
        for journal_id, (_, entry) in sorted(found.items(), key=lambda item: item[1][0]):
            feed = self.by_id.get(journal_id)
            if feed is not None and feed.inode != entry.inode():
                log.warning("journal %s was replaced by another file; it is read anew", entry.path)
                feed = None
            if feed is None:
                self.by_id[journal_id] = self._new(Path(entry.path), entry.inode())

    def close_abandoned(self, read: Callable[[Feed], None]) -> bool:
        """Settle and end the files whose writer is gone, read on by `read`. True: there were any, and there is more."""
        worked = False
        for feed in list(self.by_id.values()):
            if feed.ended or feed.halted or not feed.tail.at_end:
                continue
            try:
                worked |= self._settle(feed, read)
            except OSError as error:
                log.error("journal %s cannot be settled yet: %s", feed.tail.path, error)
        return worked

    def remove_delivered(self) -> None:
        """Remove ended files every durable sink has passed and which are old enough."""
        remove_abandoned(self.directory, self._now_us() / 1_000_000)
        durable = [shipper for shipper in self.shippers if shipper.sink.durable]
        if not durable:
            return
        for journal_id, feed in list(self.by_id.items()):
            end = feed.tail.end
            if end is None or feed.halted or self._now_us() - end.at < self._keep_us:
                continue
            if not all(_has_all(shipper, feed) for shipper in durable):
                feed.leaving = False
            elif not feed.leaving:  # each has said so once; one that went back since needs the file
                feed.leaving = True
                for shipper in durable:
                    feed.asked.discard(shipper.name)
                    shipper.wake.set()
            elif all(shipper.name in feed.asked for shipper in durable):
                feed.tail.path.unlink(missing_ok=True)
                del self.by_id[journal_id]

    def skip_known(self, feed: Feed) -> None:
        """Do not read an ended file at all whose records every sink has: there may be gigabytes after a stop."""
        if self.shippers and all(shipper.name in feed.asked for shipper in self.shippers):
            end = last_line(feed.tail.path)
            if end is not None and all(_has_all(shipper, feed, end.seq) for shipper in self.shippers):
                feed.skip(end)

    def may_be_short(self, feed: Feed) -> bool:
        """Its machine was started anew since it was written: the power may have gone, and the end of the file with it.

        Where not even a header is left nobody can tell, and there is nothing to go on from.
        """
        return not feed.ended and (not feed.tail.begun or is_earlier(feed.tail.boot, self._boot))

    def make_room(self, bound: int) -> bool:
        """Drop records from memory until fewer than `bound` are held; False where a sink that keeps up needs those."""
        waited_for = [shipper.name for shipper in self.shippers if shipper.keeps_up]
        excess = sum(feed.buffered for feed in self.by_id.values()) - bound
        for feed in self.by_id.values():
            if excess < 0:
                break
            if waited_for:
                excess -= feed.forget(min(feed.cursors.get(name, 0) for name in waited_for))
            else:
                while excess >= 0 and feed.buffered:
                    excess -= feed.forget_oldest()
        return excess < 0

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
        for shipper in self.shippers:
            shipper.wake.set()
        return feed

    def _gone(self, feed: Feed) -> None:
        durable = [shipper for shipper in self.shippers if shipper.sink.durable]
        if not feed.tail.at_end or not all(_has_all(shipper, feed) for shipper in durable):
            log.error("journal %s was removed before every sink had its records", feed.tail.path)

    def _settle(self, feed: Feed, read: Callable[[Feed], None]) -> bool:
        fd = lock_if_free(feed.tail.path)
        if fd is None:
            feed.sound = True
            return False
        appended = False
        try:
            appended = self._settle_locked(feed, fd, read)
        finally:
            if appended:  # a sync may take seconds on a busy disk
                asyncio.get_running_loop().run_in_executor(None, sync_and_close, fd)
            else:
                os.close(fd)
        return appended

    def _settle_locked(self, feed: Feed, fd: int, read: Callable[[Feed], None]) -> bool:
        known = max(feed.cursors.values(), default=0)
        if not feed.sound or (known > feed.seq and not self.may_be_short(feed)):
            return False  # it may be a restored copy: nothing must be appended to that
        if self.may_be_short(feed) and not all(shipper.name in feed.asked for shipper in self.shippers):
            return False  # a sink that does not answer may know of more
        _read_on(feed, read)  # what it wrote between the last look and its death
        if feed.halted or feed.ended:
            return False
        if feed.had_ended and _has_more(feed):  # of a copy: a power loss had taken them before it was ended
            feed.halt(f"calls are open in it that had gone when it ended; {RESTORED}")
            return False
        if feed.tail.begun and (known > feed.seq or feed.lost):
            mend(fd, feed.tail, known, feed.lost, now_us=self._now_us())
            _read_on(feed, read)
        self.settled += close_open_calls(fd, feed.tail, now_us=self._now_us(), price=self._price)
        return True


def _read_on(feed: Feed, read: Callable[[Feed], None]) -> None:
    """To the end of the file as it is now."""
    while not feed.halted:
        read(feed)
        if feed.tail.at_end:
            break


def _has_more(feed: Feed) -> bool:
    """Calls are open in it of which the keeper has no record behind what is left of the file."""
    return not feed.tail.calls.keys() <= {(record.request_id, record.attempt) for record in feed.lost}


def _has_all(shipper: Shipper, feed: Feed, upto: int | None = None) -> bool:
    """A sink has the records up to `upto` (default: all that were read) and, if it keeps journals, knows of the end."""
    seq = feed.seq if upto is None else upto
    told = shipper.keeper is None or not seq or shipper.name in feed.told_end
    return told and feed.cursors.get(shipper.name, 0 if not seq else -1) >= seq
