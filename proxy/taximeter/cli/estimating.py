"""What it takes to bring documents into a RAG server as LightRAG does: chunks, calls, tokens, cost. Pure.

An estimate: how many tokens the texts have is counted, what a model makes of them is not known before. So each figure
is three (low, expected, high), and says what it rests on.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from taximeter.core.views import usd

FEWEST_DOCUMENTS = 5
"""So many documents of an installation's own make a history."""
PROMPT_TOKENS = 1_650
"""What stands around a chunk: LightRAG 1.5.7's prompts and examples are 1,635 tokens (o200k_base)."""
AGAIN_TOKENS = 405
"""And around the second call of a chunk (gleaning), which also holds the first one's answer."""
ANSWER_TOKENS = (250, 700, 1_500)
"""Of one extraction call: low, expected, high."""
EMBEDDED = (1.2, 2.0, 3.0)
"""Times the chunks' own tokens: names and descriptions of entities and relations are embedded too."""

Basis = Literal["history", "assumptions"]


class Span(msgspec.Struct, frozen=True):
    """Low, expected, high."""

    low: int
    expected: int
    high: int

    def __mul__(self, times: int) -> Span:
        return Span(self.low * times, self.expected * times, self.high * times)

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.expected + other.expected, self.high + other.high)


class Document(msgspec.Struct, frozen=True):
    """A file, counted."""

    name: str
    tokens: int
    """By the LLM's tokenizer, which chunks are cut by."""
    embedding_tokens: int
    """The same text by the embedding model's."""


class Past(msgspec.Struct, frozen=True):
    """What a document of this installation took before."""

    calls: int
    input_tokens: int
    output_tokens: int
    embedding_tokens: int


class Estimate(msgspec.Struct, kw_only=True):
    """What a folder would take."""

    documents: int
    skipped: dict[str, str]
    """File -> why it is not in the figures."""
    tokens: int
    """Of all texts."""
    chunks: int
    llm_model: str
    llm_calls: int
    llm_input_tokens: Span
    llm_output_tokens: Span
    llm_cost_usd: tuple[Decimal, Decimal, Decimal] | None
    """null: no price is known."""
    embedding_model: str
    embedding_tokens: Span
    embedding_cost_usd: tuple[Decimal, Decimal, Decimal] | None
    cost_usd: tuple[Decimal, Decimal, Decimal] | None
    """Of both; null where one of them is."""
    basis: Basis
    rests_on: list[str]
    """In words."""


class Cut(msgspec.Struct, frozen=True):
    """How texts are cut, and how often the model is asked about a piece."""

    chunk_tokens: int = 1_200
    overlap_tokens: int = 100
    calls_a_chunk: int = 2


def chunks_of(tokens: int, cut: Cut) -> list[int]:
    """The lengths of a text's chunks: a window of `chunk_tokens` moves on by that less the overlap."""
    if tokens <= cut.chunk_tokens:
        return [tokens] if tokens else []
    step = cut.chunk_tokens - cut.overlap_tokens
    return [min(cut.chunk_tokens, tokens - start) for start in range(0, tokens, step)]


def a_call(cut: Cut, chunk_tokens: int, past: Sequence[Past]) -> tuple[Span, Span]:
    """Input and output tokens of one call about a chunk of an average length, of all calls about it the average."""
    if len(past) >= FEWEST_DOCUMENTS:
        return (
            _spread([each.input_tokens / each.calls for each in past]),
            _spread([each.output_tokens / each.calls for each in past]),
        )
    answer = Span(*ANSWER_TOKENS)
    once = PROMPT_TOKENS + chunk_tokens
    again = [once + AGAIN_TOKENS + each for each in ANSWER_TOKENS]
    more = cut.calls_a_chunk - 1
    return Span(*((once + more * each) // cut.calls_a_chunk for each in again)), answer


def embedded(own: int, llm_input: Span, past: Sequence[Past]) -> Span:
    """Tokens embedded for chunks of `own` tokens: never fewer than these."""
    known = [each.embedding_tokens / each.input_tokens for each in past if each.input_tokens and each.embedding_tokens]
    if len(known) < FEWEST_DOCUMENTS:
        return Span(*(int(own * times) for times in EMBEDDED))
    parts = [_at(sorted(known), part) for part in (10, 50, 90)]
    found = [part * tokens for part, tokens in zip(parts, msgspec.structs.astuple(llm_input), strict=True)]
    return Span(*(max(own, int(tokens)) for tokens in found))


def _spread(values: Sequence[float]) -> Span:
    """What a tenth, half and nine tenths of documents do not exceed."""
    ordered = sorted(values)
    return Span(*(round(_at(ordered, part)) for part in (10, 50, 90)))


def _at(ordered: Sequence[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def dollars(nusd: Span) -> tuple[Decimal, Decimal, Decimal]:
    """nano-USD as shown."""
    return usd(nusd.low), usd(nusd.expected), usd(nusd.high)
