"""Slices of hard budgets, for when Redis is away: granted while it lives, so that what is used of them is no overspend.

A slice is held in Redis like a call. A call that Redis cannot be asked about takes its part of the worker's slices, or
is refused. A slice of which something was taken stays held, whole, until every call that took of it has ended and is
counted in Redis, as its cursors say; then it is let go, and another is asked for. So at every moment no less than what
was used is spent or held, and everything is counted once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from taximeter.budgets.rule import Allowance

if TYPE_CHECKING:
    from taximeter.budgets.rate_windows import RateRefusal
    from taximeter.budgets.reservations import Lost, Refusal, Reserved
    from taximeter.budgets.slice_files import SliceFile

log = logging.getLogger("taximeter.budget")

IDLE_S = 60.0
"""A slice of a budget that no call of this worker needed for so long is given back; and one that was given back because
others needed it is not asked for again for so long."""

MOST, AT_ONCE = 1_000, 50
"""Slices of one worker: where each of many has a budget (`*`), those that were served first; and how many are asked for
in one look."""
PREFIX = "slice:"
"""How a slice's name begins, as Redis holds it beside what calls hold."""
Part = tuple[Allowance, int]


class Holding(Protocol):
    """What slices need of it (see budgets.reservations)."""

    async def reserve(
        self, call: str, wanted: Sequence[Part], now_us: int
    ) -> Reserved | Refusal | RateRefusal | Lost: ...

    async def release(self, workspace: str, calls: Sequence[str]) -> int: ...

    async def counted(self, workspace: str, event_ids: Iterable[str]) -> bool: ...

    async def wanted_back(self, workspaces: Sequence[str]) -> dict[str, str]: ...

    async def want_back(self, workspace: str) -> None: ...


class Slice(msgspec.Struct, eq=False):
    """This worker's slice of one budget."""

    name: str
    of: Allowance
    left: int
    calls: set[str]
    """Those that took of it."""


class Slices:
    """Of one worker. Only `take` and `served` are on a call's way; Redis is asked by `look` alone."""

    def __init__(
        self, percent: float, file: SliceFile, flying: dict[str, Reserved], clock_s: Callable[[], float]
    ) -> None:
        """`percent`: of a budget's limit. `flying`: what this worker holds in Redis and sees to be there again after
        Redis forgot it."""
        self._percent = percent
        self._file = file
        self._flying = flying
        self._clock_s = clock_s
        self._slices: dict[Allowance, Slice] = {}
        self._served: dict[Allowance, float] = {}
        self._not_before: dict[Allowance, float] = {}
        self._wanted_back: dict[str, str] = {}
        self._ended: dict[str, str] = {}
        """Calls that took of a slice -> what the journal calls their record; "": under way."""
        self._over: list[Slice] = []
        """Nothing is taken of these any more."""

    @property
    def idle(self) -> bool:
        """Nothing is held, and no budget was needed."""
        return not (self._slices or self._served or self._over)

    def served(self, wanted: Iterable[Part]) -> None:
        """A call held a part of these: there will be more of them."""
        now_s = self._clock_s()
        for of, _ in wanted:
            if not of.cap:  # what is left of a cap only Redis knows: without it a call of a track is refused
                self._served[of] = now_s

    def take(self, call: str, wanted: Sequence[Part]) -> bool:
        """Let a call take its part of the slices; False: one of them has not enough, and nothing is taken."""
        slices = [(self._slices.get(of), amount) for of, amount in wanted]
        if not all(each is not None and each.left >= amount for each, amount in slices):
            return False
        for each, amount in slices:
            assert each is not None  # noqa: S101
            each.left -= amount
            each.calls.add(call)
        self._ended[call] = ""
        return True

    def ended(self, call: str, event_id: str) -> None:
        """A call's record is written."""
        if call in self._ended:
            self._ended[call] = event_id

    async def give_back(self, holding: Holding, wanted: Sequence[Part]) -> bool:
        """Others hold what a call needs, maybe in slices: give ours back, have others do so; whether we had any."""
        now_s = self._clock_s()
        if all(self._not_before.get(of, 0.0) > now_s for of, _ in wanted):
            return False  # they did, a moment ago
        ours = [self._slices.pop(of) for of, _ in wanted if of in self._slices]
        self._over += ours
        for workspace in sorted({of.budget.workspace for of, _ in wanted}):
            await holding.want_back(workspace)
        for of, _ in wanted:
            self._not_before[of] = now_s + IDLE_S
        await self._settle(holding)
        return bool(ours)

    async def look(self, holding: Holding, in_force: Callable[[Allowance], bool], now_us: int) -> None:
        """Settle what was taken, give back what is not needed here or is needed elsewhere, ask for what is missing.

        Raises redis.client.ERRORS.
        """
        await self._settle(holding)
        now_s = self._clock_s()
        self._served = {of: at for of, at in self._served.items() if now_s - at < IDLE_S and in_force(of)}
        workspaces = sorted({of.budget.workspace for of in (*self._served, *self._slices)})
        asked = await holding.wanted_back(workspaces)
        called = {name for name, at in asked.items() if at != self._wanted_back.get(name, at)}
        self._wanted_back = asked
        for of in [*self._served, *self._slices]:
            if of.budget.workspace in called:
                self._not_before[of] = now_s + IDLE_S
        gone = [
            each
            for of, each in self._slices.items()
            if each.calls or of not in self._served or of.budget.workspace in called
        ]
        for each in gone:
            del self._slices[each.of]
        self._over += gone
        await self._settle(holding)
        self._not_before = {of: at for of, at in self._not_before.items() if at > now_s}
        missing = [of for of in self._served if of not in self._slices and of not in self._not_before]
        room = max(0, MOST - len(self._slices) - len(self._over))
        named = [(of, f"{PREFIX}{secrets.token_hex(8)}") for of in missing[: min(room, AT_ONCE)]]
        if named:
            await asyncio.to_thread(self._file.write, [(of.budget.workspace, name) for of, name in named])
        asking = [self._ask(holding, of, name, now_us) for of, name in named]
        for error in await asyncio.gather(*asking, return_exceptions=True):
            if isinstance(error, BaseException):
                raise error

    async def close(self, holding: Holding | None) -> None:
        """Give everything back, as far as Redis can be asked."""
        self._over += self._slices.values()
        self._slices, self._served = {}, {}
        try:
            if holding is not None:
                await self._settle(holding)
        finally:
            self._file.close()

    async def _settle(self, holding: Holding) -> None:
        """Let go those of which everything that was taken is counted."""
        for each in list(self._over):
            event_ids = [self._ended[call] for call in each.calls]
            if "" in event_ids or not await holding.counted(each.of.budget.workspace, event_ids):
                continue
            await holding.release(each.of.budget.workspace, [each.name])
            self._flying.pop(each.name, None)
            self._over = [one for one in self._over if one is not each]
        waited_for = {call for each in (*self._over, *self._slices.values()) for call in each.calls}
        self._ended = {call: event for call, event in self._ended.items() if call in waited_for}

    async def _ask(self, holding: Holding, of: Allowance, name: str, now_us: int) -> None:
        from taximeter.budgets.reservations import Refusal, Reserved

        size = max(1, int(of.budget.limit * self._percent / 100))
        asked = Slice(name, of, size, set())
        try:
            held = await holding.reserve(name, [(of, size)], now_us)
        except BaseException:  # nobody knows whether it is held
            self._over.append(asked)
            raise
        if isinstance(held, Reserved):
            self._slices[of] = asked
            self._flying[name] = held
        elif isinstance(held, Refusal):
            self._not_before[of] = self._clock_s() + IDLE_S
