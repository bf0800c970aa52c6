"""Token kinds that some models price apart, read from the raw usage object where a record does not have them. Pure.

Only cards that price such a kind look here (image and video models, cached audio), so it is off the common path.
"""

from __future__ import annotations

import msgspec

from taximeter.core.usage import MAX_COUNT


class Modalities(msgspec.Struct, frozen=True, kw_only=True):
    """Counts, or None where the provider does not tell."""

    cached_audio_tokens: int | None = None
    cached_image_tokens: int | None = None
    video_input_tokens: int | None = None
    image_output_tokens: int | None = None
    video_output_tokens: int | None = None
    citation_tokens: int | None = None


def modalities(usage: msgspec.Raw) -> Modalities:
    """Read a provider's usage object (JSON). Anything unreadable is unknown; never raises.

    OpenAI: `input_token(s)_details.cached_tokens_details.{audio,image}_tokens`, `output_tokens_details.image_tokens`
    (the chat API says `prompt_`/`completion_`). Gemini: lists of {modality, tokenCount} by the kind of token.
    Perplexity: `citation_tokens`.
    """
    try:
        found = _DECODER.decode(usage)
    except (ValueError, RecursionError):
        return Modalities()
    if not isinstance(found, dict):
        return Modalities()
    cached = _member(_details(found, "input", "prompt"), "cached_tokens_details")
    output = _details(found, "output", "completion")
    gemini_cached = _by_modality(found, "cacheTokensDetails")
    gemini_input = _by_modality(found, "promptTokensDetails")
    gemini_output = _by_modality(found, "candidatesTokensDetails")
    drawn = gemini_output.get("IMAGE", 0) if gemini_output else None  # all kinds are listed that there are
    return Modalities(
        cached_audio_tokens=_first(_count(cached, "audio_tokens"), gemini_cached.get("AUDIO")),
        cached_image_tokens=_first(_count(cached, "image_tokens"), gemini_cached.get("IMAGE")),
        video_input_tokens=gemini_input.get("VIDEO"),
        image_output_tokens=_first(_count(output, "image_tokens"), drawn),
        video_output_tokens=_first(_count(output, "video_tokens"), gemini_output.get("VIDEO")),
        citation_tokens=_count(found, "citation_tokens"),
    )


_DECODER = msgspec.json.Decoder(object)


def _details(usage: dict[str, object], *directions: str) -> dict[str, object]:
    for direction in directions:
        for spelling in (f"{direction}_tokens_details", f"{direction}_token_details"):
            found = _member(usage, spelling)
            if found:
                return found
    return {}


def _member(holder: dict[str, object], name: str) -> dict[str, object]:
    found = holder.get(name)
    return found if isinstance(found, dict) else {}


def _count(holder: dict[str, object], name: str) -> int | None:
    found = holder.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= MAX_COUNT else None


def _by_modality(usage: dict[str, object], name: str) -> dict[str, int]:
    listed = usage.get(name)
    counts: dict[str, int] = {}
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, dict):
            modality, tokens = item.get("modality"), _count(item, "tokenCount")
            if isinstance(modality, str) and tokens is not None:
                counts[modality.upper()] = counts.get(modality.upper(), 0) + tokens
    return counts


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)
