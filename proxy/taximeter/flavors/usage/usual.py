"""The usual whole answer, read at once: OpenAI's own shape with nothing odd in it, as nearly all are. Pure.

The same as a meter's reading in a tenth of the time: one typed decode of the body, one of its usage object, and the
provider's equation holds. Whatever is not exactly as usual is None here, and a meter reads it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from taximeter.core.usage import MAX_COUNT, Reading

UNREADABLE = (ValueError, RecursionError)
"""What msgspec raises on bytes it cannot read: bad JSON, bad UTF-8 (both ValueError), nesting too deep."""
NAME_CHARS = 256
"""Longest model name, id or tier kept; real ones are below 100."""
USAGE_RAW_BYTES = 16 * 1024
"""Largest usage object kept as it came; real ones are below 2 KiB."""
COST_HEADER = b"x-litellm-response-cost"
"""What a call cost, in USD, as LiteLLM states it."""

SEARCHES = "-search-"
"""In the names of OpenAI's chat models that search the web before each answer, which is billed by the call and told
nowhere: `gpt-4o-search-preview`, `gpt-5-search-api` (https://platform.openai.com/docs/guides/tools-web-search)."""

REASONING_BESIDE: dict[str, tuple[str, ...]] = {
    # provider -> prefixes of the models whose reasoning is in neither `completion_tokens` nor `total_tokens`
    "vercel-gateway": ("google/",),  # its bill and the Gemini usage it quotes both count thoughts on top
    "vercel": ("google/",),
    "perplexity": ("",),  # reasoning_tokens are billed beside completion_tokens (docs.perplexity.ai, pricing)
}

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARS)]
"""A name or id in a typed decode; what is longer or empty is no usual one."""

_REQUEST_IDS = frozenset(
    (b"x-request-id", b"request-id", b"x-amzn-requestid", b"apim-request-id", b"x-taximeter-request-id")
)


class _InputDetails(msgspec.Struct, forbid_unknown_fields=True):
    cached_tokens: Count | None = None
    audio_tokens: Count | None = None


class _OutputDetails(msgspec.Struct, forbid_unknown_fields=True):
    reasoning_tokens: Count | None = None
    audio_tokens: Count | None = None
    accepted_prediction_tokens: Count | None = None
    rejected_prediction_tokens: Count | None = None


class _Usage(msgspec.Struct, forbid_unknown_fields=True):
    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class _ChatAnswer(msgspec.Struct):
    """What OpenAI's own answer holds of interest; one with any of the members typed None is not usual."""

    model: Name
    usage: msgspec.Raw
    id: Name | None = None
    service_tier: Name | None = None
    error: None = None
    type: None = None
    base_resp: None = None
    x_groq: None = None
    web_search: None = None
    data: None = None
    result: None = None
    orchestration_result: None = None
    final_result: None = None


class _EmbeddingUsage(msgspec.Struct, forbid_unknown_fields=True):
    prompt_tokens: Count
    total_tokens: Count | None = None


class _EmbeddingAnswer(msgspec.Struct):
    """Likewise."""

    model: Name
    usage: msgspec.Raw
    id: Name | None = None
    service_tier: None = None
    error: None = None
    type: None = None
    result: None = None
    input_token_count: None = None


_chat_answer = msgspec.json.Decoder(_ChatAnswer)
_usage = msgspec.json.Decoder(_Usage)
_embedding_answer = msgspec.json.Decoder(_EmbeddingAnswer)
_embedding_usage = msgspec.json.Decoder(_EmbeddingUsage)


def chat(body: bytes, provider: str) -> Reading | None:
    """The reading of an answer of `/chat/completions`."""
    try:
        found = _chat_answer.decode(body)
    except UNREADABLE:
        return None
    if SEARCHES in found.model:
        return None
    reading = chat_usage(found.usage, provider)
    if reading is None or len(found.usage) > USAGE_RAW_BYTES:  # blanks, or members named a thousand times
        return None
    reading.response_model = found.model
    reading.upstream_request_id = found.id
    reading.service_tier = found.service_tier
    reading.usage = msgspec.Raw(one_line(bytes(found.usage)))
    return reading


def chat_usage(raw: bytes | msgspec.Raw, provider: str) -> Reading | None:
    """The reading of its usage object: the same as `openai.read`, in a tenth of the time."""
    if provider in REASONING_BESIDE:
        return None
    try:
        usage = _usage.decode(raw)
    except UNREADABLE:
        return None
    into, out = usage.prompt_tokens, usage.completion_tokens
    if usage.total_tokens != into + out:
        return None
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    if prompt is None and completion is None:
        return Reading(input_tokens=into, output_tokens=out, bare=True)
    reading = Reading(input_tokens=into, output_tokens=out, plain=True)
    if prompt is not None:
        reading.cached_input_tokens = prompt.cached_tokens
        reading.audio_input_tokens = prompt.audio_tokens
    if completion is not None:
        reading.reasoning_output_tokens = completion.reasoning_tokens
        reading.audio_output_tokens = completion.audio_tokens
        reading.accepted_prediction_tokens = completion.accepted_prediction_tokens
        reading.rejected_prediction_tokens = completion.rejected_prediction_tokens
    return None if parts_exceed(reading) else reading


def embeddings(body: bytes, _provider: str) -> Reading | None:
    """The reading of an answer of `/embeddings`."""
    try:
        found = _embedding_answer.decode(body)
        usage = _embedding_usage.decode(found.usage)
    except UNREADABLE:
        return None
    if usage.total_tokens not in (None, usage.prompt_tokens) or len(found.usage) > USAGE_RAW_BYTES:
        return None
    raw = msgspec.Raw(one_line(bytes(found.usage)))
    return Reading(
        input_tokens=usage.prompt_tokens, response_model=found.model, upstream_request_id=found.id, usage=raw
    )


def nothing(_body: bytes, _provider: str) -> Reading | None:
    """The reading of an answer that is not read."""
    return Reading()


def one_line(raw: bytes) -> bytes:
    """Valid JSON without line breaks (it goes into a journal of lines); otherwise as it came."""
    return msgspec.json.format(raw, indent=-1) if b"\n" in raw or b"\r" in raw else raw


def request_id(headers: list[tuple[bytes, bytes]]) -> str | None:
    """The provider's own id for the call, by which its support finds it."""
    found = None
    for name, value in headers:
        if name in _REQUEST_IDS and value:
            found = value[:NAME_CHARS].decode("latin-1")
    return found


def parts_exceed(reading: Reading) -> bool:
    """A part is larger than its whole: the provider contradicts itself, or counts by a rule nobody published."""
    into, out = reading.input_tokens, reading.output_tokens
    return (
        exceeds(reading.cached_input_tokens, into)
        or exceeds(reading.cache_write_input_tokens, into)
        or exceeds(reading.audio_input_tokens, into)
        or exceeds(reading.image_input_tokens, into)
        or exceeds(reading.reasoning_output_tokens, out)
        or exceeds(reading.audio_output_tokens, out)
        or exceeds(reading.accepted_prediction_tokens, out)
        or exceeds(reading.rejected_prediction_tokens, out)
        or (reading.video_input_tokens is not None and exceeds(reading.video_input_tokens, into))
        or (reading.image_output_tokens is not None and exceeds(reading.image_output_tokens, out))
        or (reading.video_output_tokens is not None and exceeds(reading.video_output_tokens, out))
    )


def exceeds(part: int | None, whole: int | None) -> bool:
    """Both known, and the part is larger than the whole."""
    return part is not None and whole is not None and part > whole
