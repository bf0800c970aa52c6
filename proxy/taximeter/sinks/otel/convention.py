"""A record in the words of OpenTelemetry's semantic conventions for generative AI. Pure; knows no SDK.

https://opentelemetry.io/docs/specs/semconv/gen-ai/ (gen-ai-spans, gen-ai-metrics), status: development. What it has
no word for is under `taximeter.`.
"""

from __future__ import annotations

from hashlib import blake2b

from taximeter.core.record import Outcome, Record

Value = str | int | float | bool

TOKENS = tuple(4**power for power in range(14))
"""Advised buckets of gen_ai.client.token.usage: 1, 4, 16 … 4^13."""
SECONDS = tuple(0.01 * 2**power for power in range(14))
"""Advised buckets of gen_ai.client.operation.duration: 0.01 … 81.92 s."""
FIRST_CHUNK_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Advised buckets of gen_ai.client.operation.time_to_first_chunk."""

_OPERATIONS = {
    "chat": "chat",
    "responses": "chat",
    "messages": "chat",
    "generate": "generate_content",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
_PROVIDERS = {
    "mistral": "mistral_ai",
    "xai": "x_ai",
    "x-ai": "x_ai",
    "google": "gcp.gemini",
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "google-vertex": "gcp.vertex_ai",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "aws": "aws.bedrock",
}
"""Our provider names -> the convention's well-known ones; any other is sent as it is."""


def operation(record: Record) -> str:
    """gen_ai.operation.name; `rerank` and what the convention has no name for go by our own."""
    return _OPERATIONS.get(record.api, record.api)


def error_type(record: Record) -> str | None:
    """error.type: the HTTP status where the provider answered with one, else how the call ended; None: it went well."""
    if record.outcome in (Outcome.OK, Outcome.CLIENT_LEFT):
        return None
    if record.outcome is Outcome.UPSTREAM_ERROR and record.status is not None:
        return str(record.status)
    return record.outcome.value


def of_metrics(record: Record, *, known: bool = True) -> dict[str, Value]:
    """Attributes of every measurement. `known`: its model names may be used as labels; else they are `other`."""
    found: dict[str, Value | None] = {
        "gen_ai.operation.name": operation(record),
        "gen_ai.provider.name": _PROVIDERS.get(record.provider, record.provider),
        "gen_ai.request.model": record.request_model if known else "other",
        "gen_ai.response.model": record.response_model if known else "other",
        "error.type": error_type(record),
    }
    return _told(found)


def of_span(record: Record) -> dict[str, Value]:
    """Attributes of the call's span; what is not known is left out, never 0."""
    found: dict[str, Value | None] = {
        **of_metrics(record),
        "gen_ai.request.stream": record.stream or None,
        "gen_ai.response.id": record.upstream_request_id,
        "gen_ai.usage.input_tokens": record.input_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_input_tokens,
        "gen_ai.usage.cache_creation.input_tokens": record.cache_write_input_tokens,
        "gen_ai.usage.reasoning.output_tokens": record.reasoning_output_tokens,
        "gen_ai.response.time_to_first_chunk": None if record.ttft_ms is None else record.ttft_ms / 1_000,
        "http.response.status_code": record.status,
        "taximeter.request_id": record.request_id,
        "taximeter.attempt": record.attempt,
        "taximeter.workspace": record.workspace,
        "taximeter.track": record.track,
        "taximeter.document": record.document,
        "taximeter.task": record.task,
        "taximeter.key_id": record.key_id,
        "taximeter.end_user": record.end_user,
        "taximeter.upstream": record.upstream,
        "taximeter.outcome": record.outcome.value,
        "taximeter.input_source": record.input_source.value,
        "taximeter.output_source": record.output_source.value,
        "taximeter.cost_nusd": record.cost_nusd,
        "taximeter.search_units": record.search_units,
    }
    return _told(found)


def ids(record: Record) -> tuple[int, int]:
    """(trace id, span id) of a call: attempts of a request share the trace, and a call sent twice is the same span."""
    trace = blake2b(record.request_id.encode(), digest_size=16, person=b"trace").digest()
    span = blake2b(f"{record.request_id}#{record.attempt}".encode(), digest_size=8, person=b"span").digest()
    return int.from_bytes(trace) or 1, int.from_bytes(span) or 1


def _told(found: dict[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in found.items() if value is not None}
