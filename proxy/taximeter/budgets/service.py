"""The control process's part in budgets: how they stand, adding up what they are measured by, cleaning up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from taximeter.budgets.holdings import Holdings
from taximeter.budgets.reservations import Reservations, Spent
from taximeter.budgets.responses import BudgetInfo, allowance_info, info
from taximeter.budgets.rule import CAPS, Allowance, Budget, Budgets
from taximeter.budgets.settlements import Charged
from taximeter.budgets.store import BudgetStore
from taximeter.budgets.tally import EACH, Tally
from taximeter.core.errors import TaximeterError
from taximeter.sinks.redis.client import ERRORS

log = logging.getLogger("taximeter.budget")

SWEPT = 200
"""Calls looked at in one sweep of a workspace."""
SWEPT_AT_ONCE = 2_000
"""Where a Redis that went back is put together again; beyond these, the next sweeps do it."""
SETTLED_US = 60_000_000
"""A call that ended this long ago has been counted, unless Redis is behind, which is asked."""


class BudgetService:
    """What the control process does with budgets. Methods but `listing` and `begin` raise redis.client.ERRORS."""

    def __init__(
        self,
        store: BudgetStore,
        reservations: Reservations,
        history: Charged,
        *,
        rebuild: Callable[[str], Awaitable[int]],
        counted: Callable[[], bool],
        drained: Callable[[str], Awaitable[bool]],
        now_us: Callable[[], int],
        capped: Callable[[], bool] = lambda: False,
        turn: Callable[[], bool] = lambda: True,
    ) -> None:
        """`rebuild` writes a workspace's counters anew; `counted` says whether Redis has every record history has;
        `drained` waits, bounded, until a sink has what is in the journals; `capped`: calls may cap their runs;
        `turn`: whether this node looks now at what any of them may put in order (redis.nodes.Fleet)."""
        self.store = store
        self._reservations = reservations
        self._holdings = Holdings(reservations, rebuild=rebuild, drained=drained, sweep=self._sweep_ended)
        self._history = history
        self._rebuild = rebuild
        self._counted = counted
        self._now_us = now_us
        self._capped = capped
        self._turn = turn

    async def listing(self) -> list[BudgetInfo]:
        """Every budget in force and how it stands; amounts null where Redis does not answer."""
        budgets, now_us = await asyncio.to_thread(self.store.listing), self._now_us()
        sole = [allowance for budget in budgets if (allowance := budget.sole) is not None]
        spent: dict[str, Spent] = {}
        with contextlib.suppress(*ERRORS):
            standing = await self._reservations.spent(sole, now_us)
            spent = {allowance.budget.id: each for allowance, each in zip(sole, standing, strict=True)}
        return [info(budget, now_us, spent.get(budget.id)) for budget in budgets]

    async def allowances(self, budget_id: str, most: int) -> list[BudgetInfo]:
        """How what each value may use of a budget stands, of values used in its period, those that used most first.

        Raises NotFound; redis.client.ERRORS and HistoryUnavailable.
        """
        budget, now_us = self.store.in_force().find(budget_id), self._now_us()
        used: dict[Allowance, int] = {}
        asked: set[str] = set()
        if budget.workspace == EACH:
            asked = await self._reservations.asked() | await self._soft_of_each()
        for each in Budgets([budget]).of_workspaces(sorted(asked)):
            if (sole := each.sole) is not None:
                used[sole] = 0
                continue
            for found in await self._history.tallied(each.workspace, [each.tally], now_us):
                allowance = Allowance(each, found.values)
                used[allowance] = used.get(allowance, 0) + found.used + found.charged
        largest = sorted(used, key=lambda one: (-used[one], one.budget.workspace, one.values))[:most]
        standing = await self._reservations.spent(largest, now_us)
        return [allowance_info(one, now_us, stands) for one, stands in zip(largest, standing, strict=True)]

    async def look_after(self) -> None:
        """What `count_apart` does, where it is this node's turn."""
        if self._turn():
            await self.count_apart()

    async def count_apart(self) -> None:
        """See that Redis adds up what budgets are measured by: what it comes to so far from history."""
        workspaces = sorted({*await self._workspaces(), *await self._soft_of_each()})
        for workspace, there in (await self._reservations.tallies(workspaces)).items():
            if not {tally.text for tally in self.tallies(workspace)} <= there:
                await self._rebuild(workspace)

    def tallies(self, workspace: str) -> frozenset[Tally]:
        """What has to be added up for a workspace."""
        found = self.store.in_force().tallies(workspace)
        return found | CAPS if self._capped() else found

    async def _workspaces(self, *, hard: bool = False) -> list[str]:
        """Those with budgets (`hard`: hard ones); where every workspace may have one, those that calls came of."""
        budgets = self.store.in_force()
        found = {
            workspace
            for workspace, them in budgets.workspaces.items()
            if not hard or any(each.mode == "hard" for each in them)
        }
        if self._capped() or any(not hard or each.mode == "hard" for each in budgets.everywhere):
            found |= await self._reservations.asked()
        return sorted(found)

    async def _soft_of_each(self) -> set[str]:
        """Every workspace with counters, where each has a soft budget: no call asks for one and so says whose."""
        if any(each.mode == "soft" for each in self.store.in_force().everywhere):
            return await self._reservations.workspaces()
        return set()

    async def begin(self, budget: Budget) -> None:
        """Have a budget that was just made enforced as soon as workers know it; where Redis does not answer, later."""
        others = await asyncio.to_thread(self.store.stored)
        try:
            if (
                budget.mode == "hard"
                and budget.workspace != EACH
                and not any(
                    each.workspace == budget.workspace and each.mode == "hard" and each.id != budget.id
                    for each in others
                )
            ):
                await self._holdings.open(budget.workspace)
            await self.count_apart()
        except (TaximeterError, *ERRORS) as error:
            log.warning("budget %s counts from the next look at Redis on: %s", budget.id, error)

    async def secure(self) -> None:
        """See that Redis knows what hard budgets have spent and what calls hold of them (see Holdings)."""
        if self._holdings.waiting or self._turn():
            await self._holdings.secure(await self._workspaces(hard=True))

    async def sweep(self) -> None:
        """Let go what calls still hold though they are counted: after a rebuild, or a reservation that came too late.

        What a call holds of which nothing is recorded stays held: it may be in flight on any node.
        """
        if not self._counted() or not self._turn():
            return
        before_us = self._now_us() - SETTLED_US
        for workspace in await self._workspaces():
            await self._sweep(workspace, before_us, SWEPT)

    async def _sweep_ended(self, workspace: str) -> None:
        """The same of calls that ended by now: history's totals have just been written into Redis."""
        await self._sweep(workspace, self._now_us(), SWEPT_AT_ONCE)

    async def _sweep(self, workspace: str, before_us: int, most: int) -> None:
        calls = await self._reservations.held_before(workspace, before_us // 1_000_000, most)
        counted = [call for call in calls if await self._ended_before(call, before_us)]
        if counted:
            released = await self._reservations.release(workspace, counted)
            log.warning("budgets of workspace %r: %d calls held what they had used already", workspace, released)

    async def _ended_before(self, call: str, before_us: int) -> bool:
        request_id, _, attempt = call.rpartition("#")
        records = await self._history.record(request_id)
        return any(str(each.attempt) == attempt and each.ended_at < before_us for each in records)
