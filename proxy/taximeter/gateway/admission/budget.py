"""Hard budgets of one worker: which calls have one (a look-up in memory), and holding a part of it in Redis.

Only a call with a budget waits for Redis, and redis-py is imported only where there is a hard budget.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from taximeter.budgets.charges import Held
from taximeter.budgets.rule import Budget, Budgets
from taximeter.core.errors import BudgetExceeded, BudgetReserved, BudgetUnavailable
from taximeter.core.record import Open, reservation_of
from taximeter.gateway.admission.telling import CLAMPED, amount, budget_headers, resets_in_s
from taximeter.gateway.admission.wanted import Prices, Wanting
from taximeter.gateway.bounds.clamp import is_sealed

if TYPE_CHECKING:
    from taximeter.budgets.reservations import Lost, Refusal, Reservations, Reserved, Spent
    from taximeter.config import BudgetSettings
    from taximeter.flavors.meter import Flavor, Prepared
    from taximeter.gateway.bounds.readable import Headers
    from taximeter.gateway.metering.counting import Counting

log = logging.getLogger("taximeter.budget")

TIMEOUT_S = 1.0
"""A Redis that is silent for longer is taken for unavailable."""
RETRY_AFTER_S = 2
"""When a call may come again whose budget is held by others in flight."""
WAIT_S = 5.0
"""How long a call waits for a Redis that was emptied or went back to be put together again; it takes about 2 s
(budgets.holdings)."""
CLAMPS = 3
"""How often a call is shortened to what is left, before others' calls have taken it again and it is refused."""
ASK_AGAIN_S = (0.05, 0.4)
"""The first and the longest pause between two looks meanwhile."""
LOOK_S = 0.25
"""How often, while calls hold parts of budgets, it is looked whether Redis still knows of them."""


class Holding(Protocol):
    """What holds parts of budgets (see budgets.reservations)."""

    async def reserve(
        self, call: str, wanted: Sequence[tuple[Budget, int]], now_us: int, *, in_flight: bool = False
    ) -> Reserved | Refusal | Lost: ...

    async def changed(self, workspaces: Sequence[str]) -> dict[str, str]: ...

    async def spent(self, budgets: Sequence[Budget], now_us: int) -> list[Spent]: ...

    async def close(self) -> None: ...


class BudgetGate:
    """The budgets of one worker; `use` may replace them at any time."""

    def __init__(
        self,
        settings: BudgetSettings,
        *,
        connect: Callable[[], Holding],
        prices: Prices,
        counting: Counting,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """`connect` makes the holder, at the first call that has a budget."""
        self._settings = settings
        self._connect = connect
        self._holding: Holding | None = None
        self.wanting = Wanting(settings, prices, counting)
        self._now_us = now_us
        self._told = False
        self._flying: dict[str, Reserved] = {}
        """What calls in flight hold, or should."""
        self.hard = Budgets()
        self._all = Budgets()

    def use(self, budgets: Sequence[Budget]) -> None:
        """These are the budgets from now on; soft ones are the control process's affair, and told in quotes."""
        self.hard = Budgets(budget for budget in budgets if budget.mode == "hard")
        self._all = Budgets(budgets)

    def hard_of(self, opening: Open) -> Sequence[Budget]:
        """The hard budgets a call counts against."""
        return self.hard.of(opening.workspace, opening.key_id, opening.task)

    async def standing(self, opening: Open) -> list[tuple[Budget, Spent | None]]:
        """Every budget a call would count against, soft ones too, and how it stands; None: Redis does not answer."""
        budgets = self._all.of(opening.workspace, opening.key_id, opening.task)
        if not budgets:
            return []
        from taximeter.sinks.redis.asking import within
        from taximeter.sinks.redis.client import ERRORS

        if self._holding is None:
            self._holding = self._connect()
        try:
            return list(
                zip(budgets, await within(self._holding.spent(budgets, self._now_us()), TIMEOUT_S), strict=True)
            )
        except ERRORS:
            return [(budget, None) for budget in budgets]

    def refusal(self, budget: Budget, stands: Spent, amount: int) -> BudgetExceeded | BudgetReserved | None:
        """What a call that may use so much of a budget would be refused with, as it stands."""
        from taximeter.budgets.reservations import Refusal

        left = budget.limit - stands.spent - stands.charged
        over = left <= 0 or amount > left  # as reserve.lua decides
        if budget.mode != "hard" or not (over or stands.held + amount > left):
            return None
        unheld = max(0, left - stands.held)
        return _refused(Refusal(budget, stands.spent, stands.charged, over=over), [(budget, unheld)], self._now_us())

    async def close(self) -> None:
        """Close the connection to Redis, where there is one."""
        if self._holding is not None:
            await self._holding.close()

    async def hold(
        self, opening: Open, flavor: Flavor, prepared: Prepared, tokenizer: str, headers: Headers
    ) -> Held | None:
        """Hold an upper bound of what the call may use, of every hard budget it has; returns the bound.

        With `budget.clamp` the call is shortened to what is left: then `prepared` has another body. None: it has no
        budget any more. Raises BudgetExceeded, BudgetReserved or BudgetUnavailable; and what `Wanting.of` does.
        """
        from taximeter.budgets.reservations import Refusal, Reserved

        budgets, demand = self.hard_of(opening), prepared.demand
        if not budgets or demand is None:  # ended a moment ago
            return None
        want = await self.wanting.of(budgets, opening, flavor, demand, tokenizer)
        body, answer_tokens = prepared.body, None
        for attempt in range(CLAMPS + 1):
            reserved = await self._reserve(opening, want.of(budgets))
            if not isinstance(reserved, Refusal):
                break
            left = list(zip(budgets, reserved.unheld, strict=True))
            shorter = None
            if self._settings.clamp and attempt < CLAMPS and prepared.reading is None and not is_sealed(headers):
                shorter = self.wanting.clamp(want, left, opening, flavor, demand, prepared.body)
            if shorter is None:
                raise _refused(reserved, left, self._now_us())
            want, body, answer_tokens = shorter
        prepared.body = body
        if isinstance(reserved, Reserved) and reserved.unheld:
            want.held.told += budget_headers(zip(budgets, reserved.unheld, strict=True), self._now_us())
        if answer_tokens is not None:
            want.held.told.append((CLAMPED, b"%d" % answer_tokens))
        return want.held

    def let_go(self, call: Open) -> None:
        """A call's record is written: counting that lets go what the call held."""
        self._flying.pop(reservation_of(call), None)

    async def watch(self) -> None:
        """For ever: see that Redis knows what calls in flight hold. One that forgot is told again."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if self._flying:
                    await self.look()
            except Exception:  # a worker that cannot look goes on all the same
                log.exception("cannot see whether Redis knows what calls in flight hold")

    async def look(self) -> None:
        """Hold again what calls in flight hold in another epoch than it is now; while Redis is away, nothing."""
        from taximeter.budgets.reservations import Reserved
        from taximeter.sinks.redis.asking import within
        from taximeter.sinks.redis.client import ERRORS

        assert self._holding is not None  # noqa: S101
        with contextlib.suppress(*ERRORS):
            workspaces = sorted({held.wanted[0][0].workspace for held in self._flying.values()})
            epochs = await within(self._holding.changed(workspaces), TIMEOUT_S)
            stale = {
                call: held
                for call, held in self._flying.items()
                if epochs.get(held.wanted[0][0].workspace, held.epoch) != held.epoch or not held.epoch
            }
            renewed = await asyncio.gather(
                *(
                    self._holding.reserve(call, held.wanted, self._now_us(), in_flight=True)
                    for call, held in stale.items()
                )
            )
            for call, held in zip(stale, renewed, strict=True):
                if call in self._flying and isinstance(held, Reserved):
                    self._flying[call] = held

    async def _reserve(self, opening: Open, wanted: Sequence[tuple[Budget, int]]) -> Reserved | Refusal | None:
        """Hold the amounts, or say why not. Waits, bounded, for a Redis that is being put together again.

        None: Redis cannot be asked, and the call passes all the same. Raises BudgetUnavailable.
        """
        from taximeter.budgets.reservations import Lost, Reserved
        from taximeter.sinks.redis.asking import answered, is_ours
        from taximeter.sinks.redis.client import ERRORS

        if self._holding is None:
            self._holding = self._connect()
        call, pause_s = reservation_of(opening), ASK_AGAIN_S[0]
        until = asyncio.get_running_loop().time() + WAIT_S
        while True:
            try:
                held = await self._holding.reserve(call, wanted, self._now_us())
            except ERRORS as error:
                self._unavailable(call, wanted, str(error), away=not (is_ours(error) or answered(error)))
                return None
            if isinstance(held, Reserved):
                if self._told:
                    log.warning("budgets can be checked again")
                self._told = False
                self._flying[call] = held
            if not isinstance(held, Lost):
                return held
            if asyncio.get_running_loop().time() >= until:
                self._unavailable(call, wanted, "Redis lost what was counted and held, and it is not rebuilt yet")
                return None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, ASK_AGAIN_S[1])

    def _unavailable(self, call: str, wanted: Sequence[tuple[Budget, int]], why: str, *, away: bool = True) -> None:
        """Do with a call whose budget cannot be asked what the settings say.

        Where it passes, what it may use is held as soon as it can be.
        """
        from taximeter.budgets.reservations import Reserved

        refuses = self._settings.on_unavailable == "refuse" or not away  # our own exhaustion, a full Redis: no outage
        if not self._told:
            log.error("budgets cannot be checked, calls are %s: %s", "refused" if refuses else "allowed", why)
        self._told = True
        if refuses:
            raise BudgetUnavailable("Budgets cannot be checked now. Try again.", retry_after_s=RETRY_AFTER_S)
        self._flying[call] = Reserved(wanted, "")


def connect(redis_url: str) -> Reservations:
    """Reservations in the Redis at this URL; nothing is sent yet."""
    from taximeter.budgets.reservations import Reservations
    from taximeter.sinks.redis.client import RedisServer

    return Reservations(RedisServer(redis_url, timeout_s=None), timeout_s=TIMEOUT_S)


def _refused(refusal: Refusal, left: Sequence[tuple[Budget, int]], now_us: int) -> BudgetExceeded | BudgetReserved:
    budget = refusal.budget
    told = budget_headers([each for each in left if each[0] is budget], now_us)
    whose = {"key": f"Key {budget.key_id!r}", "task": f"Task {budget.task!r}", "": "Workspace"}[
        budget.scope[:4].rstrip(":")
    ]
    of = "" if not budget.scope else " of workspace"
    period = {"day": "daily ", "month": "monthly ", "total": ""}[budget.period]
    name = f"{whose}{of} {budget.workspace!r}"
    if not refusal.over:
        return BudgetReserved(
            f"What is left of the {period}budget of {name[0].lower()}{name[1:]} is held by calls in flight. Try again.",
            retry_after_s=RETRY_AFTER_S,
            told=told,
        )
    charged = (
        f", {_amount(refusal.charged, budget)} are charged for calls whose use is not known" if refusal.charged else ""
    )
    return BudgetExceeded(
        f"{name} has used its {period}budget of {_amount(budget.limit, budget)}: {_amount(refusal.spent, budget)} are "
        f"spent{charged}, and this call may use more than what is left.",
        retry_after_s=resets_in_s(budget, now_us),
        told=told,
    )


def _amount(value: int, budget: Budget) -> str:
    return f"{value:,} tokens" if budget.unit == "tokens" else f"${amount(value, budget)}"
