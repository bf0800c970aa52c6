"""OpenAI's usage object, as OpenAI and everybody who speaks its dialects sends it, in our convention.

Base rule (OpenAI, Azure, DeepSeek, Mistral, OpenRouter, Groq …): total = prompt + completion, cached tokens are inside
the prompt, reasoning is inside the completion (https://platform.openai.com/docs/api-reference/chat/object). Where a
provider departs from it, its own `total_tokens` says so, and the equation decides rather than its name; what no
equation can show stands in REASONING_BESIDE and REST_IS_REASONING; which field is which figure, in `fields`.
"""

from __future__ import annotations

from taximeter.core.usage import Reading
from taximeter.flavors.usage.counts import Fields, count, fields, header_count, text
from taximeter.flavors.usage.fields import OPENAI
from taximeter.flavors.usage.usual import REASONING_BESIDE, parts_exceed

REST_IS_REASONING = frozenset(("google", "gemini", "vertex"))
"""Providers that hide thoughts in `total_tokens` alone: 66 + 6 = 100 (Gemini's OpenAI endpoint). Gateways in front of
Gemini pass the same object on, so there the model's name tells."""
_SEARCHES = (
    ("x_tools", "web_search", "count"),  # Model Studio, responses
    ("plugins", "search", "count"),  # Model Studio, chat
    ("tool_calls_details", "web_search", "invocation"),  # Perplexity, agents
    ("tool_calls_details", "search_web", "invocation"),
)


def read(usage: Fields, provider: str, model: str | None) -> Reading:
    """The usage object in our convention: input includes cached and audio, output includes reasoning."""
    if "completionTokens" in usage or "promptTokens" in usage:  # Oracle, Yandex
        # protobuf's JSON writes 64-bit integers as strings
        told = ((name, header_count(one.encode()) if isinstance(one, str) else one) for name, one in usage.items())
        usage = {"total_tokens" if name == "totalTokens" else name: value for name, value in told}
    reading = OPENAI.read(usage)
    reading.inconsistent = False
    if reading.web_search_requests is None:
        reading.web_search_requests = _searches(usage)
    reading.media_size = text(usage.get("search_context_size"))  # Perplexity: its fee by the request depends on it
    reading.priced_in_part = bool(count(usage.get("num_sources_used")))  # xAI's live search, by the source
    if reading.cached_input_tokens:
        _cached_kinds(reading, usage)
    _balance(reading, usage, provider, model)
    reading.inconsistent = reading.inconsistent or parts_exceed(reading)
    return reading


def _searches(usage: Fields) -> int | None:
    """Searches that are told two objects deep."""
    for where, tool, name in _SEARCHES:
        if where in usage and (times := count(fields(fields(usage.get(where)).get(tool)).get(name))) is not None:
            return times
    return None


def _cached_kinds(reading: Reading, usage: Fields) -> None:
    """Which of the cached tokens were audio and images (https://platform.openai.com/docs/api-reference/realtime)."""
    for details in ("input_token_details", "input_tokens_details", "prompt_tokens_details"):
        kinds = fields(fields(usage.get(details)).get("cached_tokens_details"))
        if kinds:
            reading.cached_audio_input_tokens = count(kinds.get("audio_tokens"))
            reading.cached_image_input_tokens = count(kinds.get("image_tokens"))


def _balance(reading: Reading, usage: Fields, provider: str, model: str | None) -> None:
    """Bring input and output to our convention by the provider's own total."""
    total = count(usage.get("total_tokens"))
    into, out, reasoning = reading.input_tokens, reading.output_tokens, reading.reasoning_output_tokens
    if total is not None and into is None and not out:
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


def _reasoning_is_beside(provider: str, model: str | None) -> bool:
    prefixes = REASONING_BESIDE.get(provider)
    return prefixes is not None and (model or "").startswith(prefixes)
