"""Pages of OpenAI's organization API: usage and costs in buckets of time. Pure.

Source: https://platform.openai.com/docs/api-reference/usage (OpenAPI 2.3.0). Cost line items are a model and what was
billed of it, `gpt-4o-mini-2024-07-18, cached input`; Taximeter's own API answers in the same shape, by model.
"""

from __future__ import annotations

from collections.abc import Container
from decimal import Decimal

import msgspec

from taximeter.reconcile.rule import PullFailed

OPERATIONS = {"completions": "llm", "embeddings": "embedding"}
"""Usage that is compared -> our operation."""


class Amount(msgspec.Struct):
    """`value` null and missing: not told."""

    value: Decimal | None = None
    currency: str = "usd"


class Result(msgspec.Struct):
    """A line of a bucket; null and missing: not told."""

    object: str = ""
    model: str | None = None
    project_id: str | None = None
    api_key_id: str | None = None
    line_item: str | None = None
    input_tokens: int | None = None
    input_cached_tokens: int | None = None
    input_cache_write_tokens: int | None = None
    output_tokens: int | None = None
    num_model_requests: int | None = None
    amount: Amount | None = None


class Bucket(msgspec.Struct):
    start_time: int
    end_time: int
    results: list[Result]


class Page(msgspec.Struct):
    data: list[Bucket]
    has_more: bool = False
    next_page: str | None = None


decode = msgspec.json.Decoder(Page).decode


def kind_of(result: Result) -> str:
    """completions, embeddings, costs …"""
    return result.object.removeprefix("organization.").removeprefix("usage.").removesuffix(".result")


def model_of(line_item: str, models: Container[str]) -> str:
    """The model that a line of costs is about, or what it is where that is none. `models`: those that usage names.

    `gpt-4o-2024-08-06, batch, input` is one of that model where usage names it; else all but the last part is its name.
    """
    name = line_item
    while name and name not in models:
        name = name.rpartition(", ")[0]
    return name or line_item.rpartition(", ")[0] or line_item


def figures_of(result: Result) -> dict[str, int | None]:
    """By the names of rule.Figures. Raises PullFailed on an amount that is not in USD."""
    amount = result.amount
    return {
        "input_tokens": result.input_tokens,
        "cached_input_tokens": result.input_cached_tokens,
        "cache_write_input_tokens": result.input_cache_write_tokens,
        "output_tokens": result.output_tokens,
        "requests": result.num_model_requests,
        "cost_nusd": None if amount is None or amount.value is None else nusd(amount.value, amount.currency),
    }


def nusd(amount: Decimal, currency: str, per: int = 10**9) -> int:
    """Nano-USD of an amount of which one is so many. Raises PullFailed on another currency, or no number."""
    if currency.lower() != "usd":
        raise PullFailed(f"an amount is in {currency[:8]!r}, and only USD can be compared")
    if not amount.is_finite() or abs(amount) > 10**12:
        raise PullFailed(f"an amount is {amount}, which cannot be")
    return int((amount * per).to_integral_value())
