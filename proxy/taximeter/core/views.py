"""How sums are shown: the JSON objects every API, the command line and the billing webhook share (DESIGN §7).

Pure shaping of Totals; field names are the contract. Money leaves as an exact decimal number of USD.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Protocol

import msgspec
from msgspec.structs import astuple

from taximeter.core.totals import FIELDS, Totals

NUSD_PER_USD = 1_000_000_000


class Details(Protocol):
    """The sums beside Totals that `metrics` shows."""

    @property
    def attempts(self) -> int: ...
    @property
    def audio_input_tokens(self) -> int: ...
    @property
    def audio_output_tokens(self) -> int: ...
    @property
    def accepted_prediction_tokens(self) -> int: ...
    @property
    def rejected_prediction_tokens(self) -> int: ...


class LLMUsageInfo(msgspec.Struct, kw_only=True, gc=False):
    requests: int
    input_tokens: int
    """Cached tokens included."""
    cached_input_tokens: int
    output_tokens: int
    """Reasoning included."""
    reasoning_output_tokens: int


class EmbeddingUsageInfo(msgspec.Struct, kw_only=True, gc=False):
    requests: int
    input_tokens: int


class RerankUsageInfo(msgspec.Struct, kw_only=True, gc=False):
    requests: int
    search_units: int
    input_tokens: int


class UsageInfo(msgspec.Struct, kw_only=True, gc=False):
    """Usage of some set of calls; LLM, embedding and rerank apart. Unknown usage adds nothing to token counts."""

    requests: int
    errors: int
    unknown_requests: int
    """Calls that may have been billed but of whose usage nothing is known."""
    total_tokens: int
    counted_tokens: int
    """How much of the total was tokenized here because the provider reported nothing."""
    estimated_tokens: int
    """How much of the total is an estimate from bytes."""
    llm: LLMUsageInfo
    embedding: EmbeddingUsageInfo
    rerank: RerankUsageInfo


class TokenUsage(msgspec.Struct, kw_only=True):
    """One track's or document's tokens; models null and tokens 0 where nothing was used or nothing is known."""

    llm_model: str | None = None
    llm_input_tokens: int = 0
    llm_output_tokens: int = 0
    embedding_model: str | None = None
    embedding_tokens: int = 0


class Metrics(msgspec.Struct, kw_only=True):
    """LLM tokens as TokenTracker and Langfuse name them; the last five fields are derived from the others."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int
    input_cached_tokens: int
    input_audio_tokens: int
    output_reasoning_tokens: int
    output_audio_tokens: int
    output_accepted_prediction_tokens: int
    output_rejected_prediction_tokens: int
    call_count: int
    """Calls that ended well, or that the client left; failed and refused ones are `usage.errors`."""
    model: str | None
    input_usage: int
    input: int
    """prompt_tokens - cached_tokens"""
    output_usage: int
    output: int
    """completion_tokens - output_reasoning_tokens"""
    total_usage: int


class ModelSums(msgspec.Struct, frozen=True):
    """What one model did for one operation: the parts `token_usage` and `main_model` choose from."""

    operation: str
    model: str
    totals: Totals


def usd(nusd: int) -> Decimal:
    """Integer nano-USD as exact USD, without trailing zeros: 113000 -> 0.000113, 2000000000 -> 2."""
    whole, rest = divmod(abs(nusd), NUSD_PER_USD)
    fraction = f"{rest:09d}".rstrip("0")
    return Decimal(f"{'-' if nusd < 0 else ''}{whole}{'.' if fraction else ''}{fraction}")


def cost_usd(totals: Totals) -> Decimal | None:
    """The cost of what was priced; None where there were calls to price and none of them has a price."""
    if totals.cost_nusd == 0 and (totals.unpriced_requests or totals.unknown_requests):
        return None
    return usd(totals.cost_nusd)


def usage(totals: Totals) -> UsageInfo:
    """Totals as the `usage` object of every answer."""
    return UsageInfo(
        requests=totals.requests,
        errors=totals.errors,
        unknown_requests=totals.unknown_requests,
        total_tokens=totals.total_tokens,
        counted_tokens=totals.counted_tokens,
        estimated_tokens=totals.estimated_tokens,
        llm=LLMUsageInfo(
            requests=totals.llm_requests,
            input_tokens=totals.llm_input_tokens,
            cached_input_tokens=totals.llm_cached_input_tokens,
            output_tokens=totals.llm_output_tokens,
            reasoning_output_tokens=totals.llm_reasoning_output_tokens,
        ),
        embedding=EmbeddingUsageInfo(requests=totals.embedding_requests, input_tokens=totals.embedding_tokens),
        rerank=RerankUsageInfo(
            requests=totals.rerank_requests, search_units=totals.search_units, input_tokens=totals.rerank_tokens
        ),
    )


def token_usage(parts: Iterable[ModelSums]) -> TokenUsage:
    """The five fields of a track or document. Several models: the one that used most tokens is named."""
    parts = list(parts)
    return TokenUsage(
        llm_model=main_model(parts, "llm"),
        llm_input_tokens=sum(part.totals.llm_input_tokens for part in parts),
        llm_output_tokens=sum(part.totals.llm_output_tokens for part in parts),
        embedding_model=main_model(parts, "embedding"),
        embedding_tokens=sum(part.totals.embedding_tokens for part in parts),
    )


def main_model(parts: Iterable[ModelSums], operation: str) -> str | None:
    """The model of an operation that used most tokens (of equals the first by name); None where none used any."""
    tokens: dict[str, int] = {}
    for part in parts:
        if part.operation == operation:
            tokens[part.model] = tokens.get(part.model, 0) + part.totals.total_tokens
    used = [(-count, model) for model, count in tokens.items() if count > 0]
    return min(used)[1] if used else None


def metrics(totals: Totals, details: Details, model: str | None) -> Metrics:
    """LLM sums in TokenTracker's and Langfuse's words. `totals` and `details` must be those of LLM calls alone."""
    prompt, completion = totals.llm_input_tokens, totals.llm_output_tokens
    cached, reasoning = totals.llm_cached_input_tokens, totals.llm_reasoning_output_tokens
    return Metrics(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        cached_tokens=cached,
        input_cached_tokens=cached,
        input_audio_tokens=details.audio_input_tokens,
        output_reasoning_tokens=reasoning,
        output_audio_tokens=details.audio_output_tokens,
        output_accepted_prediction_tokens=details.accepted_prediction_tokens,
        output_rejected_prediction_tokens=details.rejected_prediction_tokens,
        call_count=max(0, details.attempts - totals.errors),
        model=model,
        input_usage=prompt,
        input=prompt - cached,
        output_usage=completion,
        output=completion - reasoning,
        total_usage=prompt + completion,
    )


def langfuse(shown: Metrics) -> str:
    """Metrics as Langfuse lists them: a name and its figure on alternating lines."""
    rows = (
        ("Input usage", shown.input_usage),
        ("input_cached_tokens", shown.input_cached_tokens),
        ("input", shown.input),
        ("input_audio_tokens", shown.input_audio_tokens),
        ("Output usage", shown.output_usage),
        ("output_reasoning_tokens", shown.output_reasoning_tokens),
        ("output", shown.output),
        ("output_accepted_prediction_tokens", shown.output_accepted_prediction_tokens),
        ("output_audio_tokens", shown.output_audio_tokens),
        ("output_rejected_prediction_tokens", shown.output_rejected_prediction_tokens),
        ("Total usage", shown.total_usage),
    )
    return "".join(f"{name}\n{value}\n" for name, value in rows)


def summed(parts: Iterable[Totals]) -> Totals:
    """Several totals as one: the sum of the parts, by construction."""
    return Totals(*map(sum, zip(*map(astuple, parts), strict=True)))


def less(whole: Totals, parts: Iterable[Totals]) -> Totals:
    """What is left of a sum without some of its parts."""
    taken = summed(parts)
    return Totals(**{name: getattr(whole, name) - getattr(taken, name) for name in FIELDS})
