"""Comparing Redis counters with history, a few workspaces at a time, and rebuilding what differs."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from taximeter.budgets.tally import AMOUNTS, parse
from taximeter.core.totals import FIELDS, saturated
from taximeter.sinks.ledger import LedgerSnapshot
from taximeter.sinks.redis import keys
from taximeter.sinks.redis.client import Call, Script, raised
from taximeter.sinks.redis.rebuild import Rebuilder

log = logging.getLogger("taximeter.counters")

_READ = Script("audit.lua")
GRACE_US = 60_000_000
"""Records history has and Redis has not are late, and lost when they are still missing after this."""

GONE_S = 86_400
"""A journal no node has vouched for in this long has gone with its machine: what history lacks of it never comes."""

MOST_SUMS = 1_000
"""Of what budgets are measured by, so many sums of a workspace are compared."""


class Audit(msgspec.Struct, kw_only=True):
    """What one round found."""

    checked: int = 0
    """Workspaces compared; those history had not caught up with are not."""
    rebuilt: list[str] = msgspec.field(default_factory=list)


class _Kept:
    """What Redis has of a workspace's counters, or of a part of them, at one moment."""

    __slots__ = ("cursors", "generation", "sums")

    def __init__(self, generation: bytes, flat: list[bytes], sums: list[bytes | None]) -> None:
        self.generation = generation.decode()
        self.cursors = {flat[i].decode(): int(flat[i + 1]) for i in range(0, len(flat), 2)}
        self.sums = [int(amount or 0) for amount in sums]


def _of_one(parts: list[_Kept]) -> bool:
    return all(part.generation == parts[0].generation for part in parts)


class Auditor:
    """Goes through all workspaces round and round."""

    def __init__(self, rebuilder: Rebuilder, rebuild: Callable[[str | None], Awaitable[int]]) -> None:
        """`rebuild` writes one workspace, or all, anew; `rebuilder` is what it does that with."""
        self.drift = 0
        """How many audits found a workspace's counters differing from history (taximeter_redis_drift_total)."""
        self._rebuilder, self._rebuild = rebuilder, rebuild
        self._server, self._now_us = rebuilder.server, rebuilder.now_us
        self._next: list[str] = []
        self._late: dict[str, tuple[object, int]] = {}

    async def audit(self, workspaces: int = 20) -> Audit:
        """Compare the next few workspaces with history, rebuild those that differ. To be called now and then.

        Raises what Redis or history raise.
        """
        audit = Audit()
        history = self._rebuilder.history
        if history is None or not await self._same_history():
            return audit
        if not await self._is_marked():
            known = await self._rebuilder.everything()
            if await self._is_marked():  # somebody has just begun to count here: at a first start nothing was lost
                return audit
            self._next = []
            await self._rebuild(None)
            audit.rebuilt = known
            self.drift += len(known)
            return audit
        if not self._next:
            self._next = await self._rebuilder.everything()
        # In this order: everything up to these watermarks is in the sums read afterwards. Once for all of this round,
        # since there is one for each journal there ever was.
        marks = await self._marks()
        for _ in range(min(workspaces, len(self._next))):
            workspace = self._next.pop(0)
            fine = await self._fine(history, workspace, marks)
            audit.checked += fine is not None
            if fine is False:
                self.drift += 1
                self._late.pop(workspace, None)
                await self._rebuild(workspace)
                audit.rebuilt.append(workspace)
        return audit

    async def _is_marked(self) -> bool:
        """Whether this Redis knows that it has been counted in."""
        return bool(await self._server.command("HEXISTS", keys.WATERMARK, keys.GENERATION_FIELD))

    async def _same_history(self) -> bool:
        """Whether the counters here come from our history: an emptier one must not overwrite them unasked."""
        theirs = await self._server.command("HGET", keys.WATERMARK, keys.HISTORY_FIELD)
        ours = self._rebuilder.history_id
        if theirs is None or not ours or theirs.decode() == ours:
            return True
        log.error(
            "The counters in %s come from another history. They are not audited; "
            "`taximeter rebuild redis` replaces them by what this history knows.",
            self._server.shown,
        )
        return False

    async def _marks(self) -> dict[str, int]:
        marks = await self._server.command("HGETALL", keys.WATERMARK)
        not_journals = (keys.GENERATION_FIELD, keys.HISTORY_FIELD)
        return {name.decode(): int(seq) for name, seq in marks.items() if name.decode() not in not_journals}

    async def _fine(self, history: LedgerSnapshot, workspace: str, marks: Mapping[str, int]) -> bool | None:
        """Whether Redis and history agree; None where it can't be said now."""
        kept = await self._kept(workspace)
        own = {journal_id: seq for part in kept for journal_id, seq in part.cursors.items()}
        at = dict(own)
        for journal_id, seq in marks.items():
            at[journal_id] = max(at.get(journal_id, 0), seq)
        standing = await history.standing(workspace, at)
        ahead = [journal_id for journal_id, theirs in standing.behind.items() if own.get(journal_id, 0) > theirs]
        if ahead and await self._is_coming(ahead):
            return None
        if kept[0].generation.startswith(keys.REBUILDING_PREFIX):
            return None
        if len(kept) > 1 and not _of_one(kept):
            if (await self._kept(workspace))[0].generation != kept[0].generation:
                return None
            log.error("A part of the counters of %r is lost", workspace)
            return False
        found = [sum(amounts) for amounts in zip(*(part.sums for part in kept), strict=True)]
        # Beyond MAX_SUM they only know that it is more: history's sums stop there, Redis' where 64 bits end.
        if found != standing.total and list(saturated(found)) != list(saturated(standing.total)):
            differ = {
                field: f"{ours} in Redis, {theirs} in history"
                for field, ours, theirs in zip(FIELDS, found, standing.total, strict=True)
                if ours != theirs
            }
            log.error("The counters of %r differ from history: %s", workspace, differ)
            return False
        for prefix, part in zip(keys.prefixes(workspace, len(kept)), kept, strict=True):
            await self._forget_old(prefix, part.cursors)
        if not self._in_time(workspace, (kept[0].generation, at), standing.pending):
            return False
        return bool(standing.pending) or await self._tallies_agree(history, workspace, at, kept[0])

    async def _is_coming(self, journal_ids: list[str]) -> bool:
        """Whether history will have more of one of these journals: a node has it, or had it a short while ago."""
        now_s = self._now_us() // 1_000_000
        moved: list[Any] = await self._server.command("HMGET", keys.MOVED, *journal_ids)
        unsaid = [journal_id for journal_id, at in zip(journal_ids, moved, strict=True) if at is None]
        if unsaid:  # counted this very moment, or by a node that ended before it said so: from now on
            await self._server.commands([("HSETNX", keys.MOVED, each, now_s) for each in unsaid])
        return bool(unsaid) or any(int(at) >= now_s - GONE_S for at in moved)

    async def _kept(self, workspace: str) -> list[_Kept]:
        """What Redis has of a workspace; of one that is split, of each part. A record is in one of them, and the
        cursors of one part say nothing of another, so it does not matter that they are not read at one moment."""
        first = await self._read([keys.prefix(workspace)])
        parts = keys.parts_in(first[0].generation)
        return first if parts == 1 else first + await self._read(keys.prefixes(workspace, parts)[1:])

    async def _read(self, prefixes: list[str]) -> list[_Kept]:
        calls: list[Call] = [([prefix + k for k in ("gen", "cursor", "total")], FIELDS) for prefix in prefixes]
        return [_Kept(*reply) for reply in raised(await self._server.run(_READ, calls))]

    async def _tallies_agree(self, history: LedgerSnapshot, workspace: str, at: Mapping[str, int], kept: _Kept) -> bool:
        """Whether what budgets are measured by is what history says; true where either has moved on meanwhile.

        `kept`: what Redis had, with generation and cursors at which both have the same records.
        """
        prefix = keys.prefix(workspace)
        texts = await self._server.command("SMEMBERS", prefix + keys.TALLIES)
        tallies = [tally for text in texts if (tally := parse(text.decode())) is not None and tally.lasting]
        if not tallies:
            return True
        sums = (await history.tallied(workspace, tallies, self._now_us()))[:MOST_SUMS]
        names = [prefix + keys.tally(each.tally, each.start_s, each.values) for each in sums]
        found = await self._server.commands([("HMGET", name, *AMOUNTS) for name in names]) if names else []
        [now] = await self._read([prefix])
        moved = (now.generation, now.cursors) != (kept.generation, kept.cursors)
        if moved or (await history.standing(workspace, at)).pending:
            return True
        for name, each, amounts in zip(names, sums, found, strict=True):
            ours = [int(amount or 0) for amount in amounts]
            if ours != list(saturated([each.used, each.charged])):
                log.error("%s is %s in Redis, %d and %d in history", name, ours, each.used, each.charged)
                return False
        return True

    def _in_time(self, workspace: str, state: object, pending: int) -> bool:
        """False when records are missing and nothing has moved for GRACE_US: they will not come by themselves."""
        now_us = self._now_us()
        seen, since_us = self._late.get(workspace, (None, now_us))
        if not pending:
            self._late.pop(workspace, None)
        elif seen != state:
            self._late[workspace] = (state, now_us)
        elif now_us - since_us >= GRACE_US:
            log.error("Redis lacks %d records of %r that history has, and nobody brings them", pending, workspace)
            return False
        return True

    async def _forget_old(self, prefix: str, own: dict[str, int]) -> None:
        """Drop this workspace's cursors in journals of long ago; the watermark keeps them."""
        if not own:
            return
        moved: list[Any] = await self._server.command("HMGET", keys.MOVED, *own)
        before_s = self._now_us() // 1_000_000 - keys.CURSOR_LIVES_S
        old = [j for j, at in zip(own, moved, strict=True) if at is not None and int(at) < before_s]
        if old:
            await self._server.command("HDEL", f"{prefix}cursor", *old)
