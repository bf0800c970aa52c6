"""Rates in Redis: admitting calls to windows that all workers of all nodes share, and telling when calls have ended.

A worker remembers what it admitted in the last minute, so that a Redis that comes back empty, or as it was a while ago,
is told and no window opens twice. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from taximeter.budgets.rates import WINDOW_S, Limit
from taximeter.sinks.redis import keys
from taximeter.sinks.redis.asking import Asker
from taximeter.sinks.redis.client import Call, RedisServer, Script, raised

_ADMIT = Script("reserve.lua", __package__, inside=("rates_before.lua", "rates_after.lua"))
_RESTORE = Script("rates_restore.lua", __package__)
_END = Script("rates_end.lua", __package__)
_BACK = Script("rates_back.lua", __package__)
LEASE_S = 60
"""A call of which nobody says for so long that it goes on no longer counts as one: its worker is dead."""
_UNKNOWN = "-"


class Stands(NamedTuple):
    """How one limit stands."""

    limit: Limit
    remaining: int
    reset_ms: int
    """In how many ms all of it is there again; 0 of calls at once."""


class RateRefusal(NamedTuple):
    """Why a call was not admitted; then nothing of it is held or counted."""

    limit: Limit
    amount: int
    wait_ms: int | None
    """In how many ms there may be room for it; None: never, it is more than the limit."""
    stands: list[Stands]


class Admitted(msgspec.Struct):
    """A call that counts in windows."""

    call: str
    workspace: str
    wanted: Sequence[tuple[Limit, int]]
    second: int
    """Of Redis's clock, in which it counts."""
    stands: list[Stands]


class _Memory(msgspec.Struct):
    """What this worker knows of a workspace's rates."""

    state: str
    used_s: float
    times: int = 0
    """How often this worker's calls were admitted in this state: a Redis that knows of fewer went back."""
    windows: dict[str, dict[int, int]] = {}
    """Key -> second of Redis's clock -> what was admitted in it."""

    def sweep(self) -> None:
        """Forget windows that are over: of a rate for each of many values, most are used once."""
        last = {key: max(seconds) for key, seconds in self.windows.items() if seconds}
        oldest = max(last.values(), default=0) - WINDOW_S
        self.windows = {key: self.windows[key] for key, second in last.items() if second >= oldest}


class RateWindows:
    """The windows in one Redis. Methods raise redis.client.ERRORS."""

    def __init__(self, server: RedisServer, *, timeout_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._admitting = Asker(server, _ADMIT, timeout_s=timeout_s)
        self._ending = Asker(server, _END, timeout_s=timeout_s)
        self._asker = secrets.token_hex(8)
        self._clock_s = clock_s
        self._known: dict[str, _Memory] = {}
        self._swept_s = 0.0
        self._told: set[str] = set()
        """Workspaces of which Redis was told again, since `look` said so last."""

    async def admit(
        self, call: str, workspace: str, wanted: Sequence[tuple[Limit, int]], budgets: Call = ((), ())
    ) -> tuple[Admitted | RateRefusal | None, Any]:
        """Count a call in all of these windows and hold its part of budgets, or do nothing.

        `budgets`: the keys and arguments of reserve.lua, whose reply is returned too. None: Redis forgot windows, and
        they are being told to it; ask again in a moment.
        """
        known = self._known.get(workspace)
        state, times = (_UNKNOWN, 0) if known is None else (known.state, known.times)
        words = [call, state, secrets.token_hex(8), LEASE_S, self._asker, times]
        for limit, amount in wanted:
            words += ("calls" if limit.kind == "calls" else "window", WINDOW_S, limit.limit, amount)
        names, args = budgets
        places = [_state(workspace), *(limit.key(workspace) for limit, _ in wanted)]
        asked: Call = [*names, *places], [*args, " ".join(map(str, words))]
        [(reply, told)] = raised([await self._admitting.ask(asked)])
        kind = reply[0].decode()
        if kind in ("gather", "lost", "back") and not told:
            if kind == "lost":
                await self._restore(workspace, reply[1].decode())
            elif kind == "back":
                await self._begin_anew(workspace)
            return None, None
        stands = [
            Stands(limit, int(left), int(reset))
            for (limit, _), left, reset in zip(wanted, told[3::2], told[4::2], strict=True)
        ]
        self._learn(workspace, told[0].decode(), int(told[2]))
        if kind == "rate":
            limit, amount = wanted[int(reply[1]) - 1]
            wait_ms = int(reply[2])
            return RateRefusal(limit, amount, None if wait_ms < 0 else wait_ms, stands), None
        admitted = Admitted(call, workspace, wanted, int(told[1]), stands)
        if kind == "held":
            self._remember(admitted)
        return admitted, reply

    async def end(self, ended: Sequence[tuple[Admitted, int | None]]) -> None:
        """These calls are over, and used so many tokens each: they count no longer as calls, and as what they used; as
        what they may use at most, where that is None.

        Raises what the first workspace's Redis did not take for; others have been told. A call may then be told to have
        ended again, but not what it used: nobody knows whether that has been taken off already.
        """
        # Apart, as keys of one script are in one slot of a Cluster.
        of_workspace: dict[str, list[tuple[Admitted, int | None]]] = {}
        for each in ended:
            of_workspace.setdefault(each[0].workspace, []).append(each)
        told = await asyncio.gather(*map(self._end_of_one, of_workspace.values()), return_exceptions=True)
        for error in told:
            if isinstance(error, BaseException):
                raise error

    async def _end_of_one(self, ended: Sequence[tuple[Admitted, int | None]]) -> None:
        places: list[str] = []
        args: list[str | int] = []
        corrected: list[tuple[Admitted, str, int]] = []
        for admitted, tokens in ended:
            for limit, amount in admitted.wanted:
                key = limit.key(admitted.workspace)
                if limit.kind == "calls":
                    places.append(key)
                    args += ("end", admitted.call)
                elif limit.kind == "tokens" and tokens not in (None, amount):
                    places.append(key)
                    args += ("correct", f"{admitted.second} {amount} {tokens}")
                    corrected.append((admitted, key, (tokens or 0) - amount))
        if places:
            raised([await self._ending.ask((places, args))])
        for admitted, key, difference in corrected:  # now that Redis counts so, and not before: it may be told anew
            self._correct(admitted, key, difference)

    async def renew(self, going_on: Iterable[Admitted]) -> None:
        """These calls go on."""
        calls: dict[str, list[str]] = {}
        for admitted in going_on:
            for limit, _ in admitted.wanted:
                if limit.kind == "calls":
                    calls.setdefault(limit.key(admitted.workspace), []).append(admitted.call)
        if calls:
            await self._end_each([([key], ["renew", " ".join(them)]) for key, them in calls.items()])

    async def add(self, begun: Sequence[tuple[str, int]]) -> None:
        """So much was admitted while this Redis could not be asked: key, amount."""
        await self._end_each([([key], ["add", str(amount)]) for key, amount in begun])

    async def _end_each(self, calls: Sequence[Call]) -> None:
        raised(await self._server.run(_END, calls))

    async def look(self, going_on: Container[str] = ()) -> list[str]:
        """Tell a Redis that forgot what was admitted here in the last minute; returns the workspaces it was told of.

        Also of those `admit` told it of. `going_on`: those with calls that go on, however long ago they began.
        """
        now_s = self._clock_s()
        self._known = {
            name: each for name, each in self._known.items() if now_s - each.used_s <= WINDOW_S + 1 or name in going_on
        }
        known = list(self._known.items())
        if now_s - self._swept_s > WINDOW_S:
            self._swept_s = now_s
            for _, memory in known:
                memory.sweep()
        if not known:
            return []
        asked = [("HMGET", _state(workspace), "id", self._asker) for workspace, _ in known]
        before = [(memory.state, memory.times) for _, memory in known]
        found = await self._server.commands(asked)
        for (workspace, memory), (id_, times), sent in zip(known, found, before, strict=True):
            if id_ is None or memory.state != sent[0]:  # nobody has asked there since; told meanwhile
                continue
            if id_.decode() != memory.state:
                await self._restore(workspace, id_.decode())
            elif int(times or 0) < sent[1]:
                await self._begin_anew(workspace)
        told, self._told = sorted(self._told), set()
        return told

    async def _restore(self, workspace: str, state: str) -> None:
        memory = self._known.get(workspace)
        if memory is None or memory.state == state:
            return
        words: list[int] = []
        for seconds in memory.windows.values():
            words += (WINDOW_S, len(seconds))
            for second, amount in seconds.items():
                words += (second, amount)
        args = [state, self._asker, " ".join(map(str, words))]
        [done] = raised(await self._server.run(_RESTORE, [([_state(workspace), *memory.windows], args)]))
        if done:
            memory.state, memory.times = state, 0
            self._told.add(workspace)

    async def _begin_anew(self, workspace: str) -> None:
        """This Redis knows of fewer calls than it admitted: have everybody tell it again, and tell it."""
        memory = self._known.get(workspace)
        if memory is not None:
            anew: Call = [_state(workspace)], [memory.state, self._asker, memory.times, secrets.token_hex(8)]
            [state] = raised(await self._server.run(_BACK, [anew]))
            if state:
                await self._restore(workspace, state.decode())

    def _learn(self, workspace: str, state: str, times: int) -> None:
        memory = self._known.get(workspace)
        if memory is None:
            self._known[workspace] = _Memory(state, self._clock_s(), times)
        elif memory.state == state:
            memory.times = max(memory.times, times)  # replies to calls at once come in any order
        else:
            memory.state, memory.times = state, times

    def _remember(self, admitted: Admitted) -> None:
        memory = self._known[admitted.workspace]
        memory.used_s = self._clock_s()
        oldest = admitted.second - WINDOW_S
        for limit, amount in admitted.wanted:
            if limit.kind == "calls" or not amount:
                continue
            seconds = memory.windows.setdefault(limit.key(admitted.workspace), {})
            seconds[admitted.second] = seconds.get(admitted.second, 0) + amount
            if next(iter(seconds)) < oldest:
                for second in [each for each in seconds if each < oldest]:
                    del seconds[second]

    def _correct(self, admitted: Admitted, key: str, difference: int) -> None:
        memory = self._known.get(admitted.workspace)
        seconds = {} if memory is None else memory.windows.get(key, {})
        if admitted.second in seconds:
            seconds[admitted.second] = max(0, seconds[admitted.second] + difference)


def _state(workspace: str) -> str:
    return keys.prefix(workspace) + keys.RATES
