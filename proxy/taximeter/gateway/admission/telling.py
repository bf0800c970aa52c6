"""Headers that tell a client how its limits stand. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.budgets.rule import Budget, resets_at_us

Headers = list[tuple[bytes, bytes]]

RATES = b"x-ratelimit-"
CLAMPED = b"x-taximeter-max-tokens"
"""To how many tokens an answer was bounded, because no more is left."""


def budget_headers(budgets: Iterable[tuple[Budget, int]], now_us: int) -> Headers:
    """How the fullest of a call's budgets stands: its limit, what is left of it and not held, in its own unit, and in
    how many seconds its next period begins (left out where there is none).

    `budgets`: each with what is left and not held.
    """
    fullest = min(budgets, key=lambda each: each[1] / each[0].limit, default=None)
    if fullest is None:
        return []
    budget, unheld = fullest
    headers = [
        (b"x-taximeter-budget-limit", amount(budget.limit, budget).encode()),
        (b"x-taximeter-budget-remaining", amount(unheld, budget).encode()),
        (b"x-taximeter-budget-unit", budget.unit.encode()),
    ]
    resets_s = resets_in_s(budget, now_us)
    if resets_s is not None:
        headers.append((b"x-taximeter-budget-reset", b"%d" % resets_s))
    return headers


def told(ours: Headers, upstreams: Headers) -> Headers:
    """What we tell of a call's limits with an answer that has these headers of the upstream's: of rates only where they
    tell none, as those pass as they are."""
    if any(name.startswith(RATES) for name, _ in upstreams):
        return [field for field in ours if not field[0].startswith(RATES)]
    return ours


def resets_in_s(budget: Budget, now_us: int) -> int | None:
    """In how many seconds the budget's next period begins; None: never."""
    resets_us = resets_at_us(budget.period, now_us)
    return None if resets_us is None else max(1, -(-(resets_us - now_us) // 1_000_000))


def amount(value: int, budget: Budget) -> str:
    """An amount in the budget's own unit, USD as a decimal number."""
    if budget.unit != "usd":
        return str(value)
    return f"{value // 10**9}.{value % 10**9:09d}".rstrip("0").rstrip(".")
