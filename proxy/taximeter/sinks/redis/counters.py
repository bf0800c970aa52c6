"""The Redis counters (DESIGN §5): what each workspace used, added exactly once by one script per workspace and batch.

The truth about what has been counted is in Redis: a cursor per workspace and journal beside the sums, and a low
watermark per journal over all workspaces. Memory here is a guess the scripts check, and a way to notice a Redis
that went back in time. Knows nothing of SQL; history comes in as a `LedgerSnapshot`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from redis.exceptions import ResponseError

from taximeter.budgets.tally import Tally
from taximeter.core.holds import BUDGETS, reservation_of
from taximeter.core.record import Record, seq_of
from taximeter.sinks.batch import Batch, grouped
from taximeter.sinks.ledger import LedgerSnapshot
from taximeter.sinks.redis import keys
from taximeter.sinks.redis.audit import Auditor
from taximeter.sinks.redis.budgeted import add_tallies
from taximeter.sinks.redis.cells import Sums
from taximeter.sinks.redis.client import Call, RedisServer, Script, raised
from taximeter.sinks.redis.freed import CallsOf, free
from taximeter.sinks.redis.positions import REMEMBERED, Positions, WorkspaceBatch
from taximeter.sinks.redis.rebuild import CountersMoved, Rebuilder

_APPLY = Script("counters.lua")
_WATERMARK = Script("watermark.lua")
_RECORDS_A_CALL = 1_000  # a script holds up the whole Redis while it runs: about 30 ms at this many records
_JOURNALS = 64  # remembered a workspace, more than deliver at a time


class Counters:
    """The sink `redis`. One object for a process; its methods may be called concurrently and take turns.

    Every method that talks to Redis raises redis-py's errors and OSError (`client.ERRORS`).
    """

    name = "redis"
    durable = True

    def __init__(
        self,
        url: str,
        *,
        history: LedgerSnapshot | None = None,
        history_id: str = "",
        timeout_s: float = 5.0,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        tallies: Callable[[str], Collection[Tally]] = lambda workspace: (),
        calls_of: CallsOf | None = None,
        split: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """`history` is what lost counters are rebuilt from; `history_id` names it (another one never overwrites).
        `tallies`: what is added up for a workspace's budgets, for a rebuild; `calls_of`: see freed; `split`: split.

        Does not connect. Raises ConfigError for a URL that cannot be used.
        """
        self.server = RedisServer(url, timeout_s=timeout_s)
        self.duplicates_skipped = 0
        """Records that came again and had been counted."""
        self._now_us = now_us
        self._calls_of = calls_of
        self.rebuilder = Rebuilder(self.server, history, history_id, now_us=now_us, tallies=tallies, split=split)
        self.auditor = Auditor(self.rebuilder, self.rebuild)
        self.positions = Positions(self.server, self.rebuilder)
        self._lock = asyncio.Lock()

    async def cursors(self, journal_ids: Iterable[str]) -> dict[str, int]:
        """Up to which `seq` every workspace has been counted, of each journal; 0 where nothing is known.

        After any failure this is where trust is restored (`Positions`). Raises ConfigError when Redis may evict keys.
        """
        async with self._trusted():
            return await self.positions.tell(list(dict.fromkeys(journal_ids)))

    async def deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Count each batch whose `after` is the journal's cursor; returns the cursors of these journals."""
        async with self._trusted():
            if self._calls_of is not None:
                await free(self.server, (record for batch in batches for record in batch.records), self._calls_of)
            return await self._deliver(batches)

    async def retake(self, records: Sequence[Record]) -> None:
        """See sinks.sink.Retaker. Their workspaces are written anew from history, which counts each record once."""
        for workspace in sorted({record.workspace for record in records}):
            await self.rebuild(workspace)

    async def close(self) -> None:
        await self.server.close()

    async def rebuild(self, workspace: str | None = None) -> int:
        """See `Rebuilder.rebuild`: of one workspace, or of all."""
        async with self._lock:
            self.positions.doubt()
            return await self.rebuilder.rebuild(None if workspace is None else [workspace])

    @asynccontextmanager
    async def _trusted(self) -> AsyncIterator[None]:
        """One at a time; after any failure nothing is believed."""
        async with self._lock:
            try:
                yield
            except BaseException:
                self.positions.doubt()
                raise

    async def _deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
        positions = self.positions
        if positions.in_doubt or any(batch.journal_id not in positions.at for batch in batches):
            await positions.locate(list(dict.fromkeys(batch.journal_id for batch in batches)))
        reached = {batch.journal_id: positions.at[batch.journal_id] for batch in batches}
        parts: dict[tuple[str, str], WorkspaceBatch] = {}
        for batch in batches:
            if reached[batch.journal_id] == batch.after:
                reached[batch.journal_id] = batch.upto
                _cut(batch, parts)
        names = {part.workspace for part in parts.values()}
        if not names <= positions.workspaces.keys():
            await positions.meet(names)
        await self._count(list(parts.values()))
        await self._raise_watermarks({j: seq for j, seq in reached.items() if seq > positions.at[j]})
        positions.at |= reached
        return reached

    async def _count(self, parts: list[WorkspaceBatch]) -> None:
        """Run the script for each part; cut again those of which Redis had counted some already."""
        positions = self.positions
        for _ in range(3):  # once; again where a reply had been lost; a third time says that somebody else counts here
            asked = [(part, call) for part in parts for call in self._calls(part)]
            replies = await self.server.run(_APPLY, [call for _, call in asked])
            for (part, _), reply in zip(asked, replies, strict=True):
                if type(reply) is ResponseError:  # a command failed inside the script, say a key that is not a hash:
                    positions.damaged.add(part.workspace)  # what came before it in the script stays done
            raised(replies)
            again = []
            for part, reply in {id(of): (of, reply) for (of, _), reply in zip(asked, replies, strict=True)}.values():
                workspace = positions.workspaces[part.workspace]
                if reply != 1:
                    self.duplicates_skipped += part.cut_again(workspace, reply)
                    again.append(part)
                    continue
                workspace.create = False
                workspace.cursors[part.journal_id] = part.last
                if len(workspace.cursors) > _JOURNALS:
                    del workspace.cursors[next(iter(workspace.cursors))]
                positions.expiries |= part.expiries
            parts = [part for part in again if part.records]
            if not parts:
                if len(positions.expiries) > REMEMBERED:
                    positions.expiries.clear()
                return
        raise CountersMoved("the cursors move without us: another process delivers the same journals")

    def _calls(self, part: WorkspaceBatch) -> list[Call]:
        """The script calls of a part: one, or a chain for a very long one, each on the cursor the one before leaves."""
        positions = self.positions
        workspace = positions.workspaces[part.workspace]
        where = workspace.parts[0] if len(workspace.parts) == 1 else workspace.part(part.journal_id)
        part.after = expected = workspace.cursors.get(part.journal_id, 0)
        part.expiries, calls = {}, list[Call]()
        for start in range(0, len(part.records), _RECORDS_A_CALL):
            records = part.records[start : start + _RECORDS_A_CALL]
            groups = part.groups if len(records) == len(part.records) else grouped(records)
            sums = Sums(where.prefix, positions.expiries)
            sums.add(groups)
            if workspace.tallies:
                positions.touch(part.workspace, add_tallies(sums, records, workspace.tallies, self._now_us()))
            part.expiries |= sums.expiries
            seqs = expected, seq_of(records[0].event_id), seq_of(records[-1].event_id)
            head = (workspace.generation, int(workspace.create), part.journal_id, *seqs)
            call: Call = [*where.head, *sums.keys], [*head, keys.MAX_NAMES, sums.words()]
            held = [reservation_of(record) for record in records if BUDGETS in record.tags] if where.tail else []
            calls.append(([*call[0], *where.tail], [*call[1], " ".join(held)]) if held else call)
            expected = seqs[-1]
        part.last = expected
        return calls

    async def _raise_watermarks(self, cursors: dict[str, int]) -> None:
        """Say that every workspace has been counted up to here. Raises CountersMoved if a rebuild began meanwhile."""
        if not cursors:
            return
        args: list[str | int] = [self.positions.generation, "up", "", self._now_us() // 1_000_000]
        args += [word for cursor in cursors.items() for word in cursor]
        [moved] = raised(await self.server.run(_WATERMARK, [([keys.WATERMARK, keys.MOVED], args)]))
        if not moved:
            raise CountersMoved("a rebuild began")


def _cut(batch: Batch, parts: dict[tuple[str, str], WorkspaceBatch]) -> None:
    """Sort a batch's records by workspace."""
    of: dict[str, WorkspaceBatch] = {}
    for group in batch.groups:
        name = group.record.workspace
        if name not in of:
            of[name] = parts.setdefault((name, batch.journal_id), WorkspaceBatch(name, batch.journal_id))
        of[name].groups.append(group)
    if len(of) == 1:
        of[name].records += batch.records
        return
    for record in batch.records:
        of[record.workspace].records.append(record)
