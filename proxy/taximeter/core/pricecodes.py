"""What an operator charges for a track by price codes of his own: four codes, each with a price and a unit. Pure.

These are the operator's prices to his customers, not the provider's to him: those are core/prices.py. The codes and
units are those of the billing backend (`rag_embedding` …), as in taximeter_rag's `calculate_indexation_cost`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

import msgspec
from msgspec import UNSET, UnsetType

from taximeter.core.views import NUSD_PER_USD, TokenUsage, usd

UNITS = {"rag_embedding": 1_000, "rag_llm_input": 1_000, "rag_llm_output": 1_000, "rag_indexation": 1}
"""Of how many a price is: tokens, and of rag_indexation chunks."""

MOST_USD = 1_000_000
"""The highest price of a unit: beyond it somebody meant another unit."""


class CodeCost(msgspec.Struct, kw_only=True, frozen=True):
    """One code's line of the bill."""

    quantity: int | None
    """Tokens, or chunks; null: not known."""
    unit: int
    """The price is for so many."""
    price_usd: Decimal | None
    """Null: the settings name none."""
    cost_usd: Decimal | None
    """Rounded to the nano-dollar; null where quantity or price is."""


class PriceCodesBill(msgspec.Struct, kw_only=True, frozen=True):
    """A track at the prices of `[price_codes]`."""

    rag_embedding: CodeCost
    rag_llm_input: CodeCost
    rag_llm_output: CodeCost
    rag_indexation: CodeCost
    """Its quantity is what was asked with, `chunks=`: only who cut the document knows it."""
    left_out: list[str]
    """Codes whose cost is not in the sum though they were used or have a price: no price, or no quantity."""
    estimated_cost_usd: Decimal | UnsetType = UNSET
    """Sum of the costs that are known; left out where none is."""


def price(written: str | float) -> Decimal | None:
    """A price as the settings give it, None where there is none. Raises ValueError on what is no price."""
    if written == "":
        return None
    try:
        amount = Decimal(str(written))
    except InvalidOperation:
        amount = Decimal("nan")
    if not (amount.is_finite() and 0 <= amount <= MOST_USD and amount * NUSD_PER_USD % 1 == 0):
        raise ValueError(f"it must be an amount of USD, 0 to {MOST_USD:,}, with at most 9 decimals")
    return amount


def bill(used: TokenUsage, chunks: int | None, prices: Mapping[str, Decimal | None]) -> PriceCodesBill:
    """The bill for these tokens and chunks (None: not known) at prices in USD for each code's unit (None: no price)."""
    quantities = {
        "rag_embedding": used.embedding_tokens,
        "rag_llm_input": used.llm_input_tokens,
        "rag_llm_output": used.llm_output_tokens,
        "rag_indexation": chunks,
    }
    lines = {code: _line(quantity, UNITS[code], prices.get(code)) for code, quantity in quantities.items()}
    costs = [line.cost_usd for line in lines.values() if line.cost_usd is not None]
    return PriceCodesBill(
        **lines,
        left_out=[code for code, line in lines.items() if _left_out(line)],
        estimated_cost_usd=_exact(sum(costs, Decimal(0))) if costs else UNSET,
    )


def _line(quantity: int | None, unit: int, price: Decimal | None) -> CodeCost:
    return CodeCost(
        quantity=quantity,
        unit=unit,
        price_usd=None if price is None else _exact(price),
        cost_usd=None if price is None or quantity is None else _exact(price * quantity / unit),
    )


def _left_out(line: CodeCost) -> bool:
    return line.cost_usd is None and bool(line.quantity or line.price_usd)


def _exact(amount: Decimal) -> Decimal:
    """USD rounded to the nano-dollar, as every answer writes it."""
    return usd(int((amount * NUSD_PER_USD).to_integral_value(ROUND_HALF_EVEN)))
