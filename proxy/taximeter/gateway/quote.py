"""What a call would use and cost, before it is made: the answer to `POST /quote/…`, and how it is put together. Pure.

The command line decodes the same struct.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from taximeter.budgets.responses import BudgetInfo, amount_of
from taximeter.core.errors import RequestError
from taximeter.core.record import Source

if TYPE_CHECKING:
    from taximeter.gateway.bounds.bounds import Bound


class QuotedBound(msgspec.Struct, kw_only=True):
    """The most the call may use: what a hard budget would hold."""

    input_tokens: int
    output_tokens: int
    search_units: int
    tool_uses: int
    """Of tools that the provider runs and charges for."""
    seconds: int
    """Of audio."""
    assumed: list[str]
    """What the request leaves open, and is taken at its maximum."""
    endless: list[str]
    """What has no maximum: the figures are without it."""


class QuotedBudget(msgspec.Struct, kw_only=True):
    """A budget the call would count against; amounts in the budget's own unit."""

    budget: BudgetInfo
    bound: Decimal | None
    """The most the call would take of it; null: not known, as the model has no price."""
    left: Decimal | None
    """Of the limit now, less what is spent, charged and held; null: Redis does not answer."""
    left_after: Decimal | None
    """The same if the call used all of its bound; less than 0: it would not pass, or, of a soft one, go over."""


class Refusal(msgspec.Struct, kw_only=True):
    """What the call would be answered with instead of being sent."""

    status: int
    code: str
    message: str


class Quote(msgspec.Struct, kw_only=True):
    """What one call would use and cost. Nothing was sent, held or recorded."""

    api: str
    operation: str
    model: str | None
    provider: str
    upstream: str
    workspace: str
    track: str | None
    task: str | None
    end_user: str | None
    key_id: str | None
    input_tokens: int | None
    """Of the prompt; null: not known."""
    input_source: Source
    """`counted` by the model's own tokenizer, `estimated` from bytes, `none`."""
    tokenizer: str | None
    bound: QuotedBound | None
    """null: the request could not be read."""
    input_cost_usd: Decimal | None
    """Of the prompt alone, at the usual price, nothing cached; null: see `notes`."""
    bound_cost_usd: Decimal | None
    """Of the bound, every token at its dearest; null: see `notes`."""
    budgets: list[QuotedBudget]
    clamped_output_tokens: int | None
    """With `budget.clamp`: it would pass, its answer bounded to so many tokens that are left."""
    would_pass: bool
    refusal: Refusal | None
    """Why it would not pass, the first reason there is."""
    notes: list[str]
    """What is not known, and why."""


encode = msgspec.json.Encoder(decimal_format="number").encode


def quoted_bound(bound: Bound) -> QuotedBound:
    """A bound as quoted."""
    return QuotedBound(
        input_tokens=bound.input_tokens,
        output_tokens=bound.output_tokens,
        search_units=bound.search_units,
        tool_uses=bound.uses,
        seconds=bound.seconds,
        assumed=list(dict.fromkeys(bound.assumed)),
        endless=list(dict.fromkeys(bound.endless)),
    )


def quoted_budget(budget: BudgetInfo, bound: int | None) -> QuotedBudget:
    """A budget as quoted; `bound` as it is counted (nano-USD, tokens, milliseconds)."""
    amount = None if bound is None else amount_of(bound, budget.unit)
    left = None
    if budget.spent is not None:
        left = budget.limit - budget.spent - (budget.charged or 0) - (budget.held or 0)
    after = None if left is None or amount is None else left - amount
    return QuotedBudget(budget=budget, bound=amount, left=left, left_after=after)


def refusal_of(errors: Sequence[RequestError]) -> Refusal | None:
    """The first of what speaks against the call."""
    if not errors:
        return None
    return Refusal(status=errors[0].status, code=errors[0].code, message=errors[0].message)
