"""How a budget is shown, and how its limit is written. Pure; the CLI uses it too."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import msgspec

from taximeter.budgets.rule import MOST, Budget, Mode, Period, Unit, resets_at_us
from taximeter.core.errors import BadRequest
from taximeter.core.times import shown
from taximeter.core.views import NUSD_PER_USD, usd


class BudgetInfo(msgspec.Struct, kw_only=True):
    """A budget as listed; amounts in its own unit."""

    id: str
    workspace: str
    key_id: str | None
    task: str | None
    """Neither key nor task: the whole workspace."""
    unit: Unit
    period: Period
    mode: Mode
    limit: Decimal
    """USD or tokens."""
    spent: Decimal | None
    """In the period now; null: not known (Redis does not answer, or nothing runs)."""
    held: Decimal | None
    """Held by calls in flight: an upper bound of what they will use. Hard budgets only."""
    charged: Decimal | None
    """Charged, not known: for calls that ended without anybody knowing what they used, their upper bounds. Hard budgets
    only."""
    resets_at: str | None
    """When the next period begins; null: never."""
    created_at: str | None


class BudgetList(msgspec.Struct):
    data: list[BudgetInfo]


def limit_of(amount: Decimal, unit: Unit) -> int:
    """A limit as written, in nano-USD or tokens. Raises BadRequest on what is no such amount."""
    bad = BadRequest("The limit must be a number: USD with at most nine decimals, or whole tokens.", param="limit")
    if not amount.is_finite():
        raise bad
    if amount.adjusted() > _LARGEST:  # told as too much by `rule.checked`; as a whole number it may not fit
        return MOST + 1 if amount > 0 else -1
    if int(amount.as_tuple().exponent) < _SMALLEST:
        raise bad
    scaled = Fraction(amount) * (NUSD_PER_USD if unit == "usd" else 1)
    if scaled.denominator != 1:
        raise bad
    return int(scaled)


_LARGEST, _SMALLEST = 20, -40
"""Powers of ten within which a limit is calculated: 1e999999 would take minutes."""


class ChargeInfo(msgspec.Struct, kw_only=True):
    """A call whose use is not known, as listed: what its budgets are charged for it."""

    request_id: str
    attempt: int
    workspace: str
    key_id: str | None
    task: str | None
    ended_at: str | None
    charged_tokens: int
    charged_usd: Decimal


class ChargeList(msgspec.Struct):
    data: list[ChargeInfo]


class Settlement(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is known by now of a call that was charged at its bound; nothing: that it cost nothing."""

    tokens: int = 0
    usd: Decimal = Decimal(0)


def info(
    budget: Budget, now_us: int, spent: int | None = None, held: int | None = None, charged: int | None = None
) -> BudgetInfo:
    """A budget as listed."""
    return BudgetInfo(
        id=budget.id,
        workspace=budget.workspace,
        key_id=budget.key_id or None,
        task=budget.task or None,
        unit=budget.unit,
        period=budget.period,
        mode=budget.mode,
        limit=_amount(budget.limit, budget),
        spent=None if spent is None else _amount(spent, budget),
        held=None if held is None or budget.mode == "soft" else _amount(held, budget),
        charged=None if charged is None or budget.mode == "soft" else _amount(charged, budget),
        resets_at=shown(resets_at_us(budget.period, now_us)),
        created_at=shown(budget.created_at or None),
    )


def _amount(value: int, budget: Budget) -> Decimal:
    return usd(value) if budget.unit == "usd" else Decimal(value)
