"""Writing Redis counters anew from history: totals and cursors together, under a new generation.

While it lasts the workspace's generation says `rebuild:<id>`, so no script counts into it; the watermark's
generation changes first, so that nobody moves a watermark past what is being undone. Of a workspace that is split, or
shall be, that holds for each part: what history knows goes into the first, the cursors where their journals go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple, TypeVar

from taximeter.budgets.tally import AMOUNTS, Tally
from taximeter.core.errors import TaximeterError
from taximeter.core.totals import COST, FIELDS, TOTAL, saturated
from taximeter.sinks.ledger import Cell, Ledger, LedgerSnapshot
from taximeter.sinks.redis import keys
from taximeter.sinks.redis.client import RedisServer, Script, raised
from taximeter.sinks.redis.nodes import Fleet, register_node

log = logging.getLogger("taximeter.counters")

_REBUILD = Script("rebuild.lua")
_WATERMARK = Script("watermark.lua")
_T = TypeVar("_T")

_KEPT = ("gen", keys.HELD, keys.RESERVED, keys.RESERVED_AT, keys.RATES)
_KEPT_OF_MANY = (keys.CAP, keys.RATE)
"""Of a workspace's keys those that are not sums of records, and what others of them begin with."""
_LEASE_MS = 10_000
"""So long others wait for a process that died while it rebuilt. One that lives renews it three times as often."""
_KEYS_A_CALL = 200
"""Keeps one script under about 5 ms."""


class CountersMoved(TaximeterError):
    """Redis is not where this sink left it (lost data, rebuilt, being rebuilt): `cursors` has to be asked again."""


class _Write(NamedTuple):
    """A key to be written: nothing in `args` removes it."""

    key: str
    args: list[str | int]
    kind: str = "hash"
    expires: int = 0


class Rebuilder:
    """Rebuilds workspaces one after another; one process at a time (a lease in Redis)."""

    def __init__(
        self,
        server: RedisServer,
        history: LedgerSnapshot | None,
        history_id: str,
        *,
        now_us: Callable[[], int],
        tallies: Callable[[str], Collection[Tally]] = lambda workspace: (),
        split: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """`tallies` says what is to be added up for the budgets of a workspace; `split` into how many parts the
        counters of some workspaces go, as long as they have no budgets."""
        self.server = server
        self.history = history
        self.history_id = history_id
        self.now_us = now_us
        self._token = secrets.token_hex(8)
        """Of this process's lease, as long as it may not have been given back."""
        self.fleet = Fleet()
        self.tallies = tallies
        self.split = split

    async def register(self, node: str, history_id: str) -> None:
        """Say that this node counts here from this history; call it at start and then at least every 30 s.

        Raises ConfigError when another live node counts here from another history (DESIGN §1, Scale-out).
        """
        self.history_id = history_id
        await register_node(self.server, node, history_id, self.fleet)

    async def rebuild(self, workspaces: list[str] | None) -> int:
        """Write these workspaces, or all that history or Redis know, anew from history; returns how many.

        May run while nodes deliver: theirs is refused meanwhile, then sent again from where history was.
        Raises CountersMoved when somebody else is at it, TaximeterError where there is no history to rebuild from.
        """
        async with self._lease() as token:
            marked = await self.server.command("HEXISTS", keys.WATERMARK, keys.GENERATION_FIELD)
            if workspaces is None or not marked:  # where the mark is lost, others may be
                workspaces = sorted({*await self.everything(), *(workspaces or ())})
            elif self.history is None:
                raise TaximeterError("Redis lost counters and this process has no history to rebuild them from.")
            before, spread = await self._fence(workspaces, token)
            if self.history is None:
                log.warning("%s holds no counters yet, and there is no history to fill it from", self.server.shown)
                return 0
            stale = await self._stale(spread)
            for workspace in workspaces:
                fenced = _fenced(token, spread[workspace])
                await self._one(self.history, workspace, fenced, before, stale[keys.prefix(workspace)])
        if workspaces:
            log.warning("Rebuilt the Redis counters from history; workspaces: %d", len(workspaces))
        return len(workspaces)

    @contextlib.asynccontextmanager
    async def _lease(self) -> AsyncIterator[str]:
        token = self._token
        if (
            not await self.server.command("SET", keys.REBUILDING, token, "NX", "PX", _LEASE_MS)
            # Our own of a rebuild that Redis did not live to the end of: nobody has to wait until that runs out.
            and await self.server.command("GET", keys.REBUILDING) != token.encode()
        ):
            raise CountersMoved("another process is rebuilding the Redis counters")
        renewing = asyncio.create_task(self._renew(token))
        try:
            yield token
        finally:
            renewing.cancel()
            if await self.server.command("GET", keys.REBUILDING) == token.encode():
                await self.server.command("DEL", keys.REBUILDING)
            self._token = secrets.token_hex(8)

    async def _renew(self, token: str) -> None:
        """Keep the lease while history is read, however long that takes."""
        while True:
            await asyncio.sleep(_LEASE_MS / 3_000)
            with contextlib.suppress(Exception):  # what is wrong with Redis, the rebuild itself finds out
                if await self.server.command("GET", keys.REBUILDING) == token.encode():
                    await self.server.command("PEXPIRE", keys.REBUILDING, _LEASE_MS)

    async def elsewhere(self) -> bool:
        """Whether another process is rebuilding: it may move watermarks back to where history was when it began."""
        return await self.server.command("GET", keys.REBUILDING) not in (None, self._token.encode())

    async def everything(self) -> list[str]:
        """Every workspace that history or Redis know."""
        if self.history is None:
            return []
        in_redis = await self.server.command("SMEMBERS", keys.WORKSPACES)
        return sorted({name.decode() for name in in_redis} | set(await self.history.workspaces()))

    async def _fence(self, workspaces: list[str], token: str) -> tuple[dict[str, int], dict[str, int]]:
        """Stop counting into these workspaces, then the moving of watermarks; returns the watermarks as they were, and
        how many parts each workspace has: as many as it had or shall have, whichever is more."""
        spread: dict[str, int] = {}
        for some in _chunks(workspaces, 500):
            found = await self.server.commands([("GET", keys.prefix(name) + "gen") for name in some])
            wanted = self.split()
            of = {
                name: max(keys.parts_in((generation or b"").decode()), wanted.get(name, 1))
                for name, generation in zip(some, found, strict=True)
            }
            sets = [
                ("SET", prefix + "gen", _fenced(token, parts))
                for name, parts in of.items()
                for prefix in keys.prefixes(name, parts)
            ]
            await self.server.commands([("SADD", keys.WORKSPACES, *some), *sets])
            spread |= of
        fields: list[str] = [keys.GENERATION_FIELD, token]
        if self.history_id:
            fields += (keys.HISTORY_FIELD, self.history_id)
        await self.server.command("HSET", keys.WATERMARK, *fields)
        before = await self.server.command("HGETALL", keys.WATERMARK)
        not_journals = (keys.GENERATION_FIELD, keys.HISTORY_FIELD)
        return {name.decode(): int(seq) for name, seq in before.items() if name.decode() not in not_journals}, spread

    async def _stale(self, spread: Mapping[str, int]) -> dict[str, dict[str, list[str]]]:
        """Prefix of each of these workspaces -> prefix of each of its parts -> keys it has now."""
        wanted = {
            keys.prefix(workspace): {prefix: list[str]() for prefix in keys.prefixes(workspace, parts)}
            for workspace, parts in spread.items()
        }
        match = "tm:{*"
        if len(spread) == 1:
            [(workspace, parts)] = spread.items()
            match = f"tm:{{{keys.name(workspace)}" + ("[|}]*" if parts > 1 else "}:*")
        for key in await self.server.scan(match) if wanted else []:
            of = key[: key.find("}:") + 2]
            rest = key.removeprefix(of)
            found = wanted.get(keys.whole(of), {})
            if of in found and rest not in _KEPT and not rest.startswith(_KEPT_OF_MANY):
                found[of].append(key)
        return wanted

    async def _one(
        self,
        history: LedgerSnapshot,
        workspace: str,
        fenced: str,
        before: Mapping[str, int],
        stale: Mapping[str, Collection[str]],
    ) -> None:
        """`stale`: prefix of each part that is fenced -> its keys."""
        now_us = self.now_us()
        ledger = await history.ledger(
            workspace,
            days_from_us=now_us - keys.DAY_LIVES_S * 1_000_000,
            hours_from_us=now_us - keys.HOUR_LIVES_S * 1_000_000,
            tracks_from_us=now_us - keys.TRACK_LIVES_S * 1_000_000,
            tallies=sorted(self.tallies(workspace), key=lambda tally: tally.text),
            now_us=now_us,
        )
        await self._lower(ledger.cursors, before)
        parts = 1 if ledger.tallies else self.split().get(workspace, 1)
        generation = keys.generation(secrets.token_hex(8), parts)
        first, writes = keys.prefix(workspace), list(_writes(keys.prefix(workspace), ledger))
        written = {write.key for write in writes}
        for part, there in stale.items():
            removed = (_Write(key, []) for key in there if key not in written)
            for some in _chunks([*removed, *(writes if part == first else ())], _KEYS_A_CALL):
                await self._write(part, some, fenced, fenced)
        recent = (await self._recent(ledger.cursors)).items()
        for number, prefix in reversed(
            list(enumerate(keys.prefixes(workspace, parts)))
        ):  # who reads sees the first last
            cursors = [word for cursor in recent if keys.part_of(cursor[0], parts) == number for word in cursor]
            await self._write(prefix, [_Write(f"{prefix}cursor", cursors)], fenced, generation)
        gone = list(stale)[parts:]  # nothing counts there any more, nor reads; what an old process sends is refused
        if gone:
            await self.server.commands([("EXPIRE", f"{part}gen", keys.CURSOR_LIVES_S) for part in gone])

    async def _write(self, prefix: str, writes: list[_Write], fenced: str, afterwards: str) -> None:
        args: list[str | int] = [fenced, afterwards]
        for write in writes:
            args += (write.expires, write.kind, len(write.args), *write.args)
        [done] = raised(await self.server.run(_REBUILD, [([f"{prefix}gen", *(w.key for w in writes)], args)]))
        if not done:
            raise CountersMoved("another process took over the rebuild")

    async def _recent(self, cursors: Mapping[str, int]) -> dict[str, int]:
        """Those cursors that a workspace keeps: not the ones in journals of long ago."""
        moved = await self.server.command("HGETALL", keys.MOVED)
        before_s = self.now_us() // 1_000_000 - keys.CURSOR_LIVES_S
        old = {journal_id.decode() for journal_id, at in moved.items() if int(at) < before_s}
        return {journal_id: seq for journal_id, seq in cursors.items() if journal_id not in old}

    async def _lower(self, cursors: Mapping[str, int], before: Mapping[str, int]) -> None:
        """Lower watermarks that were ahead of history: what the new sums lack has to be sent again."""
        ahead = {journal_id: seq for journal_id, seq in before.items() if seq > cursors.get(journal_id, 0)}
        if not ahead:
            return
        generation = await self.server.command("HGET", keys.WATERMARK, keys.GENERATION_FIELD)
        await lower(self.server, (generation or b"").decode(), {j: cursors.get(j, 0) for j in ahead})


def _fenced(token: str, parts: int) -> str:
    """The generation of a workspace, and of each of its parts, while it is written anew."""
    return keys.generation(keys.REBUILDING_PREFIX + token, parts)


async def lower(server: RedisServer, generation: str, cursors: Mapping[str, int]) -> str:
    """Move watermarks down, so that journals are sent again; returns the new generation of the watermark.

    Raises CountersMoved where its generation is not this one any more.
    """
    afterwards = secrets.token_hex(8)
    args: list[str | int] = [generation, "down", afterwards, 0]
    for cursor in cursors.items():
        args += cursor
    [done] = raised(await server.run(_WATERMARK, [([keys.WATERMARK, keys.MOVED], args)]))
    if not done:
        raise CountersMoved("another process moved a watermark back, or a rebuild began")
    return afterwards


def _writes(prefix: str, ledger: Ledger) -> Iterator[_Write]:
    """Every hash and set of a workspace but `gen` and `cursor`."""
    yield _hash(f"{prefix}total", ledger.total)
    for month, cell in ledger.months.items():
        yield _hash(f"{prefix}month:{month}", cell)
    for day, cell in ledger.days.items():
        yield _hash(f"{prefix}day:{day}", cell, keys.periods(keys.hour_of(day))[3])
    for hour, cell in ledger.hours.items():
        yield _hash(f"{prefix}hour:{hour}", cell, keys.periods(keys.hour_of(hour))[4])
    for track, of in ledger.tracks.items():
        yield _hash(prefix + keys.track(track), of.cell, keys.track_expires_s(of.last_us // keys.HOUR_US))
    for each in ledger.sums:
        expires_s = keys.tally_expires_s(each.tally, each.start_s, each.last_s)
        args: list[str | int] = []
        for field, amount in zip(AMOUNTS, saturated([each.used, each.charged]), strict=True):
            args += (field, amount) if amount else ()
        yield _Write(prefix + keys.tally(each.tally, each.start_s, each.values), args, "hash", expires_s)
    yield _Write(prefix + keys.TALLIES, [tally.text for tally in ledger.tallies], "set")
    models = {keys.model(provider, served): cell for (provider, served), cell in ledger.models.items()}
    yield from _named(prefix, "model", models)
    yield from _named(prefix, "task", {keys.task(task): cell for task, cell in ledger.tasks.items()})


def _named(prefix: str, kind: str, cells: dict[str, Cell]) -> Iterator[_Write]:
    """The hashes of models or tasks: those that used most have one each, the others share `other`."""
    ranked = sorted(cells.items(), key=lambda item: (-item[1][COST], -item[1][TOTAL], item[0]))
    for name, cell in ranked[: keys.MAX_NAMES]:
        yield _hash(prefix + name, cell)
    rest = [cell for _, cell in ranked[keys.MAX_NAMES :]]
    if rest:
        yield _hash(f"{prefix}{kind}:other", [sum(amounts) for amounts in zip(*rest, strict=True)])
    yield _Write(f"{prefix}{kind}s", [prefix + name for name, _ in ranked[: keys.MAX_NAMES]], "set")


def _hash(key: str, cell: Cell, expires: int = 0) -> _Write:
    args: list[str | int] = []
    for field, amount in zip(FIELDS, saturated(cell[: len(FIELDS)]), strict=True):
        if amount:
            args += (field, amount)
    return _Write(key, args, "hash", expires)


def _chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
