"""What a client is told whose call a budget has no room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from taximeter.budgets.rule import Allowance, Budget, shown_amount
from taximeter.core.errors import BudgetExceeded, BudgetReserved
from taximeter.gateway.admission.telling import budget_headers, resets_in_s

if TYPE_CHECKING:
    from taximeter.budgets.reservations import Refusal

RETRY_AFTER_S = 2
"""When a call may come again whose budget is held by others in flight."""


def refused(refusal: Refusal, left: Sequence[tuple[Allowance, int]], now_us: int) -> BudgetExceeded | BudgetReserved:
    """What a call is refused with that the budget of `refusal` has no room for; `left`: what is left of each."""
    budget, whose = refusal.allowance.budget, refusal.allowance.named
    told = budget_headers([each for each in left if each[0] == refusal.allowance], now_us)
    if not refusal.over:
        return BudgetReserved(
            f"What is left of the {_period(budget)}budget of {whose} is held by calls in flight. Try again.",
            retry_after_s=RETRY_AFTER_S,
            told=told,
        )
    limit, spent = (shown_amount(amount, budget.unit) for amount in (budget.limit, refusal.spent))
    charged = ""
    if refusal.charged:
        charged = f", {shown_amount(refusal.charged, budget.unit)} are charged for calls whose use is not known"
    return BudgetExceeded(
        f"{whose[0].upper()}{whose[1:]} has used its {_period(budget)}budget of {limit}: {spent} are spent{charged}, "
        "and this call may use more than what is left.",
        retry_after_s=resets_in_s(budget, now_us),
        told=told,
    )


def _period(budget: Budget) -> str:
    """`daily `, `30d `, or nothing where it is for all time."""
    named = {"day": "daily ", "total": ""}.get(budget.period)
    if named is None:
        named = f"{budget.when.name(0)} " if budget.when.window_s else f"{budget.period}ly "
    return named
