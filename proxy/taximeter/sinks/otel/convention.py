"""A record in the words of OpenTelemetry's semantic conventions for generative AI. Pure; knows no SDK.

Two versions of them, both of status "development":
`EARLIER`: v1.41.0 of open-telemetry/semantic-conventions (docs/gen-ai), the last one there.
`LATEST`: v0.1.0 of open-telemetry/semantic-conventions-genai (docs/gen-ai: client-inference, client-embeddings,
gen-ai-token-metrics, gen-ai-metrics), where they went on in 2026.
What they have no word for is under `taximeter.`.
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import blake2b

from taximeter.core.modalities import modalities
from taximeter.core.record import Outcome, Record

Value = str | int | float | bool

EARLIER, LATEST = "semantic-conventions 1.41.0", "semantic-conventions-genai 0.1.0"
OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"
"""The environment variable with which users of any instrumentation say which version they want: words with commas, of
several fields; words of other fields are not ours."""
_NEW, _BOTH = "gen_ai_latest_experimental", "gen_ai_latest_experimental/dup"

TOKENS = tuple(4**power for power in range(14))
"""Advised buckets of all histograms of tokens: 1, 4, 16 … 4^13."""
SECONDS = tuple(0.01 * 2**power for power in range(14))
"""Advised buckets of durations: 0.01 … 81.92 s."""
FIRST_CHUNK_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Advised buckets of times to the first chunk."""

_OPERATIONS = {
    "chat": "chat",
    "responses": "chat",
    "messages": "chat",
    "realtime": "chat",
    "generate": "generate_content",
    "live": "generate_content",
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


def wanted(opt_in: str) -> frozenset[str]:
    """Which versions OTEL_SEMCONV_STABILITY_OPT_IN asks for. As the conventions say: the earlier one as long as nobody
    asks; `gen_ai_latest_experimental` the latest alone; with `/dup`, as other fields have it, both."""
    words = {word.strip() for word in opt_in.split(",")}
    if _BOTH in words:
        return frozenset((EARLIER, LATEST))
    return frozenset((LATEST if _NEW in words else EARLIER,))


def unread(opt_in: str) -> list[str]:
    """Words of it that are about generative AI and ask for nothing, such as `gen_ai/dup`."""
    words = (word.strip() for word in opt_in.split(","))
    return [word for word in words if word.startswith("gen_ai") and word not in (_NEW, _BOTH)]


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


def of_span(record: Record, versions: Collection[str]) -> dict[str, Value]:
    """Attributes of the call's span, in these versions; what is not known is left out, never 0."""
    found: dict[str, Value | None] = {
        **of_metrics(record),
        **(_earlier(record) if EARLIER in versions else {}),
        **(_latest(record) if LATEST in versions else {}),
        "gen_ai.request.stream": record.stream or None,
        "gen_ai.response.id": record.upstream_request_id,
        "gen_ai.usage.input_tokens": record.input_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_input_tokens,
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


def _earlier(record: Record) -> dict[str, Value | None]:
    return {"gen_ai.usage.cache_creation.input_tokens": record.cache_write_input_tokens}


def _latest(record: Record) -> dict[str, Value | None]:
    """Names that v0.1.0 changed or added. The tokens of a modality are those the provider told, none by inference."""
    more = modalities(record.usage)
    return {
        "gen_ai.usage.cache_write.input_tokens": record.cache_write_input_tokens,
        "gen_ai.usage.audio.input_tokens": record.audio_input_tokens,
        "gen_ai.usage.audio.cache_read.input_tokens": more.cached_audio_tokens,
        "gen_ai.usage.audio.output_tokens": record.audio_output_tokens,
        "gen_ai.usage.image.input_tokens": record.image_input_tokens,
        "gen_ai.usage.image.cache_read.input_tokens": more.cached_image_tokens,
        "gen_ai.usage.image.output_tokens": more.image_output_tokens,
        "openai.response.service_tier": record.service_tier if record.provider == "openai" else None,
    }


UNKNOWN = "unknown"
"""gen_ai.token.modality of tokens whose provider does not say what they stand for."""


def by_modality(whole: int, **parts: int | None) -> dict[str, int]:
    """A number of tokens by gen_ai.token.modality; together they are `whole`, always.

    What no part names is `unknown`, not `text`: it may be images that a provider counts without telling them apart.
    Parts that are more than the whole contradict it: then all of it is unknown.
    """
    told = {name: tokens for name, tokens in parts.items() if tokens}
    rest = whole - sum(told.values())
    if rest < 0:
        return {UNKNOWN: whole}
    return {**told, UNKNOWN: rest} if rest or not told else told


def usage_counters(record: Record) -> dict[str, dict[str, int]]:
    """The usage counters of v0.1.0 that a call moves, each by modality: those whose figure is known."""
    more = modalities(record.usage)
    figures: dict[str, tuple[int | None, dict[str, int | None]]] = {
        "input_tokens": (
            record.input_tokens,
            {
                "audio": record.audio_input_tokens,
                "image": record.image_input_tokens,
                "video": more.video_input_tokens,
            },
        ),
        "output_tokens": (
            record.output_tokens,
            {
                "audio": record.audio_output_tokens,
                "image": more.image_output_tokens,
                "video": more.video_output_tokens,
            },
        ),
        "cache_read.input_tokens": (
            record.cached_input_tokens,
            {"audio": more.cached_audio_tokens, "image": more.cached_image_tokens},
        ),
        "cache_write.input_tokens": (record.cache_write_input_tokens, {}),
        "reasoning.output_tokens": (record.reasoning_output_tokens, {}),
    }
    return {name: by_modality(whole, **parts) for name, (whole, parts) in figures.items() if whole is not None}


def ids(record: Record) -> tuple[int, int]:
    """(trace id, span id) of a call: attempts of a request share the trace, and a call sent twice is the same span."""
    trace = blake2b(record.request_id.encode(), digest_size=16, person=b"trace").digest()
    span = blake2b(f"{record.request_id}#{record.attempt}".encode(), digest_size=8, person=b"span").digest()
    return int.from_bytes(trace) or 1, int.from_bytes(span) or 1


def _told(found: dict[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in found.items() if value is not None}
