"""Hard budgets of one worker: which calls have one (a look-up in memory), and holding a part of it in Redis.

Only a call with a budget waits for Redis, and redis-py is imported only where there is a hard budget.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from taximeter.core.budgets import Budget, Budgets, resets_at_us
from taximeter.core.errors import BadRequest, BudgetExceeded, BudgetReserved, BudgetUnavailable
from taximeter.core.record import Open, Source, reservation_of
from taximeter.gateway.admission import names_two_models
from taximeter.gateway.bounds import Bound, bound, cost_nusd
from taximeter.gateway.vocabularies import vocabulary_of

if TYPE_CHECKING:
    from taximeter.config import BudgetSettings
    from taximeter.flavors.meter import Flavor
    from taximeter.gateway.call import Prices
    from taximeter.gateway.counting import Counting
    from taximeter.sinks.reservations import Refusal, Reservations

log = logging.getLogger("taximeter.budget")

TIMEOUT_S = 1.0
"""A Redis that is silent for longer is taken for unavailable."""
RETRY_AFTER_S = 2
"""When a call may come again whose budget is held by others in flight."""


class Holding(Protocol):
    """What holds parts of budgets (see sinks.reservations)."""

    async def reserve(self, call: str, wanted: Sequence[tuple[Budget, int]], now_us: int) -> Refusal | None: ...

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
        self._prices = prices
        self._counting = counting
        self._now_us = now_us
        self._told = False
        self.hard = Budgets()

    def use(self, budgets: Sequence[Budget]) -> None:
        """These are the budgets from now on; soft ones are the control process's affair."""
        self.hard = Budgets(budget for budget in budgets if budget.mode == "hard")

    async def close(self) -> None:
        """Close the connection to Redis, where there is one."""
        if self._holding is not None:
            await self._holding.close()

    async def hold(self, opening: Open, flavor: Flavor, body: bytes, tokenizer: str) -> None:
        """Hold an upper bound of what the call may use, of every hard budget it has.

        Raises BudgetExceeded, BudgetReserved or BudgetUnavailable; BadRequest on a body that names two models.
        """
        budgets = self.hard.of(opening.workspace, opening.key_id, opening.task)
        if not budgets:  # ended a moment ago
            return
        if names_two_models(body):
            raise BadRequest("The body has more than one 'model' key.", param="model")
        wanted = self._amounts(budgets, opening, await self._bound(opening, flavor, body, tokenizer))
        refusal = await self._reserve(opening, wanted)
        if refusal is not None:
            raise _refused(refusal, self._now_us())

    async def _bound(self, opening: Open, flavor: Flavor, body: bytes, tokenizer: str) -> Bound:
        text = flavor.input(body)
        counted = await self._counting.count(
            text, model=opening.request_model, provider=opening.provider, tokenizer=tokenizer
        )
        tokens = counted.tokens
        if counted.source is Source.ESTIMATED and (tokenizer or vocabulary_of(opening.request_model)):
            # Too much waits to be tokenized, or the process is gone: that must not make a bound of a guess.
            tokens = max(tokens, text.tokens + sum(len(part.encode("utf-8", "replace")) for part in text.texts))
        # Pictures and whatever else could not be read: no token is shorter than what four bytes of base64 carry.
        tokens = max(tokens, len(body) // 4) if text.truncated else tokens
        return bound(opening.operation, tokens, body, self._settings.default_max_output_tokens)

    def _amounts(self, budgets: Sequence[Budget], opening: Open, most: Bound) -> list[tuple[Budget, int]]:
        cost: int | None = None
        if any(budget.unit == "usd" for budget in budgets):
            cost = cost_nusd(self._prices, opening, most)
            if cost is None and most.tokens and self._settings.on_unpriced == "refuse":
                raise BudgetExceeded(
                    f"Workspace {opening.workspace!r} has a budget in USD, and the model {opening.request_model!r} has "
                    "no price here."
                )
        return [(budget, most.tokens if budget.unit == "tokens" else cost or 0) for budget in budgets]

    async def _reserve(self, opening: Open, wanted: Sequence[tuple[Budget, int]]) -> Refusal | None:
        from taximeter.sinks.redis_client import ERRORS, is_ours

        if self._holding is None:
            self._holding = self._connect()
        try:
            refusal = await self._holding.reserve(reservation_of(opening), wanted, self._now_us())
        except ERRORS as error:
            refuses = self._settings.on_unavailable == "refuse" or is_ours(
                error
            )  # our own exhaustion lets nothing pass
            if not self._told:
                log.error("budgets cannot be checked, calls are %s: %s", "refused" if refuses else "allowed", error)
            self._told = True
            if refuses:
                raise BudgetUnavailable(
                    "Budgets cannot be checked now. Try again.", retry_after_s=RETRY_AFTER_S
                ) from error
            return None
        self._told = False
        return refusal


def connect(redis_url: str) -> Reservations:
    """Reservations in the Redis at this URL; nothing is sent yet."""
    from taximeter.sinks.redis_client import RedisServer
    from taximeter.sinks.reservations import Reservations

    return Reservations(RedisServer(redis_url, timeout_s=None), timeout_s=TIMEOUT_S)


def _refused(refusal: Refusal, now_us: int) -> BudgetExceeded | BudgetReserved:
    budget = refusal.budget
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
        )
    resets_us = resets_at_us(budget.period, now_us)
    return BudgetExceeded(
        f"{name} has used its {period}budget of {_amount(budget.limit, budget)}: {_amount(refusal.spent, budget)} are "
        "spent, and this call may use more than what is left.",
        retry_after_s=None if resets_us is None else max(1, -(-(resets_us - now_us) // 1_000_000)),
    )


def _amount(value: int, budget: Budget) -> str:
    if budget.unit == "tokens":
        return f"{value:,} tokens"
    return f"${value // 10**9}.{value % 10**9:09d}".rstrip("0").rstrip(".")
