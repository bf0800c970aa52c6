"""One journal as delivery sees it: what is read, what is still in memory for all sinks, where each sink is in it.

Records are decoded once and shared. What fell out of memory is read again from the file, by offsets kept for that;
so forgetting is always safe, and memory stays bounded however far a sink is behind.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from pathlib import Path

from taximeter.core.lines import End
from taximeter.core.record import Record, seq_of
from taximeter.journal.read import records_between
from taximeter.journal.tail import Block, Tail
from taximeter.sinks.batch import Batch

MARK_RECORDS = 256
"""Records between two kept offsets: what is read again at least, and 8,000 times less memory than the file."""

RESTORED = "it seems to be restored from a copy"
"""What a file is suspected of when sinks know other records of it than it holds."""

_upto = attrgetter("upto")


class Feed:
    """A journal file, and every sink's place in it."""

    def __init__(self, path: Path, inode: int) -> None:
        self.tail = Tail(path)
        self.inode = inode
        self.cursors: dict[str, int] = {}
        """sink -> the cursor it last told."""
        self.asked: set[str] = set()
        """Sinks whose cursor can be cut for; one that failed has to be asked again."""
        self.verified: set[str] = set()
        """Journal keepers whose digest of it agrees, or that had never heard of it."""
        self.told_end: set[str] = set()
        """Journal keepers that know of the end."""
        self.sound = False
        """It is not a file come back from a copy: the keeper's digest agrees, or its writer was seen alive."""
        self.had_ended = False
        """The keeper knows of its end, whatever the file has: every call in it is over."""
        self.leaving = False
        """Every sink has said that it has all of it, and is asked once more before the file is removed."""
        self.lost: list[Record] = []
        """What the keeper has of lines that are not in it any more, its machine having lost power."""
        self.buffered = 0
        """Records in memory."""
        self._cuts: dict[int, Batch] = {}
        """Batches cut of what is in memory, by their `after`: most sinks cut the same ones, and share their sums."""
        self._skipped = False
        self._blocks: list[Block] = []
        self._marks = [Block(0, 0, [], 0, "", 0)]
        """Places in the file where a batch can be cut, their digests being known: blocks without their records."""

    @property
    def journal_id(self) -> str:
        return self.tail.journal_id

    @property
    def seq(self) -> int:
        """The last one read."""
        return self.tail.seq

    @property
    def halted(self) -> str | None:
        """Why nothing of it is delivered."""
        return self.tail.broken

    @property
    def ended(self) -> bool:
        return self.tail.end is not None

    def skip(self, end: End) -> None:
        """Take an ended file as read: every sink has its records. Raises OSError."""
        self.tail.skip(end)
        self._skipped = True

    def halt(self, reason: str) -> None:
        """Deliver nothing of it any more; an operator has to look at it."""
        self.forget(self.seq)
        self.tail.break_off(reason)

    def read(self, known: int) -> bool:
        """Read on by a slab, not decoding records up to `known`. True: closed calls were found. Raises OSError."""
        block = self.tail.read(known)
        if block is None:
            return False
        mark, marks = block._replace(records=[]), self._marks
        if len(marks) > 1 and mark.upto - marks[-2].upto < MARK_RECORDS:
            marks[-1] = mark._replace(first_at=marks[-1].first_at)
        else:
            marks.append(mark)
        if block.records:
            if self._blocks and self._blocks[-1].upto != block.after:
                self.forget(self.seq)
            self._blocks.append(block)
            self.buffered += len(block.records)
        return True

    def batch(self, after: int, most: int, *, tell_end: bool) -> Batch | None:
        """The records behind the cursor `after`, about `most` of them, or None where there are none. Raises OSError.

        `tell_end`: an ended journal whose records all were delivered makes an empty batch.
        """
        if self.halted or after > self.seq:
            return None
        records: list[Record] = []
        if after == self.seq:
            if not (tell_end and self.ended and after):
                return None
            mark = self._marks[-1]
        elif self._skipped:  # the sink went back after it had told that it has everything
            self.tail, self._skipped = Tail(self.tail.path), False
            return None
        elif self._blocks and after >= self._blocks[0].after:
            mark, records = self._from_memory(after, most)
        else:
            mark, records = self._from_file(after, most)
        upto, ended = mark.upto, self.ended and mark.upto == self.seq
        known = self._cuts.get(after)
        if known is not None and (known.upto, known.ended) == (upto, ended):
            return known
        batch = Batch(
            journal_id=self.journal_id, after=after, upto=upto, records=records, digest=mark.digest, ended=ended
        )
        if self._blocks and self._blocks[0].after <= after < upto:
            self._cuts[after] = batch
        return batch

    def forget(self, upto: int) -> int:
        """Drop blocks up to a cursor from memory; returns how many records that were."""
        count = bisect_right(self._blocks, upto, key=_upto)
        dropped = sum(len(block.records) for block in self._blocks[:count])
        self._cuts = {after: batch for after, batch in self._cuts.items() if after >= upto}
        del self._blocks[:count]
        self.buffered -= dropped
        return dropped

    def forget_oldest(self) -> int:
        """Drop the oldest block from memory; returns how many records that were."""
        return self.forget(self._blocks[0].upto) if self._blocks else 0

    def oldest_at(self, cursor: int) -> int | None:
        """About when the first record behind a cursor ended (µs); None where there is none."""
        if self.halted or cursor >= self.seq:
            return None
        blocks = self._blocks
        if blocks and cursor >= blocks[0].after:
            return blocks[bisect_right(blocks, cursor, key=_upto)].first_at
        return self._marks[bisect_right(self._marks, cursor, key=_upto)].first_at

    def _from_memory(self, after: int, most: int) -> tuple[Block, list[Record]]:
        records: list[Record] = []
        start = bisect_right(self._blocks, after, key=_upto)
        block = self._blocks[start]
        for block in self._blocks[start:]:
            whole = block.after >= after
            records += block.records if whole else [each for each in block.records if seq_of(each.event_id) > after]
            if len(records) >= most:
                break
        return block, records

    def _from_file(self, after: int, most: int) -> tuple[Block, list[Record]]:
        records: list[Record] = []
        place = bisect_right(self._marks, after, key=_upto)
        mark = self._marks[place]
        for mark in self._marks[place:]:
            start = self._marks[place - 1]
            records += records_between(self.tail.path, start.end_bytes, mark.end_bytes, after)
            place += 1
            if len(records) >= most:
                break
        return mark, records
