"""The most a call may use, from its request alone: what a hard budget reserves before it is sent (DESIGN §10). Pure.

An upper bound, not a guess: what is not said in the request is taken as the settings' bound, and prices at their
highest. Hidden reasoning beyond a stated bound is the provider's; then the record says more than was reserved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from taximeter.core.record import Open, Operation, Outcome, Record, Source

if TYPE_CHECKING:
    from taximeter.gateway.call import Prices

INPUT_MARGIN_PERCENT = 5
"""Chat templates and the tokenizer's version add a little to what is counted."""
OVERHEAD_TOKENS = 16

_Number = int | float | None


class _Generation(msgspec.Struct, rename="camel"):
    max_output_tokens: _Number = None
    candidate_count: _Number = None


class _Options(msgspec.Struct):
    num_predict: _Number = None


class _Inference(msgspec.Struct, rename="camel"):
    max_tokens: _Number = None


class _Asked(msgspec.Struct):
    """Where the APIs say how long an answer may be, and how many there are to be."""

    max_completion_tokens: _Number = None
    max_tokens: _Number = None
    max_output_tokens: _Number = None
    max_tokens_to_sample: _Number = None
    n: _Number = None
    best_of: _Number = None
    service_tier: str | None = None
    options: _Options | None = None
    generation_config: _Generation | None = msgspec.field(name="generationConfig", default=None)
    inference_config: _Inference | None = msgspec.field(name="inferenceConfig", default=None)


_decode = msgspec.json.Decoder(_Asked).decode
_NOTHING = _Asked()


class Bound(msgspec.Struct, frozen=True):
    """What a call uses at most."""

    input_tokens: int
    output_tokens: int
    service_tier: str | None = None

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


def bound(operation: Operation, counted_tokens: int, body: bytes, default_max_output_tokens: int) -> Bound:
    """The bound of a call. `counted_tokens`: of its prompt, as counted or estimated here."""
    tokens_in = counted_tokens + -(-counted_tokens * INPUT_MARGIN_PERCENT // 100) + OVERHEAD_TOKENS
    if operation is not Operation.LLM:
        return Bound(tokens_in if operation is not Operation.OTHER else 0, 0)
    try:
        asked = _decode(body)
    except (ValueError, RecursionError):
        asked = _NOTHING
    answers = max(1, _whole(asked.n) or 1, _whole(asked.best_of) or 1)
    generation = asked.generation_config
    if generation is not None:
        answers = max(answers, _whole(generation.candidate_count) or 1)
    named = [
        asked.max_completion_tokens,
        asked.max_tokens,
        asked.max_output_tokens,
        asked.max_tokens_to_sample,
        None if asked.options is None else asked.options.num_predict,
        None if generation is None else generation.max_output_tokens,
        None if asked.inference_config is None else asked.inference_config.max_tokens,
    ]
    # Two of them: which one the provider goes by is its own affair, so the higher.
    found = [tokens for value in named if (tokens := _whole(value)) is not None]
    longest = max(found) if found else default_max_output_tokens
    return Bound(tokens_in, longest * answers, asked.service_tier)


def _whole(value: _Number) -> int | None:
    """A count as sent; None where it is none (Ollama's -1: no bound)."""
    return int(value) if value is not None and 0 <= value <= 2**40 else None


def cost_nusd(prices: Prices, opening: Open, most: Bound) -> int | None:
    """The most the call may cost; None where its model has no price."""
    told: list[dict[str, int]] = [
        {},
        {"reasoning_output_tokens": most.output_tokens},
        {"cache_write_input_tokens": most.input_tokens, "cache_write_input_tokens_1h": most.input_tokens},
    ]
    costs = [prices.cost(_imagined(opening, most, parts))[0] for parts in told]
    known = [cost for cost in costs if cost is not None]
    return max(known) if known else None


def _imagined(opening: Open, most: Bound, parts: dict[str, int]) -> Record:
    record = Record(
        request_id=opening.request_id,
        started_at=opening.started_at,
        ended_at=opening.started_at,
        workspace=opening.workspace,
        upstream=opening.upstream,
        provider=opening.provider,
        api=opening.api,
        operation=opening.operation,
        request_model=opening.request_model,
        service_tier=None if most.service_tier in ("auto", "default") else most.service_tier,
        outcome=Outcome.OK,
        input_source=Source.ESTIMATED,
        output_source=Source.ESTIMATED,
        input_tokens=most.input_tokens,
        output_tokens=most.output_tokens,
        total_tokens=most.tokens,
        # A rerank is one search for each hundred documents (Cohere); more than one is rare.
        search_units=1 if opening.operation is Operation.RERANK else None,
    )
    for name, tokens in parts.items():
        setattr(record, name, tokens)
    return record
