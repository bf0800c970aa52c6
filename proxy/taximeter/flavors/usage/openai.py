"""OpenAI's usage object, as OpenAI and everybody who speaks its dialects sends it, in our convention.

Base rule (OpenAI, Azure, DeepSeek, Mistral, OpenRouter, Groq …): total = prompt + completion, cached tokens are inside
the prompt, reasoning is inside the completion (https://platform.openai.com/docs/api-reference/chat/object). Where a
provider departs from it, its own `total_tokens` says so, and the equation decides rather than its name; what no
equation can show stands in REASONING_BESIDE and REST_IS_REASONING. It must not know framing.
"""

from __future__ import annotations

import msgspec

from taximeter.core.usage import Reading
from taximeter.flavors.usage import usual
from taximeter.flavors.usage.counts import (
    Fields,
    count,
    duration_s,
    fields,
    first,
    header_count,
    text,
    ticks_to_nusd,
    usd_to_nusd,
)
from taximeter.flavors.usage.usual import parts_exceed

_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "prompt_token_details", "input_token_details")
_OUTPUT_DETAILS = (
    "completion_tokens_details",
    "output_tokens_details",
    "completion_token_details",
    "output_token_details",
)
_CACHED = (
    "cached_tokens",  # Together, Hugging Face, Moonshot, Anthropic's OpenAI endpoint
    "num_cached_tokens",  # Mistral
    "prompt_cache_hit_tokens",  # DeepSeek
    "cache_read_input_tokens",  # Venice, Databricks, Vercel, Doubleword
)

REASONING_BESIDE: dict[str, tuple[str, ...]] = {
    # provider -> prefixes of the models whose reasoning is in neither `completion_tokens` nor `total_tokens`
    "vercel-gateway": ("google/",),  # its bill and the Gemini usage it quotes both count thoughts on top
    "vercel": ("google/",),
    "perplexity": ("",),  # reasoning_tokens are billed beside completion_tokens (docs.perplexity.ai, pricing)
}

REST_IS_REASONING = frozenset(("google", "gemini", "vertex"))
"""Providers that hide thoughts in `total_tokens` alone: 66 + 6 = 100 (Gemini's OpenAI endpoint). Gateways in front of
Gemini pass the same object on, so there the model's name tells."""

_CAMEL_CASE = {
    # Oracle's Usage (docs.oracle.com, GenerativeAiInference); Yandex' inputTextTokens
    "promptTokens": "prompt_tokens",
    "inputTextTokens": "prompt_tokens",
    "completionTokens": "completion_tokens",
    "totalTokens": "total_tokens",
    "promptTokensDetails": "prompt_tokens_details",
    "completionTokensDetails": "completion_tokens_details",
    "cachedTokens": "cached_tokens",
    "reasoningTokens": "reasoning_tokens",
    "acceptedPredictionTokens": "accepted_prediction_tokens",
    "rejectedPredictionTokens": "rejected_prediction_tokens",
}


def read(usage: Fields, provider: str, model: str | None) -> Reading:
    """The usage object in our convention: input includes cached and audio, output includes reasoning."""
    usage = _snake_case(usage)
    into = _details(usage, _INPUT_DETAILS)
    out = _details(usage, _OUTPUT_DETAILS)
    reading = Reading(
        input_tokens=first(usage, "prompt_tokens", "input_tokens"),
        output_tokens=first(usage, "completion_tokens", "output_tokens", "total_output_tokens"),  # the last: LM Studio
        cached_input_tokens=_either(first(into, "cached_tokens"), first(usage, *_CACHED)),
        cache_write_input_tokens=_either(
            first(into, "cache_write_tokens", "cache_creation_tokens"), first(usage, "cache_creation_input_tokens")
        ),
        audio_input_tokens=_either(first(into, "audio_tokens"), first(usage, "audio_prompt_tokens")),
        image_input_tokens=first(into, "image_tokens"),
        reasoning_output_tokens=_either(
            first(out, "reasoning_tokens", "thinking_tokens"),
            first(usage, "reasoning_tokens", "reasoning_output_tokens"),
        ),
        audio_output_tokens=first(out, "audio_tokens"),
        accepted_prediction_tokens=first(out, "accepted_prediction_tokens"),
        rejected_prediction_tokens=first(out, "rejected_prediction_tokens"),
        search_units=first(usage, "search_units"),
        web_search_requests=_either(
            first(fields(usage.get("server_tool_use_details")), "web_search_requests"),
            first(fields(usage.get("server_tool_use")), "web_search_requests"),
        ),
        seconds=_seconds(usage),
        service_tier=text(usage.get("service_tier")),
        upstream_cost_nusd=cost_nusd(usage),
    )
    writes = fields(usage.get("cache_creation"))
    if writes:
        reading.cache_write_input_tokens_5m = first(writes, "ephemeral_5m_input_tokens")
        reading.cache_write_input_tokens_1h = first(writes, "ephemeral_1h_input_tokens")
    _balance(reading, usage, provider, model)
    reading.inconsistent = reading.inconsistent or parts_exceed(reading)
    return reading


def usual_shape(raw: bytes | msgspec.Raw, provider: str) -> Reading | None:
    """The same as `read` in a tenth of the time, for a usage object in OpenAI's own shape; None: it is not in it."""
    return None if provider in REASONING_BESIDE else usual.chat_usage(raw)


def cost_nusd(usage: Fields) -> int | None:
    """The cost the provider itself states, in nano-USD.

    `cost` is USD, a number (OpenRouter, Vercel) or an object with `total_cost` (Perplexity), `estimated_cost` a number
    (DeepInfra); xAI counts ticks
    (docs.x.ai: 10**10 ticks are 1 USD); Pydantic's gateway adds `pydantic_ai_gateway.cost_estimate`.
    """
    cost = usage.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    stated = usd_to_nusd(cost)
    if stated is None:
        stated = usd_to_nusd(usage.get("estimated_cost"))
    if stated is None:
        stated = ticks_to_nusd(usage.get("cost_in_usd_ticks"))
    if stated is None:
        stated = usd_to_nusd(fields(usage.get("pydantic_ai_gateway")).get("cost_estimate"))
    return stated


def _balance(reading: Reading, usage: Fields, provider: str, model: str | None) -> None:
    """Bring input and output to our convention by the provider's own total."""
    total = count(usage.get("total_tokens"))
    into, out, reasoning = reading.input_tokens, reading.output_tokens, reading.reasoning_output_tokens
    if total is not None and into is None and out is None:
        reading.input_tokens = total  # Voyage, Jina: `total_tokens` is all there is, and nothing is generated
        return
    if reasoning and out is not None and _reasoning_is_beside(provider, model):
        reading.output_tokens = out + reasoning
        reading.inconsistent = (
            total is not None and into is not None and total not in (into + out, into + out + reasoning)
        )
        return
    if total is None or into is None or out is None or total == into + out:
        return
    rest = total - into - out
    if reasoning and rest == reasoning:
        reading.output_tokens = out + reasoning  # xAI: 82 + 320 + 468 = 870
    elif reading.audio_input_tokens and rest == reading.audio_input_tokens:
        reading.input_tokens = into + rest  # Mistral audio: 11 + 375 + 15 = 401
    elif rest > 0 and rest == count(usage.get("connector_tokens")):
        reading.input_tokens = into + rest  # what Mistral's connectors brought into the prompt: 177 + 134 + 3929 = 4240
    elif rest > 0 and not reasoning and _rest_is_reasoning(provider, model):
        reading.output_tokens = out + rest
        reading.reasoning_output_tokens = rest
    else:
        reading.inconsistent = True


def _rest_is_reasoning(provider: str, model: str | None) -> bool:
    return provider in REST_IS_REASONING or (model or "").rpartition("/")[2].startswith("gemini")


def _snake_case(usage: Fields) -> Fields:
    """OpenAI's names where a provider writes them in camel case."""
    if "completionTokens" not in usage and "promptTokens" not in usage:
        return usage
    renamed: Fields = {}
    for name, value in usage.items():
        known = _CAMEL_CASE.get(name, name)
        if isinstance(value, str):  # protobuf's JSON writes 64-bit integers so
            renamed[known] = header_count(value.encode())
        elif isinstance(value, dict):
            renamed[known] = {_CAMEL_CASE.get(inner, inner): one for inner, one in value.items()}
        else:
            renamed[known] = value
    return renamed


def _reasoning_is_beside(provider: str, model: str | None) -> bool:
    prefixes = REASONING_BESIDE.get(provider)
    return prefixes is not None and (model or "").startswith(prefixes)


def _details(usage: Fields, names: tuple[str, ...]) -> Fields:
    for name in names:
        found = usage.get(name)
        if isinstance(found, dict):
            return found
    return {}


def _either(one: int | None, other: int | None) -> int | None:
    return other if one is None else one


def _seconds(usage: Fields) -> float | None:
    """Audio billed by time: `seconds` (whisper-1, OpenRouter), `prompt_audio_seconds` (Mistral)."""
    stated = duration_s(usage.get("seconds"))
    return stated if stated is not None else duration_s(usage.get("prompt_audio_seconds"))
