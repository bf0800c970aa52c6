"""How a budget is shown, and how its limit is written. Pure; the CLI uses it too."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Protocol

import msgspec

from taximeter.budgets.rule import MOST, WORDS, Allowance, Budget, Mode
from taximeter.budgets.tally import DIMENSIONS, EACH, Unit
from taximeter.core.errors import BadRequest
from taximeter.core.times import shown
from taximeter.core.views import NUSD_PER_USD, usd

PARTS_OF = {"usd": NUSD_PER_USD, "seconds": 1_000}
"""Parts of a unit in which it is counted; of the others, whole ones."""


class Standing(Protocol):
    """How an allowance stands (see reservations.Spent)."""

    @property
    def spent(self) -> int: ...
    @property
    def held(self) -> int: ...
    @property
    def charged(self) -> int: ...


class BudgetInfo(msgspec.Struct, kw_only=True):
    """A budget as listed; amounts in its own unit."""

    id: str
    workspace: str
    key_id: str | None
    task: str | None
    track: str | None = None
    document: str | None = None
    end_user: str | None = None
    model: str | None = None
    upstream: str | None = None
    """None of these: the whole workspace. `*`: each value has the whole limit for itself."""
    unit: Unit
    period: str
    tz: str = "UTC"
    mode: Mode
    limit: Decimal
    """USD, tokens, requests or seconds of audio."""
    spent: Decimal | None
    """In the period now; null: not known (Redis does not answer, or nothing runs), or not one figure (`*`)."""
    held: Decimal | None
    """Held by calls in flight: an upper bound of what they will use. Hard budgets only."""
    charged: Decimal | None
    """Charged, not known: for calls that ended without anybody knowing what they used, their upper bounds. Hard budgets
    only."""
    resets_at: str | None
    """When the next period begins, or the oldest part of a rolling window leaves it; null: never."""
    created_at: str | None

    @property
    def about(self) -> str:
        """`acme`, `acme key key_1`, `acme each end user, model gpt-4o`."""
        parts = [
            f"each {WORDS[name]}" if wanted == EACH else f"{WORDS[name]} {wanted}"
            for name in DIMENSIONS
            if (wanted := getattr(self, name))
        ]
        return f"{self.workspace} {', '.join(parts)}" if parts else self.workspace


class BudgetList(msgspec.Struct):
    data: list[BudgetInfo]


def limit_of(amount: Decimal, unit: Unit) -> int:
    """A limit as written, in nano-USD, tokens, requests or milliseconds. Raises BadRequest on what is none."""
    bad = BadRequest(
        "The limit must be a number: USD with at most nine decimals, seconds with at most three, or whole tokens or "
        "requests.",
        param="limit",
    )
    if not amount.is_finite():
        raise bad
    if amount.adjusted() > _LARGEST:  # told as too much by `rule.checked`; as a whole number it may not fit
        return MOST + 1 if amount > 0 else -1
    if int(amount.as_tuple().exponent) < _SMALLEST:
        raise bad
    scaled = Fraction(amount) * PARTS_OF.get(unit, 1)
    if scaled.denominator != 1:
        raise bad
    return int(scaled)


def amount_of(value: int, unit: Unit) -> Decimal:
    """What is counted of a unit, as it is shown."""
    return usd(value) if unit == "usd" else Decimal(value) / PARTS_OF.get(unit, 1)


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


def info(budget: Budget, now_us: int, stands: Standing | None = None) -> BudgetInfo:
    """A budget as listed."""
    hard = budget.mode == "hard"
    resets_s = budget.when.resets_at_s(now_us // 1_000_000)

    def amount(value: int) -> Decimal:
        return amount_of(value, budget.unit)

    return BudgetInfo(
        id=budget.id,
        workspace=budget.workspace,
        **{name: getattr(budget, name) or None for name in DIMENSIONS},
        unit=budget.unit,
        period=budget.period,
        tz=budget.tz,
        mode=budget.mode,
        limit=amount(budget.limit),
        spent=None if stands is None else amount(stands.spent),
        held=None if stands is None or not hard else amount(stands.held),
        charged=None if stands is None or not hard else amount(stands.charged),
        resets_at=shown(None if resets_s is None else resets_s * 1_000_000),
        created_at=shown(budget.created_at or None),
    )


def allowance_info(allowance: Allowance, now_us: int, stands: Standing | None = None) -> BudgetInfo:
    """How what one value, or combination of values, may use of a budget stands: as a budget of just these."""
    budget = allowance.budget
    scope = {name: value for (name, _), value in zip(budget.tally.scope, allowance.values, strict=True)}
    return msgspec.structs.replace(info(budget, now_us, stands), id="/".join((budget.id, *allowance.own)), **scope)
