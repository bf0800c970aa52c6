"""Headers that tell a client how its limits stand. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.budgets.rule import Allowance, Budget
from taximeter.budgets.tally import Unit

Headers = list[tuple[bytes, bytes]]

RATES = b"x-ratelimit-"
CLAMPED = b"x-taximeter-max-tokens"
"""To how many tokens an answer was bounded, because no more is left."""


def budget_headers(allowances: Iterable[tuple[Allowance, int]], now_us: int) -> Headers:
    """How the fullest of a call's allowances stands: its limit, what is left of it and not held, in its own unit, and
    in how many seconds its next period begins (left out where there is none).

    `allowances`: each with what is left and not held.
    """
    fullest = min(allowances, key=lambda each: each[1] / each[0].budget.limit, default=None)
    if fullest is None:
        return []
    budget, unheld = fullest[0].budget, fullest[1]
    headers = [
        (b"x-taximeter-budget-limit", amount(budget.limit, budget.unit).encode()),
        (b"x-taximeter-budget-remaining", amount(unheld, budget.unit).encode()),
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
    now_s = now_us // 1_000_000
    resets_s = budget.when.resets_at_s(now_s)
    return None if resets_s is None else max(1, resets_s - now_s)


def amount(value: int, unit: Unit) -> str:
    """An amount of a unit: USD and seconds as decimal numbers."""
    places = {"usd": 9, "seconds": 3}.get(unit, 0)
    if not places:
        return str(value)
    return f"{value // 10**places}.{value % 10**places:0{places}d}".rstrip("0").rstrip(".")
