"""How one record adds up: the counter fields that Redis, the SQL roll-up and every API share (DESIGN §5).

All sinks add through `add`, so that the same records give the same totals everywhere.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence

import msgspec

from taximeter.core.bounds import MAX_SUM
from taximeter.core.record import Operation, Outcome, Record, Source


class Totals(msgspec.Struct, gc=False):
    """Sums over records. Integers only; money in nano-USD. Field names are the Redis hash fields."""

    requests: int = 0
    """First attempts of requests, refused ones included."""
    errors: int = 0
    """Attempts that did not end well: every outcome but ok and client_left."""
    unknown_requests: int = 0
    """Attempts that may have been billed but of whose usage nothing is known."""
    unpriced_requests: int = 0
    """Attempts with known usage and no price; one that got its price later no longer counts."""
    llm_requests: int = 0
    embedding_requests: int = 0
    rerank_requests: int = 0
    other_requests: int = 0
    llm_input_tokens: int = 0
    llm_cached_input_tokens: int = 0
    llm_cache_write_input_tokens: int = 0
    llm_output_tokens: int = 0
    llm_reasoning_output_tokens: int = 0
    embedding_tokens: int = 0
    rerank_tokens: int = 0
    search_units: int = 0
    total_tokens: int = 0
    """llm input + output, embedding, rerank."""
    counted_tokens: int = 0
    """How much of total_tokens was tokenized here because no figure was reported."""
    estimated_tokens: int = 0
    """How much of total_tokens is an estimate from bytes."""
    cost_nusd: int = 0


FIELDS: tuple[str, ...] = Totals.__struct_fields__

(
    REQUESTS, ERRORS, UNKNOWN, UNPRICED, LLM_REQUESTS, EMBEDDING_REQUESTS, RERANK_REQUESTS, OTHER_REQUESTS,
    LLM_INPUT, LLM_CACHED, LLM_CACHE_WRITE, LLM_OUTPUT, LLM_REASONING, EMBEDDING, RERANK, SEARCH_UNITS,
    TOTAL, COUNTED, ESTIMATED, COST,
) = range(len(FIELDS))  # fmt: skip

_REQUESTS_OF = {
    Operation.LLM: LLM_REQUESTS,
    Operation.EMBEDDING: EMBEDDING_REQUESTS,
    Operation.RERANK: RERANK_REQUESTS,
    Operation.OTHER: OTHER_REQUESTS,
}
FINE = (Outcome.OK, Outcome.CLIENT_LEFT)
"""Outcomes that are no error."""
_UNTOLD = (Source.NONE, Source.DEFERRED)
_NEVER_BILLED = (Outcome.REFUSED, Outcome.UPSTREAM_ERROR, Outcome.UPSTREAM_UNREACHABLE)


def add(cell: MutableSequence[int], record: Record) -> None:
    """Add a record to a cell: a list of len(FIELDS) integers in the order of FIELDS."""
    if record.cost_nusd is not None:
        cell[COST] += record.cost_nusd
    if record.kind != "usage":  # a correction changes cost only, and whether there is one
        if record.kind == "correction" and record.input_source is not Source.NONE:
            cell[UNPRICED] -= 1
        return
    operation = record.operation
    if record.attempt == 1:
        cell[REQUESTS] += 1
        cell[_REQUESTS_OF[operation]] += 1
    outcome = record.outcome
    if outcome not in FINE:
        cell[ERRORS] += 1
    if record.search_units is not None:
        cell[SEARCH_UNITS] += record.search_units
    if operation is Operation.OTHER:
        if record.cost_nusd is None and (record.input_source not in _UNTOLD or record.measured):
            cell[UNPRICED] += 1
        return
    tokens_in, tokens_out = record.input_tokens, record.output_tokens
    if tokens_in is None and tokens_out is None and record.search_units is None and record.seconds is None:
        if outcome not in _NEVER_BILLED and record.input_source is not Source.DEFERRED:
            cell[UNKNOWN] += 1
        return
    if record.cost_nusd is None:
        cell[UNPRICED] += 1
    counted_in, counted_out = tokens_in or 0, tokens_out or 0
    if operation is Operation.LLM:
        cell[LLM_INPUT] += counted_in
        cell[LLM_OUTPUT] += counted_out
        cell[LLM_CACHED] += record.cached_input_tokens or 0
        cell[LLM_CACHE_WRITE] += record.cache_write_input_tokens or 0
        cell[LLM_REASONING] += record.reasoning_output_tokens or 0
        cell[TOTAL] += counted_in + counted_out
    else:
        cell[EMBEDDING if operation is Operation.EMBEDDING else RERANK] += counted_in
        counted_out = 0
        cell[TOTAL] += counted_in
    if record.input_source is not Source.REPORTED and counted_in:
        cell[COUNTED if record.input_source is Source.COUNTED else ESTIMATED] += counted_in
    if record.output_source is not Source.REPORTED and counted_out:
        cell[COUNTED if record.output_source is Source.COUNTED else ESTIMATED] += counted_out


def saturated(cell: Sequence[int]) -> Sequence[int]:
    """The cell, each sum within MAX_SUM of 0; itself where all are, as always but for hostile figures."""
    if max(cell) <= MAX_SUM and min(cell) >= -MAX_SUM:
        return cell
    return [max(-MAX_SUM, min(MAX_SUM, figure)) for figure in cell]


def empty() -> list[int]:
    """A new cell of zeros."""
    return [0] * len(FIELDS)
