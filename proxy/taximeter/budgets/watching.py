"""Watching how full budgets are, and telling of each threshold once a period: over restarts, and by one of the nodes.

Budgets with one allowance are looked at always; of those with one for each value, the values that records came for,
and at the start every value history knows of in the period.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

from taximeter.budgets.reservations import Reservations, Spent
from taximeter.budgets.rule import Allowance, Budget, Budgets
from taximeter.budgets.store import BudgetStore
from taximeter.budgets.tally import EACH, Tally, TallySum
from taximeter.budgets.thresholds import ThresholdReached, just_over_us, reached

log = logging.getLogger("taximeter.budget")

Touched = tuple[str, Tally, tuple[str, ...]]
"""Workspace, tally, and the values a record was added up for."""

MOST_TOLD = 100_000
"""Thresholds remembered as told; beyond, history is asked again."""
AT_ONCE = 1_000
"""Allowances asked for in one round trip."""


class Remembering(Protocol):
    """History's part."""

    async def claim(self, key: str, at_us: int) -> bool | None: ...

    async def done(self, key: str, at_us: int) -> None: ...

    async def tallied(self, workspace: str, tallies: Sequence[Tally], now_us: int) -> list[TallySum]: ...


def _place(allowance: Allowance) -> tuple[str, tuple[str, ...]]:
    """In the order of these budgets are looked at and told of: the same, whatever order sets have."""
    return allowance.budget.id, allowance.values


class Watching:
    """Of one node. `look` raises redis.client.ERRORS and HistoryUnavailable; what was not looked at is next time."""

    def __init__(
        self,
        store: BudgetStore,
        reservations: Reservations,
        history: Remembering,
        *,
        touched: Callable[[], Collection[Touched]],
        thresholds: Callable[[], Sequence[int]],
        tell: Callable[[ThresholdReached], Awaitable[None]] | None,
        now_us: Callable[[], int],
        turn: Callable[[], bool] = lambda: True,
    ) -> None:
        """`touched` returns, once each, what was added up since it was asked last; `thresholds` are per cent; `turn`:
        whether this node looks now at budgets of which it has counted nothing, too (redis.nodes.Fleet)."""
        self._store, self._reservations, self._history = store, reservations, history
        self._touched, self._thresholds, self._tell, self._now_us = touched, thresholds, tell, now_us
        self._turn = turn
        self._waiting: set[Touched] = set()
        self._known: set[str] = set()
        """Budgets whose values of before this start were looked at."""
        self._unsure: set[Allowance] = set()
        """Of which somebody was about to tell something, and has not said that it is told."""
        self._told: set[str] = set()
        self._fullest: dict[str, tuple[int, float]] = {}
        """Budget -> when its period began, the fullest allowance's used part in it."""
        self.ratios: dict[str, float] = {}
        """Workspace -> spent part of its fullest budget, as of the last look."""
        self.reached: dict[tuple[str, int], int] = {}
        """(workspace, per cent) -> how often a threshold was told of by this process."""

    async def look(self) -> None:
        """See how full budgets are; tell of thresholds."""
        budgets, now_us = await asyncio.to_thread(self._store.listing), self._now_us()
        self._waiting |= set(self._touched())
        await self._look_back([budget for budget in budgets if budget.each and budget.workspace != EACH], now_us)
        touched = None if self._turn() else {workspace for workspace, _, _ in self._waiting}
        allowances = [
            allowance
            for budget in budgets
            if (allowance := budget.sole) is not None and (touched is None or budget.workspace in touched)
        ]
        allowances += self._of_values(budgets)
        in_force = {budget.id for budget in budgets}
        unsure = {each for each in self._unsure if each.budget.id in in_force}.difference(allowances)
        allowances += sorted(unsure, key=_place)
        unsure = {each.allowance for each in await self._seen(allowances, now_us, now_us) if not await self._once(each)}
        late: dict[int, list[Allowance]] = {}
        for allowance in allowances:
            if (of_us := just_over_us(allowance.budget, now_us)) is not None:
                late.setdefault(of_us, []).append(allowance)
        for of_us, some in late.items():
            unsure |= {each.allowance for each in await self._seen(some, of_us, now_us) if not await self._once(each)}
        self._waiting.clear()
        self._unsure = unsure
        self._fullest = {budget.id: self._fullest[budget.id] for budget in budgets if budget.id in self._fullest}
        self.ratios = {}
        for budget in budgets:
            ratio = self._fullest.get(budget.id, (0, 0.0))[1]
            self.ratios[budget.workspace] = max(ratio, self.ratios.get(budget.workspace, 0.0))

    async def _seen(self, allowances: Sequence[Allowance], of_us: int, now_us: int) -> list[ThresholdReached]:
        """What these have reached in their period of that moment."""
        found: list[ThresholdReached] = []
        for start in range(0, len(allowances), AT_ONCE):
            some = allowances[start : start + AT_ONCE]
            for allowance, stands in zip(some, await self._reservations.spent(some, of_us), strict=True):
                if of_us == now_us:
                    self._note(allowance, stands, now_us)
                found += reached(allowance, stands.spent, stands.charged, self._thresholds(), now_us, of_us)
        return found

    async def _look_back(self, budgets: Sequence[Budget], now_us: int) -> None:
        for budget in budgets:
            if budget.id not in self._known:
                for each in await self._history.tallied(budget.workspace, [budget.tally], now_us):
                    self._waiting.add((budget.workspace, each.tally, each.values))
                self._known.add(budget.id)

    def _of_values(self, budgets: Sequence[Budget]) -> list[Allowance]:
        several = Budgets(budget for budget in budgets if budget.sole is None)
        found: dict[Allowance, None] = {}
        for workspace, tally, values in self._waiting:
            for budget in several.of_workspace(workspace):
                if tally in (budget.tally, budget.tally.widest) and (allowance := budget.of_values(values)) is not None:
                    found[allowance] = None
        return sorted(found, key=_place)

    def _note(self, allowance: Allowance, stands: Spent, now_us: int) -> None:
        budget = allowance.budget
        since_s = budget.when.start_s(now_us // 1_000_000)
        ratio = (stands.spent + max(0, stands.charged)) / budget.limit
        before = self._fullest.get(budget.id, (since_s, 0.0))
        if budget.sole is None and before[0] == since_s:
            ratio = max(ratio, before[1])
        self._fullest[budget.id] = since_s, ratio

    async def _once(self, each: ThresholdReached) -> bool:
        """Tell it, unless it was told. False: somebody else is about to, and may die of it: look again."""
        if each.key in self._told:
            return True
        mine = await self._history.claim(f"budget:{each.key}", each.at_us)
        if mine is None:
            return False
        if mine:
            if self._tell is not None:
                await self._tell(each)
            budget = each.allowance.budget
            place = budget.workspace, each.percent
            self.reached[place] = self.reached.get(place, 0) + 1
            log.warning("budget %s: %d %% of what %s may use is used (%s)", budget.id, each.percent,
                        each.allowance.named, each.period)  # fmt: skip
            await self._history.done(f"budget:{each.key}", each.at_us)
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told.add(each.key)
        return True
