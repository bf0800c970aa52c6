"""How far Redis has counted, as this process believes; asked of Redis at the start and after whatever went wrong.

A Redis that lost data or went back in time is noticed: journals are read again, or workspaces rebuilt from history.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from redis.exceptions import ResponseError

from taximeter.budgets.tally import Tally, parse
from taximeter.core.record import Record, seq_of
from taximeter.sinks.batch import Group, grouped
from taximeter.sinks.redis import keys
from taximeter.sinks.redis.client import RedisServer
from taximeter.sinks.redis.nodes import refuse_eviction
from taximeter.sinks.redis.rebuild import CountersMoved, Rebuilder, lower

log = logging.getLogger("taximeter.counters")

LOOK_AGAIN_S = 0.2
"""So long a node that has entered a workspace may take to its first count."""
REMEMBERED = 100_000
"""Workspaces, and keys with an expiry, remembered; beyond it memory starts over, which only costs time."""


class Part:
    """The keys of a workspace's counters that every script call names; of one that is split, of one part of it."""

    __slots__ = ("head", "prefix", "tail")

    def __init__(self, prefix: str, *, first: bool) -> None:
        self.prefix = prefix
        self.head = [prefix + k for k in ("gen", "cursor", "models", "model:other", "tasks", "task:other")]
        self.tail = [prefix + k for k in (keys.HELD, keys.RESERVED, keys.RESERVED_AT)] if first else []
        """What budgets hold stands in the first part only. Calls of a workspace that is split hold nothing, but those
        that began before it was: what these hold is let go by the sweep (budgets.service)."""


class Workspace:
    """What is believed of one workspace in Redis."""

    __slots__ = ("create", "cursors", "generation", "parts", "tallies")

    def __init__(self, name: str, generation: str, tallies: frozenset[Tally]) -> None:
        self.create = not generation
        self.generation = generation or secrets.token_hex(8)
        self.cursors: dict[str, int] = {}
        each = keys.prefixes(name, keys.parts_in(self.generation))
        self.parts = [Part(prefix, first=prefix is each[0]) for prefix in each]
        self.tallies = tallies
        """What is added up for budgets; it changes with the generation only, as the number of parts does."""

    def part(self, journal_id: str) -> Part:
        """Where a journal's records are counted, of a workspace that is split."""
        return self.parts[keys.part_of(journal_id, len(self.parts))]


@dataclass(slots=True)
class WorkspaceBatch:
    """One workspace's records of one journal in a delivery."""

    workspace: str
    journal_id: str
    records: list[Record] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    """Of these records."""
    after: int = 0
    last: int = 0
    expiries: dict[str, int] = field(default_factory=dict)

    def cut_again(self, known: Workspace, reply: list[bytes]) -> int:
        """After Redis refused it: keep what it has not counted; returns how many records it has.

        Raises CountersMoved if Redis went back.
        """
        why, actual = reply[0], reply[1].decode()
        if why != b"cursor":
            raise CountersMoved(f"the counters of {self.workspace!r} were lost or rebuilt")
        if int(actual) < self.after:
            raise CountersMoved(f"the counters of {self.workspace!r} went back from {self.after} to {actual}")
        kept = [record for record in self.records if seq_of(record.event_id) > int(actual)]
        counted = len(self.records) - len(kept)
        self.records, self.groups = kept, grouped(kept)
        known.create = False
        known.cursors[self.journal_id] = int(actual)
        return counted


class Positions:
    """A guess that the scripts check. Nothing is believed while `in_doubt`."""

    def __init__(self, server: RedisServer, rebuilder: Rebuilder) -> None:
        self.at: dict[str, int] = {}
        """journal_id -> up to which `seq` every workspace was counted."""
        self.workspaces: dict[str, Workspace] = {}
        self.damaged: set[str] = set()
        """Workspaces in which a script failed half-way."""
        self.expiries: dict[str, int] = {}
        """key -> the expiry (s since epoch) it has."""
        self.generation = ""
        self.in_doubt = True
        self._server, self._rebuilder = server, rebuilder
        self._touched: set[tuple[str, Tally, tuple[str, ...]]] = set()

    def touch(self, workspace: str, values: Iterable[tuple[Tally, tuple[str, ...]]]) -> None:
        """Records came for these values of what budgets are measured by."""
        self._touched.update((workspace, tally, each) for tally, each in values)

    def take_touched(self) -> set[tuple[str, Tally, tuple[str, ...]]]:
        """What was touched since this was asked last."""
        taken, self._touched = self._touched, set()
        return taken

    def doubt(self) -> None:
        """Something went wrong, or was written anew: ask before the next count."""
        self.in_doubt = True
        self.at.clear()
        self.expiries.clear()

    async def tell(self, ids: list[str]) -> dict[str, int]:
        """As `locate`, for whoever acts on it alone: not while another process rebuilds, for which time only it would
        hold. Whoever asks has these journals, which is noted: what history lacks of them will come (`audit.GONE_S`).
        """
        found = await self.locate(ids)
        if await self._rebuilder.elsewhere():
            raise CountersMoved("another process is rebuilding the Redis counters")
        now_s = self._rebuilder.now_us() // 1_000_000
        counted = [word for journal_id, seq in found.items() if seq for word in (journal_id, now_s)]
        if counted:
            with suppress(ResponseError):  # a full Redis takes nothing; asking it is allowed
                await self._server.command("HSET", keys.MOVED, *counted)
        return found

    async def locate(self, ids: list[str]) -> dict[str, int]:
        """Ask how far these journals were counted. Raises CountersMoved, and what Redis or history raise."""
        if self.in_doubt:
            await self._server.reset()
            await refuse_eviction(self._server)
        generation, *found = await self._marks(ids)
        if not self.in_doubt and (generation or b"").decode() != self.generation:  # others may have moved back as well
            raise CountersMoved("Redis was emptied, or a watermark moved back")
        if not generation:  # a Redis never used, emptied, or restored to before we came
            await self._rebuilder.rebuild(None)
            self.workspaces.clear()
            generation, *found = await self._marks(ids)
        self.generation = generation.decode()
        at = {journal_id: int(seq or 0) for journal_id, seq in zip(ids, found, strict=True)}
        if any(seq < self.at.get(journal_id, 0) for journal_id, seq in at.items()):  # so has all that is remembered
            raise CountersMoved("Redis went back, and no request failed")
        if self.in_doubt:
            await self._verify(at)
        self.in_doubt = False
        self.at |= at
        return at

    async def meet(self, names: set[str]) -> None:
        """Learn the generation of workspaces not seen before; find out whether they are new or were lost."""
        unknown = sorted(names - self.workspaces.keys())
        if len(self.workspaces) + len(unknown) > REMEMBERED:
            self.workspaces.clear()
            unknown = sorted(names)
        commands: list[tuple[str, ...]] = []
        for name in unknown:
            prefix = keys.prefix(name)
            commands += (("SADD", keys.WORKSPACES, name), ("GET", prefix + "gen"), ("SMEMBERS", prefix + keys.TALLIES))
        replies = await self._server.commands(commands)
        lost, known = [], await self._begun(unknown, replies[::3], replies[1::3])
        # Last: a rebuild that ended before these answers has moved watermarks that `at` has higher.
        marker = await self._server.command("HGET", keys.WATERMARK, keys.GENERATION_FIELD)
        if (marker or b"").decode() != self.generation:
            raise CountersMoved("Redis was emptied or rebuilt")
        for name, added, texts in zip(unknown, replies[::3], replies[2::3], strict=True):
            generation = known[name]
            if generation.startswith(keys.REBUILDING_PREFIX) or (not generation and not added):
                lost.append(name)
            else:
                tallies = frozenset(filter(None, (parse(text.decode()) for text in texts)))
                self.workspaces[name] = Workspace(name, generation, tallies)
        if lost:
            log.error("Redis lost counters of %s: rebuilding from history", ", ".join(lost[:10]))
            await self._rebuilder.rebuild(lost)
            raise CountersMoved(f"{len(lost)} workspaces were rebuilt from history")

    async def _begun(self, names: list[str], added: list[int], found: list[bytes | None]) -> dict[str, str]:
        """The generation of each. Of one that somebody has entered and nobody has counted, it is asked once more: two
        nodes may meet a new workspace at the same moment, and the other has not got that far."""
        known = {name: (generation or b"").decode() for name, generation in zip(names, found, strict=True)}
        missing = [name for name, new in zip(names, added, strict=True) if not new and not known[name]]
        if missing:
            await asyncio.sleep(LOOK_AGAIN_S)
            again = await self._server.commands([("GET", keys.prefix(name) + "gen") for name in missing])
            known |= {name: (generation or b"").decode() for name, generation in zip(missing, again, strict=True)}
        return known

    async def _marks(self, ids: list[str]) -> list[bytes]:
        found: list[bytes] = await self._server.command("HMGET", keys.WATERMARK, keys.GENERATION_FIELD, *ids)
        return found

    async def _verify(self, at: dict[str, int]) -> None:
        """Compare Redis with what is remembered of it; lower `at` to where it went back to."""
        lost, back = [], dict(at)
        for name, (generation, cursors) in (await self._actual()).items():
            known = self.workspaces[name]
            if known.create and not generation:  # new, and its first script did not get through
                continue
            if not generation or generation.startswith(keys.REBUILDING_PREFIX) or name in self.damaged:
                lost.append(name)
            elif generation != known.generation:  # rebuilt by another node, which lowered the watermark as needed
                del self.workspaces[name]
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
                del self.workspaces[name]
            self.damaged.clear()
            raise CountersMoved(f"{len(lost)} workspaces were rebuilt from history")
        lowered = {journal_id: seq for journal_id, seq in back.items() if seq < at[journal_id]}
        if lowered:
            log.error("Redis went back in time: reading %d journals again", len(lowered))
            self.generation = await lower(self._server, self.generation, lowered)
            at |= lowered

    async def _actual(self) -> dict[str, tuple[str, dict[str, int]]]:
        """Generation and cursors, as they are in Redis, of every workspace and journal remembered."""
        actual: dict[str, tuple[str, dict[str, int]]] = {}
        names = list(self.workspaces)
        for start in range(0, len(names), 500):
            some = [(name, part, ids) for name in names[start : start + 500] for part, ids in self._asked(name)]
            commands: list[tuple[str, ...]] = []
            for _, part, ids in some:
                commands += (("GET", part.head[0]), ("HMGET", part.head[1], "", *ids))
            replies = await self._server.commands(commands)
            for (name, _, ids), generation, found in zip(some, replies[::2], replies[1::2], strict=True):
                said = (generation or b"").decode()
                first, cursors = actual.setdefault(name, (said, {}))
                cursors |= {j: int(seq or 0) for j, seq in zip(ids, found[1:], strict=True)}
                if said != first == self.workspaces[name].generation:  # a part of it is lost, or being written anew
                    actual[name] = "", cursors
        return actual

    def _asked(self, name: str) -> list[tuple[Part, list[str]]]:
        """The parts of a workspace, the first first, each with the journals that are counted in it."""
        known = self.workspaces[name]
        found: list[tuple[Part, list[str]]] = [(part, []) for part in known.parts]
        for journal_id in known.cursors:
            found[keys.part_of(journal_id, len(found))][1].append(journal_id)
        return found
