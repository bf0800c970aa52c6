"""The figures as users see them: empty ones, the lines of a log, and the price of an indexation. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

TOKEN_USAGE: dict[str, Any] = {
    "llm_model": None,
    "llm_input_tokens": 0,
    "llm_output_tokens": 0,
    "embedding_model": None,
    "embedding_tokens": 0,
}
"""`token_usage` of work that called no model."""

COUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "input_cached_tokens",
    "input_audio_tokens",
    "output_reasoning_tokens",
    "output_audio_tokens",
    "output_accepted_prediction_tokens",
    "output_rejected_prediction_tokens",
    "call_count",
)
"""The sums in `metrics`; its other fields are derived from these."""

PRICES = {"rag_embedding": "0.0001", "rag_llm_input": "0.0015", "rag_llm_output": "0.002", "rag_indexation": "0.001"}
"""An operator's price list to start from: USD for 1,000 tokens, `rag_indexation` for a chunk."""

_BILLED = (
    ("embedding_tokens", "rag_embedding", 1000),
    ("llm_input_tokens", "rag_llm_input", 1000),
    ("llm_output_tokens", "rag_llm_output", 1000),
    ("total_chunks", "rag_indexation", 1),
)
_LANGFUSE = (
    ("Input usage", "input_usage"),
    ("input_cached_tokens", "input_cached_tokens"),
    ("input", "input"),
    ("input_audio_tokens", "input_audio_tokens"),
    ("Output usage", "output_usage"),
    ("output_reasoning_tokens", "output_reasoning_tokens"),
    ("output", "output"),
    ("output_accepted_prediction_tokens", "output_accepted_prediction_tokens"),
    ("output_audio_tokens", "output_audio_tokens"),
    ("output_rejected_prediction_tokens", "output_rejected_prediction_tokens"),
    ("Total usage", "total_usage"),
)


def calculate_indexation_cost(token_usage: Mapping[str, Any], pricing: Mapping[str, float | str] = PRICES) -> float:
    """What an operator charges for one document, in USD: its `token_usage` times the price list."""
    cost = Decimal(0)
    for field, code, per in _BILLED:
        cost += Decimal(token_usage.get(field) or 0) * Decimal(str(pricing.get(code, PRICES[code]))) / per
    return float(cost)


def answer_only(token_usage: Mapping[str, Any]) -> dict[str, Any]:
    """`token_usage` of a query that was to bring context only: the answer it did not generate costs nothing."""
    return {**token_usage, "llm_model": None, "llm_input_tokens": 0, "llm_output_tokens": 0}


_OF_KIND = {
    "llm": ("llm_model", "llm_input_tokens", "llm_output_tokens"),
    "embedding": ("embedding_model", "embedding_tokens"),
}
"""The fields of `token_usage` for each kind of model."""


def unknown() -> dict[str, Any]:
    """`token_usage` of which nothing is known."""
    return dict.fromkeys(TOKEN_USAGE)


def without(token_usage: Mapping[str, Any], kinds: Collection[str]) -> dict[str, Any]:
    """`token_usage`, null for the kinds of model whose calls were not metered."""
    return {**token_usage, **{name: None for kind in kinds for name in _OF_KIND.get(kind, ())}}


def usage(track: Mapping[str, Any], unmetered: Collection[str] = ()) -> dict[str, Any]:
    """A track's, or document's, `usage`, with `estimated_cost_usd` where there is a price.

    With calls that were not metered, their kind of model is null and so are all sums over it.
    """
    priced = {} if track["estimated_cost_usd"] is None else {"estimated_cost_usd": track["estimated_cost_usd"]}
    unsure = {} if track.get("complete", True) else {"complete": False}
    told = {**track["usage"], **priced, **unsure}
    if unmetered:
        sums = ("requests", "total_tokens", "estimated_cost_usd", *unmetered)
        told.update({**dict.fromkeys(sums), "complete": False})
    return told


def langfuse(metrics: Mapping[str, Any]) -> str:
    """Metrics as Langfuse lists them: a name and its figure on alternating lines."""
    return "\n".join(f"{name}\n{metrics[field]}" for name, field in _LANGFUSE)
