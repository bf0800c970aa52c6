"""The Redis counters (DESIGN §5): what each workspace used, added exactly once by one script per workspace and batch.

The truth about what has been counted is in Redis: a cursor per workspace and journal beside the sums, and a low
watermark per journal over all workspaces. Memory here is a guess the scripts check, and a way to notice a Redis
that went back in time. Knows nothing of SQL; history comes in as a `LedgerSnapshot`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from taximeter.core.errors import ConfigError
from taximeter.core.record import BUDGETS, Record, reservation_of, seq_of
from taximeter.core.totals import FIELDS, Totals
from taximeter.sinks.groups import Group, grouped
from taximeter.sinks.ledger import Cell, Ledger, LedgerSnapshot, Standing, TrackCell
from taximeter.sinks.redis import keys
from taximeter.sinks.redis.audit import Audit, Auditor
from taximeter.sinks.redis.cells import cells
from taximeter.sinks.redis.client import Call, RedisServer, Script, raised
from taximeter.sinks.redis.nodes import leave_nodes, register_node
from taximeter.sinks.redis.rebuild import CountersMoved, Rebuilder
from taximeter.sinks.sink import Batch

__all__ = ["Cell", "Counters", "CountersMoved", "Ledger", "LedgerSnapshot", "Standing", "TrackCell"]

log = logging.getLogger("taximeter.counters")

_APPLY = Script("counters.lua")
_WATERMARK = Script("watermark.lua")
_RECORDS_A_CALL = 1_000
"""A script holds up the whole Redis while it runs: about 30 ms at this many records."""
_REMEMBERED = 100_000
"""Workspaces, and keys with an expiry, remembered; beyond it memory starts over, which only costs time."""

_JOURNALS = 64
"""Journals remembered a workspace, more than deliver at a time."""


class _Workspace:
    """What is believed of one workspace in Redis."""

    __slots__ = ("create", "cursors", "generation", "head", "prefix", "scopes", "tail")

    def __init__(self, name: str, generation: str, *, create: bool, scopes: frozenset[str]) -> None:
        self.prefix = prefix = keys.prefix(name)
        self.generation = generation
        self.create = create
        self.cursors: dict[str, int] = {}
        self.head = [prefix + k for k in ("gen", "cursor", "models", "model:other", "tasks", "task:other")]
        self.tail = [prefix + k for k in (keys.HELD, keys.RESERVED, keys.RESERVED_AT)]
        self.scopes = scopes
        """Keys and tasks counted apart; they change with the generation only."""


class _Part:
    """One workspace's records of one journal in a delivery."""

    __slots__ = ("after", "expiries", "groups", "journal_id", "last", "records", "workspace")

    def __init__(self, workspace: str, journal_id: str) -> None:
        self.workspace = workspace
        self.journal_id = journal_id
        self.records: list[Record] = []
        self.groups: list[Group] = []
        """Of these records."""
        self.after = self.last = 0
        self.expiries: dict[str, int] = {}


class Counters:
    """The sink `redis`. One object for a process; its methods may be called concurrently and take turns.

    Every method that talks to Redis raises redis-py's errors and OSError (`redis.client.ERRORS`).
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
        scopes: Callable[[str], Collection[str]] = lambda workspace: (),
    ) -> None:
        """`history` is what lost counters are rebuilt from; `history_id` names it (another one never overwrites).
        `scopes` names the keys and tasks of a workspace that have a budget (budgets.rule): asked at a rebuild.

        Does not connect. Raises ConfigError for a URL that cannot be used.
        """
        self.server = RedisServer(url, timeout_s=timeout_s)
        self.duplicates_skipped = 0
        """Records that came again and had been counted."""
        self._now_us = now_us
        self._rebuilder = Rebuilder(self.server, history, history_id=history_id, now_us=now_us, scopes=scopes)
        self._auditor = Auditor(self.server, history, self._rebuilder, now_us=now_us)
        self._lock = asyncio.Lock()
        self._at: dict[str, int] = {}
        self._generation = ""
        self._workspaces: dict[str, _Workspace] = {}
        self._expiries: dict[str, int] = {}
        self._damaged: set[str] = set()
        self._in_doubt = True

    @property
    def drift(self) -> int:
        """How many audits found a workspace's counters differing from history (taximeter_redis_drift_total)."""
        return self._auditor.drift

    # --- the sink ---------------------------------------------------------------------------------------------------

    async def cursors(self, journal_ids: Iterable[str]) -> dict[str, int]:
        """Up to which `seq` every workspace has been counted, of each journal; 0 where nothing is known.

        After any failure this is where trust is restored: a Redis that went back is noticed, its journals rewound
        or its workspaces rebuilt from history. Raises ConfigError when Redis may evict keys.
        """
        async with self._lock:
            try:
                return await self._locate(list(dict.fromkeys(journal_ids)))
            except BaseException:
                self._doubt()
                raise

    async def deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Count each batch whose `after` is the journal's cursor; answer the cursors of these journals."""
        async with self._lock:
            try:
                return await self._deliver(batches)
            except BaseException:
                self._doubt()
                raise

    async def retake(self, records: Sequence[Record]) -> None:
        """See sinks.sink.Retaker. Their workspaces are written anew from history, which counts each record once."""
        for workspace in sorted({record.workspace for record in records}):
            await self.rebuild(workspace)

    async def close(self) -> None:
        await self.server.close()

    # --- beside the sink --------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Raise ConfigError if this Redis is allowed to throw counters away to make room."""
        policies = await self.server.memory_policies()
        if policies is None:
            log.warning("%s does not tell its eviction policy; it must be noeviction", self.server.shown)
            return
        for maxmemory, policy in policies:
            if maxmemory and policy != "noeviction":
                raise ConfigError(
                    f"{self.server.shown} has maxmemory {maxmemory} and maxmemory-policy {policy}: it would drop "
                    "counters to make room. Set maxmemory-policy noeviction, or use a Redis of its own."
                )

    async def register_node(self, node: str, history_id: str) -> None:
        """Say that this node counts here from this history; call it at start and then at least every 30 s.

        Raises ConfigError when another live node counts here from another history (DESIGN §1, Scale-out).
        """
        self._rebuilder.history_id = history_id
        await register_node(self.server, node, history_id)

    async def leave(self, node: str) -> None:
        """Take the node off the list: it is stopping."""
        await leave_nodes(self.server, node)

    async def totals(self, workspace: str, scope: str = "total") -> Totals:
        """One hash: `total`, `month:2026-11`, `day:2026-11-22`, `hour:2026-11-22T09`, or from `counter_keys`:
        `model(provider, model)`, `task(name)`, `track(name)`. Zeros where there is none."""
        found = await self.server.command("HMGET", keys.prefix(workspace) + scope, *FIELDS)
        return Totals(**{field: int(value or 0) for field, value in zip(FIELDS, found, strict=True)})

    async def rebuild(self, workspace: str | None = None) -> int:
        """Write the counters of one workspace, or of all, anew from history; answers how many workspaces.

        May run while nodes deliver: theirs is refused meanwhile, then sent again from where history was.
        """
        async with self._lock:
            self._doubt()
            return await self._rebuilder.rebuild(None if workspace is None else [workspace])

    async def audit(self, workspaces: int = 20) -> Audit:
        """Compare the next few workspaces with history, rebuild those that differ. To be called now and then."""
        async with self._lock:
            audit = await self._auditor.audit(workspaces)
            if audit.rebuilt:
                self._doubt()
            return audit

    # --- inside -----------------------------------------------------------------------------------------------------

    def _doubt(self) -> None:
        self._in_doubt = True
        self._at.clear()
        self._expiries.clear()

    async def _locate(self, ids: list[str]) -> dict[str, int]:
        if self._in_doubt:
            await self.server.reset()
            await self.check()
        generation, *found = await self._marks(ids)
        if not generation:  # a Redis never used, emptied, or restored to before we came
            await self._rebuilder.rebuild(None)
            self._workspaces.clear()
            generation, *found = await self._marks(ids)
        self._generation = generation.decode()
        at = {journal_id: int(seq or 0) for journal_id, seq in zip(ids, found, strict=True)}
        if self._in_doubt:
            await self._verify(at)
        self._in_doubt = False
        self._at |= at
        return at

    async def _marks(self, ids: list[str]) -> list[Any]:
        found: list[Any] = await self.server.command("HMGET", keys.WATERMARK, keys.GENERATION_FIELD, *ids)
        return found

    async def _verify(self, at: dict[str, int]) -> None:
        """Compare Redis with what is remembered of it; lower `at` to where it went back to."""
        lost, back = [], dict(at)
        for name, (generation, cursors) in (await self._actual()).items():
            known = self._workspaces[name]
            if known.create and not generation:  # new, and its first script did not get through
                continue
            if not generation or generation.startswith(keys.REBUILDING_PREFIX) or name in self._damaged:
                lost.append(name)
            elif generation != known.generation:  # rebuilt by another node, which lowered the watermark as needed
                del self._workspaces[name]
            else:
                behind = {j: seq for j, seq in cursors.items() if seq < known.cursors[j]}
                known.cursors |= cursors
                if all(j in at and (seq or not at[j]) for j, seq in behind.items()):
                    back |= {j: min(back[j], seq) for j, seq in behind.items()}
                else:  # the journal's file is gone; or the cursor is, and how much was counted can't be told
                    lost.append(name)
        if lost:
            log.error("Redis lost counters of %d workspaces: rebuilding them from history", len(lost))
            await self._rebuilder.rebuild(lost)
            for name in lost:
                del self._workspaces[name]
            self._damaged.clear()
            raise CountersMoved(f"{len(lost)} workspaces were rebuilt from history")
        lowered = {journal_id: seq for journal_id, seq in back.items() if seq < at[journal_id]}
        if lowered:
            log.error("Redis went back in time: reading %d journals again", len(lowered))
            await self._move("down", lowered)
            at |= lowered

    async def _actual(self) -> dict[str, tuple[str, dict[str, int]]]:
        """Generation and cursors, as they are in Redis, of every workspace and journal remembered."""
        actual: dict[str, tuple[str, dict[str, int]]] = {}
        names = list(self._workspaces)
        for start in range(0, len(names), 500):
            some = names[start : start + 500]
            commands: list[tuple[str, ...]] = []
            for name in some:
                known = self._workspaces[name]
                commands += (("GET", known.head[0]), ("HMGET", known.head[1], "", *known.cursors))
            replies = await self.server.commands(commands)
            for name, generation, found in zip(some, replies[::2], replies[1::2], strict=True):
                journal_ids = self._workspaces[name].cursors
                cursors = {j: int(seq or 0) for j, seq in zip(journal_ids, found[1:], strict=True)}
                actual[name] = ((generation or b"").decode(), cursors)
        return actual

    async def _deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
        if self._in_doubt or any(batch.journal_id not in self._at for batch in batches):
            await self._locate(list(dict.fromkeys(batch.journal_id for batch in batches)))
        reached = {batch.journal_id: self._at[batch.journal_id] for batch in batches}
        parts: dict[tuple[str, str], _Part] = {}
        for batch in batches:
            if reached[batch.journal_id] == batch.after:
                reached[batch.journal_id] = batch.upto
                _cut(batch, parts)
        await self._meet({part.workspace for part in parts.values()})
        await self._count(list(parts.values()))
        await self._move("up", {j: seq for j, seq in reached.items() if seq > self._at[j]})
        self._at |= reached
        return reached

    async def _meet(self, names: set[str]) -> None:
        """Learn the generation of workspaces not seen before; find out whether they are new or were lost."""
        unknown = sorted(name for name in names if name not in self._workspaces)
        if not unknown:
            return
        if len(self._workspaces) + len(unknown) > _REMEMBERED:
            self._workspaces.clear()
            unknown = sorted(names)
        commands: list[tuple[str, ...]] = [("HGET", keys.WATERMARK, keys.GENERATION_FIELD)]
        for name in unknown:
            prefix = keys.prefix(name)
            commands += (("SADD", keys.WORKSPACES, name), ("GET", prefix + "gen"), ("SMEMBERS", prefix + keys.SCOPES))
        marker, *replies = await self.server.commands(commands)
        if (marker or b"").decode() != self._generation:
            raise CountersMoved("Redis was emptied or rebuilt")
        lost = []
        for name, added, found, scopes in zip(unknown, replies[::3], replies[1::3], replies[2::3], strict=True):
            generation = (found or b"").decode()
            if generation.startswith(keys.REBUILDING_PREFIX) or (not generation and not added):
                lost.append(name)
            else:
                self._workspaces[name] = _Workspace(
                    name,
                    generation or secrets.token_hex(8),
                    create=not generation,
                    scopes=frozenset(scope.decode() for scope in scopes),
                )
        if lost:
            log.error("Redis lost counters of %s: rebuilding from history", ", ".join(lost[:10]))
            await self._rebuilder.rebuild(lost)
            raise CountersMoved(f"{len(lost)} workspaces were rebuilt from history")

    async def _count(self, parts: list[_Part]) -> None:
        """Run the script for each part; cut again those of which Redis had counted some already."""
        for _ in range(3):  # once; again where a reply had been lost; a third time says that somebody else counts here
            calls: list[Call] = []
            owners: list[_Part] = []
            for part in parts:
                of_part = self._calls(part)
                calls += of_part
                owners += [part] * len(of_part)
            replies = await self.server.run(_APPLY, calls)
            for part, reply in zip(owners, replies, strict=True):
                if type(reply) is ResponseError:  # a command failed inside the script, say a key that is not a hash:
                    self._damaged.add(part.workspace)  # what came before it in the script stays done
            raised(replies)
            again = []
            for part, reply in {id(part): (part, reply) for part, reply in zip(owners, replies, strict=True)}.values():
                workspace = self._workspaces[part.workspace]
                if reply != 1:
                    self._cut_again(part, workspace, reply)
                    again.append(part)
                    continue
                workspace.create = False
                workspace.cursors[part.journal_id] = part.last
                if len(workspace.cursors) > _JOURNALS:
                    del workspace.cursors[next(iter(workspace.cursors))]
                self._expiries |= part.expiries
            parts = [part for part in again if part.records]
            if not parts:
                if len(self._expiries) > _REMEMBERED:
                    self._expiries.clear()
                return
        raise CountersMoved("the cursors move without us: another process delivers the same journals")

    def _calls(self, part: _Part) -> list[Call]:
        """The script calls of a part: one, or a chain for a very long one, each on the cursor the one before leaves."""
        workspace = self._workspaces[part.workspace]
        expected = workspace.cursors.get(part.journal_id, 0)
        part.after, part.expiries = expected, {}
        calls: list[Call] = []
        for start in range(0, len(part.records), _RECORDS_A_CALL):
            whole = len(part.records) <= _RECORDS_A_CALL
            records = part.records if whole else part.records[start : start + _RECORDS_A_CALL]
            groups = part.groups if whole else grouped(records)
            first, last = seq_of(records[0].event_id), seq_of(records[-1].event_id)
            budgeted = [record for record in records if BUDGETS in record.tags]
            out = cells(workspace.prefix, groups, self._expiries, workspace.scopes, budgeted)
            part.expiries |= out.expiries
            head = (workspace.generation, int(workspace.create), part.journal_id, expected, first, last)
            call: Call = [*workspace.head, *out.keys], [*head, keys.MAX_NAMES, out.words]
            held = [reservation_of(record) for record in budgeted]
            calls.append(([*call[0], *workspace.tail], [*call[1], " ".join(held)]) if held else call)
            expected = last
        part.last = expected
        return calls

    def _cut_again(self, part: _Part, workspace: _Workspace, reply: list[bytes]) -> None:
        """Keep of a refused part what Redis has not counted. Raises CountersMoved if Redis went back."""
        why, actual = reply[0], reply[1].decode()
        if why != b"cursor":
            raise CountersMoved(f"the counters of {part.workspace!r} were lost or rebuilt")
        if int(actual) < part.after:
            raise CountersMoved(f"the counters of {part.workspace!r} went back from {part.after} to {actual}")
        kept = [record for record in part.records if seq_of(record.event_id) > int(actual)]
        self.duplicates_skipped += len(part.records) - len(kept)
        part.records, part.groups = kept, grouped(kept)
        workspace.create = False
        workspace.cursors[part.journal_id] = int(actual)

    async def _move(self, way: str, cursors: dict[str, int]) -> None:
        """Move watermarks. Raises CountersMoved if a rebuild began since we looked."""
        if not cursors:
            return
        afterwards = secrets.token_hex(8)
        args: list[str | int] = [self._generation, way, afterwards, self._now_us() // 1_000_000]
        for cursor in cursors.items():
            args += cursor
        [moved] = raised(await self.server.run(_WATERMARK, [([keys.WATERMARK, keys.MOVED], args)]))
        if not moved:
            raise CountersMoved("a rebuild began")
        if way == "down":
            self._generation = afterwards


def _cut(batch: Batch, parts: dict[tuple[str, str], _Part]) -> None:
    """Sort a batch's records by workspace."""
    of: dict[str, _Part] = {}
    for group in batch.groups:
        name = group.record.workspace
        if name not in of:
            of[name] = parts.setdefault((name, batch.journal_id), _Part(name, batch.journal_id))
        of[name].groups.append(group)
    if len(of) == 1:
        of[name].records += batch.records
        return
    for record in batch.records:
        of[record.workspace].records.append(record)
