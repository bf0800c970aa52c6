"""From a provider's usage object to a `Reading`: what the field names in `fields` cannot say. Pure; never raises.

OpenAI's convention, which most share, has `openai` for itself. Each function takes the usage object, the provider and
the model (most need the first alone), so that a dialect can name the one it speaks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from taximeter.core.usage import Reading
from taximeter.flavors.usage import fields as names
from taximeter.flavors.usage import openai
from taximeter.flavors.usage.counts import Fields, added, count, duration_s, fields, first, items, text
from taximeter.flavors.usage.usual import exceeds, parts_exceed

Convention = Callable[[Fields, str, str | None], Reading]

_PASSES_APART = frozenset(("compaction",))
"""Passes in `iterations` that the top-level figures leave out though they are billed (docs.anthropic.com, "Compaction":
sum the iterations). What ran on another model (an advisor, a fallback) is left to the raw usage: it has another price,
so that the whole has none (https://platform.claude.com/docs/en/agents-and-tools/tool-use/advisor-tool)."""
_PASS_FIGURES = (
    "input_tokens", "cached_input_tokens", "cache_write_input_tokens", "cache_write_input_tokens_5m",
    "cache_write_input_tokens_1h", "output_tokens",
)  # fmt: skip
_MODALITIES = {2: "IMAGE", 3: "VIDEO", 4: "AUDIO"}
"""Modalities by enum number: Vertex sends that or the name
(https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/Modality)."""
_TRAFFIC_TIERS = {
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_PRIORITY": "priority",
    "PROVISIONED_THROUGHPUT": "provisioned",
}
"""Vertex' `trafficType` where it is not the plain tier."""

_OF_ANTHROPIC = {"input_tokens", "output_tokens"}
_OF_OTHERS = {"prompt_tokens", "total_tokens", "billed_units", "tokens"}


by_prompt = re.compile(r"(?i)(.*/)?gemini-(live-)?[12]\b").match
"""Models whose grounding is billed by the prompt, however often was searched
(https://ai.google.dev/gemini-api/docs/google-search, "Pricing")."""


def anthropic(usage: Fields, provider: str = "", model: str | None = None) -> Reading:
    """Anthropic's: `input_tokens` excludes cache reads and writes; thinking is inside `output_tokens`."""
    reading = names.ANTHROPIC.read(usage)
    for one in map(fields, items(usage.get("iterations"))):
        if one.get("type") in _PASSES_APART:
            apart = names.ANTHROPIC.read(one)
            for figure in _PASS_FIGURES:
                setattr(reading, figure, added(getattr(reading, figure), getattr(apart, figure)))
        elif _is_another(text(one.get("model")), model, one):
            reading.priced_in_part = True
    split = added(reading.cache_write_input_tokens_5m, reading.cache_write_input_tokens_1h)
    reading.inconsistent = parts_exceed(reading) or exceeds(split, reading.cache_write_input_tokens)
    reading.speed, reading.region = text(usage.get("speed")), text(usage.get("inference_geo"))
    return reading


def _is_another(ran: str | None, answered: str | None, one: Fields) -> bool:
    """A pass that used something, on another model than the one that answered; names may have their date or not."""
    if not any(count(one.get(name)) for name in ("input_tokens", "output_tokens")):
        return False
    if ran is None or answered is None:
        return one.get("type") == "advisor_message"
    return not (ran.startswith(answered) or answered.startswith(ran))


def gemini(usage: Fields, provider: str = "", model: str | None = None) -> Reading:
    """`usageMetadata`: thoughts and tool prompts stand beside candidates and prompt, what was cached is inside.

    Absent counts are zeros left out, as protobuf's JSON does: the total tells.
    """
    prompt, total = first(usage, "promptTokenCount"), first(usage, "totalTokenCount")
    written = first(usage, "candidatesTokenCount", "responseTokenCount")
    if total is not None and (prompt is None) != (written is None):
        beside = added(first(usage, "toolUsePromptTokenCount"), first(usage, "thoughtsTokenCount"), 0) or 0
        rest = max(total - (prompt or 0) - (written or 0) - beside, 0)
        usage = {**usage, "promptTokenCount" if prompt is None else "candidatesTokenCount": rest}
    seen = [
        one
        for name in ("promptTokensDetails", "promptTokenDetails", "toolUsePromptTokensDetails")
        for one in items(usage.get(name))
    ]
    reading = names.GEMINI.read(usage)
    written_as = items(usage.get("candidatesTokensDetails")) or items(usage.get("responseTokensDetails"))
    _told_apart(reading, seen, written_as, items(usage.get("cacheTokensDetails")), "tokenCount")
    tier = usage.get("serviceTier")
    reading.service_tier = tier if isinstance(tier, str) and tier else _TRAFFIC_TIERS.get(str(usage.get("trafficType")))
    reading.inconsistent = reading.inconsistent or parts_exceed(reading)
    return reading


def embedded(usage: Fields, provider: str = "", model: str | None = None) -> Reading:
    """`usageMetadata` of an answer that generates nothing: it has no output, not an output of 0."""
    reading = gemini(usage)
    if reading.input_tokens is None:
        reading.input_tokens = first(usage, "totalTokenCount")
    reading.output_tokens = None
    return reading


def transcribed(usage: Fields, provider: str = "", model: str | None = None) -> Reading:
    """Of speech: `verbose_json` tells `duration` beside the text, which is billed only where no tokens are told."""
    reading = openai.read(usage, provider, model)
    if reading.seconds is None and reading.input_tokens is None:
        reading.seconds = duration_s(usage.get("duration"))
    return reading


def interactions(usage: Fields, provider: str = "", model: str | None = None) -> Reading:
    """Gemini's `/interactions`: other names for the same counts."""
    reading = names.INTERACTIONS.read(usage)
    seen, written, cached = (items(usage.get(f"{kind}_tokens_by_modality")) for kind in ("input", "output", "cached"))
    _told_apart(reading, seen, written, cached, "tokens")
    for one in map(fields, items(usage.get("grounding_tool_count"))):
        times = count(one.get("count"))
        if times and one.get("type") == "google_search":
            reading.web_search_requests = 1 if by_prompt(model or "") else times
        elif times and one.get("type") == "google_maps":
            reading.maps_requests = 1
    reading.inconsistent = reading.inconsistent or parts_exceed(reading)
    return reading


def converse(usage: Fields, provider: str = "", model: str | None = None) -> Reading:
    """Bedrock Converse's (and Nova's own), invocation metrics and headers: the cache counts stand beside the input."""
    reading = names.CONVERSE.read(usage)
    for detail in map(fields, items(usage.get("cacheDetails"))):
        if detail.get("ttl") == "5m":
            reading.cache_write_input_tokens_5m = first(detail, "inputTokens")
        elif detail.get("ttl") == "1h":
            reading.cache_write_input_tokens_1h = first(detail, "inputTokens")
    return reading


def cohere(usage: Fields, provider: str = "", model: str | None = None) -> Reading:
    """Cohere's, where the object is that: `billed_units` is what it bills, `tokens` what its models saw; else OpenAI's.

    The billed figure is the one recorded: it equals Cohere's own header `num_tokens` in every recording we know, while
    `tokens`, which counts a hidden preamble, can be twenty times it.
    """
    billed, seen = usage.get("billed_units"), fields(usage.get("tokens"))
    if not isinstance(billed, dict) and not isinstance(usage.get("tokens"), dict):
        return openai.read(usage, provider, model)
    reading = names.COHERE.read(usage)
    if reading.cached_input_tokens and exceeds(first(seen, "input_tokens"), reading.input_tokens):
        reading.cached_input_tokens = None  # a part of `tokens` with its preamble, not of what is billed
    if not billed:  # Xinference, SiliconFlow: only `tokens`
        reading.input_tokens = first(seen, "input_tokens")
        reading.output_tokens = first(seen, "output_tokens")
    reading.inconsistent = exceeds(reading.reasoning_output_tokens, reading.output_tokens)
    return reading


def ollama(usage: Fields, provider: str = "", model: str | None = None) -> Reading:
    """Ollama's."""
    return names.OLLAMA.read(usage)


def by_names(usage: Fields, provider: str = "", model: str | None = None) -> Reading:
    """A usage object nobody told us the convention of: its names tell."""
    if "inputTokens" in usage or "outputTokens" in usage:
        return converse(usage)
    if "promptTokenCount" in usage or "candidatesTokenCount" in usage:
        return gemini(usage)
    if usage.keys() & _OF_ANTHROPIC and not usage.keys() & _OF_OTHERS:
        return anthropic(usage)
    return cohere(usage, provider, model)


def _told_apart(reading: Reading, seen: list[object], written: list[object], cached: list[object], name: str) -> None:
    """What tokens of each kind are; a kind that is not listed is not known."""
    if seen:
        kinds = _by_modality(seen, name)
        reading.audio_input_tokens, reading.image_input_tokens = kinds.get("AUDIO"), kinds.get("IMAGE")
        reading.video_input_tokens = kinds.get("VIDEO")
    if written:
        kinds = _by_modality(written, name)
        reading.audio_output_tokens, reading.image_output_tokens = kinds.get("AUDIO"), kinds.get("IMAGE")
        reading.video_output_tokens = kinds.get("VIDEO")
    if cached:
        kinds = _by_modality(cached, name)
        reading.cached_audio_input_tokens, reading.cached_image_input_tokens = kinds.get("AUDIO"), kinds.get("IMAGE")


def _by_modality(details: Iterable[object], name: str) -> dict[str, int]:
    kinds: dict[str, int] = {}
    for one in map(fields, details):
        tokens, modality = count(one.get(name)), one.get("modality")
        kind = _MODALITIES.get(modality) if isinstance(modality, int) else str(modality).upper()
        if tokens is not None and kind is not None:
            kinds[kind] = kinds.get(kind, 0) + tokens
    return kinds
