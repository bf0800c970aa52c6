"""The most that a call can cost by a card: what hard budgets hold before it is made. Pure."""

from __future__ import annotations

import msgspec

from taximeter.core.prices import PICO_PER_NANO, Card, Rates


class Most(msgspec.Struct, frozen=True, kw_only=True):
    """What a call may use at most, of each unit."""

    input_tokens: int = 0
    output_tokens: int = 0
    search_units: int = 0
    web_searches: int = 0
    """Uses of any tool that is billed by use."""
    seconds: int = 0
    images: int = 0
    characters: int = 0
    pages: int = 0
    video_seconds: int = 0
    writes_cache: bool = True
    """False: nothing of its input can be written into a cache at a price of its own."""


def dearest_nusd(card: Card, most: Most) -> int:
    """The most that a call within `most` can cost by this card, in nano-USD: every token at its dearest.

    A token of input may be fresh, or of a kind that is priced apart, or written into a cache *and* read from one
    (OpenAI reports the two unadjusted: see `cost_nusd`); one of output of any kind.
    """
    if card.free:
        return 0
    reached = [card.rates, *(rates for start, rates in card.above if most.input_tokens > start)]
    reached += [one.rates for one in card.sized]
    return max(_dearest_pico(rates, most) for rates in reached) // PICO_PER_NANO + 1


def _dearest_pico(rates: Rates, most: Most) -> int:
    written = max(rates.cache_write or 0, rates.cache_write_1h or 0) if most.writes_cache else 0
    cached = max(rates.cached_input or 0, rates.cached_audio_input or 0, rates.cached_image_input or 0)
    kinds = (rates.input, rates.audio_input, rates.image_input, rates.video_input)
    tokens_in = max(*(rate or 0 for rate in kinds), written + cached) + (rates.citation or 0)
    said = (rates.output, rates.reasoning_output, rates.audio_output, rates.image_output, rates.video_output)
    tokens_out = max(rate or 0 for rate in said)
    uses = (rates.web_search, rates.file_search, rates.code_interpreter, rates.maps, rates.image_generation)
    seconds = max(most.seconds, rates.min_audio_s or 0) if rates.audio_hour else 0
    return (
        tokens_in * most.input_tokens
        + tokens_out * most.output_tokens
        + (rates.request or 0)
        + (rates.search_unit or 0) * most.search_units
        + max(rate or 0 for rate in uses) * most.web_searches
        + (rates.image or 0) * most.images
        + (rates.character or 0) * most.characters
        + max(rates.page or 0, rates.annotated_page or 0) * most.pages
        + (rates.video_second or 0) * most.video_seconds
        + -(-(rates.audio_hour or 0) * seconds // 3_600)
    )
