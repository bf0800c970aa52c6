"""Rate cards and the arithmetic of one call's cost: integers only, one rounding at the end. Pure.

A rate is pico-USD (1e-12 USD) per token, request, search …: list prices per million tokens have up to six decimals,
so pico-USD are exact where nano-USD are not; the few that have more are rounded to the nearest. What a card says,
when it applies and who publishes it is decided elsewhere (`taximeter.pricebook`); no provider's name is known here.
"""

from __future__ import annotations

from bisect import bisect_right
from enum import StrEnum

import msgspec

from taximeter.core.bounds import MAX_COST_NUSD
from taximeter.core.modalities import Modalities, modalities
from taximeter.core.record import Operation, Outcome, Record

PICO_PER_NANO = 1_000
_US_PER_HOUR = 3_600_000_000
_US_PER_DAY = 86_400_000_000


class Why(StrEnum):
    """Why a call that may have been billed has no cost; a record's `unpriced_reason`."""

    USAGE_UNKNOWN = "usage_unknown"
    """Nobody told what it used, and it could not be counted."""
    DEFERRED = "deferred"
    """It is done and billed later: what it used stands in the object that the record's `deferred` names."""
    USAGE_IMPOSSIBLE = "usage_impossible"
    """A figure was reported that no call can have."""
    USAGE_INCONSISTENT = "usage_inconsistent"
    """The provider's figures contradict each other."""
    FIGURE_UNKNOWN = "figure_unknown"
    """There is a price, but a figure that it needs is not known: the output, or which tokens were images."""
    MODEL_WITHOUT_PRICE = "model_without_price"
    SERVICE_TIER_WITHOUT_PRICE = "service_tier_without_price"
    SPEED_WITHOUT_PRICE = "speed_without_price"
    REGION_WITHOUT_PRICE = "region_without_price"
    USE_WITHOUT_PRICE = "use_without_price"
    """It used a tool of the provider's (a search, a container) whose price is not known."""


class Rates(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What each unit costs, in pico-USD. None: not priced apart, the tokens cost what their whole costs."""

    input: int | None = None
    cached_input: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    audio_input: int | None = None
    cached_audio_input: int | None = None
    image_input: int | None = None
    cached_image_input: int | None = None
    video_input: int | None = None
    output: int | None = None
    reasoning_output: int | None = None
    audio_output: int | None = None
    image_output: int | None = None
    video_output: int | None = None
    citation: int | None = None
    """Tokens of cited sources, billed beside the output (Perplexity)."""
    request: int | None = None
    search_unit: int | None = None
    web_search: int | None = None
    file_search: int | None = None
    code_interpreter: int | None = None
    """pico-USD per container."""
    maps: int | None = None
    """pico-USD per prompt grounded with maps."""
    audio_hour: int | None = None
    """pico-USD per hour of audio."""
    min_audio_s: int | None = None
    """Shortest audio billed, in seconds."""

    @property
    def needs_modalities(self) -> bool:
        """True where a rate applies to tokens that only the provider's own usage object tells apart."""
        return (
            self.cached_audio_input is not None
            or self.cached_image_input is not None
            or self.video_input is not None
            or self.image_output is not None
            or self.video_output is not None
            or self.citation is not None
        )


class Card(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The rates of one model at one time in one service tier."""

    ref: str
    """Where the rates come from; what a record keeps as `price_ref`."""
    rates: Rates
    above: tuple[tuple[int, Rates], ...] = ()
    """(input tokens, rates), ascending: these rates apply to *all* tokens once the total input exceeds the number."""
    free: bool = False
    """Costs nothing, whatever it uses."""
    same_as: tuple[str, str] | None = None
    """(provider, model) whose rates apply instead; model `*` is the model asked for."""


class Span(msgspec.Struct, frozen=True, array_like=True):
    """From an instant on: one card, or one for each part of the UTC day."""

    from_us: int
    cards: tuple[Card | None, ...]
    """None: no price in that part of the day."""
    starts_s: tuple[int, ...] = (0,)
    """Second of the UTC day at which each card begins; the first is 0."""


Schedule = tuple[Span, ...]
"""Spans in ascending order of `from_us`; before the first there is no price."""


def card_at(schedule: Schedule, at_us: int) -> Card | None:
    """The card that applies at `at_us` (µs since epoch, UTC), or None."""
    for span in reversed(schedule):
        if span.from_us <= at_us:
            if len(span.cards) == 1:
                return span.cards[0]
            second = at_us % _US_PER_DAY // 1_000_000
            return span.cards[bisect_right(span.starts_s, second) - 1]
    return None


def cost_nusd(card: Card, record: Record) -> int | None:
    """What the record's call cost by this card, in nano-USD, or None where a figure the card needs is not known.

    Half a nano-USD rounds up, and more than MAX_COST_NUSD is cut to it. Nothing is charged by halves: with input known
    and output unknown the cost is unknown. Cached and cache-write tokens beyond the input total are charged as
    reported, the fresh rest is then 0 (OpenAI calls `cache_write_tokens` unadjusted: cached + written may exceed
    `prompt_tokens`).
    """
    if card.free:
        known = (record.input_tokens, record.output_tokens, record.search_units, record.seconds)
        return None if all(figure is None for figure in known) else 0
    rates = card.rates
    if card.above and record.input_tokens is not None:
        for start, higher in card.above:
            if record.input_tokens > start:
                rates = higher
    extra = modalities(record.usage) if rates.needs_modalities else _NO_MODALITIES
    tokens_in = _input_pico(rates, record, extra)
    tokens_out = _output_pico(rates, record, extra)
    if tokens_in is None or tokens_out is None:
        return None
    pico = tokens_in + tokens_out
    if rates.request is not None:
        pico += rates.request
    if rates.search_unit is not None:
        pico += rates.search_unit * (record.search_units or 0)
    uses = _uses_pico(rates, record)
    if uses is None:
        return None
    pico += uses
    if rates.audio_hour is not None and record.seconds is not None:
        seconds = record.seconds
        if rates.min_audio_s is not None and seconds > 0:
            seconds = max(seconds, rates.min_audio_s)
        scaled = pico * _US_PER_HOUR + rates.audio_hour * round(seconds * 1_000_000)
        return _rounded(scaled, _US_PER_HOUR * PICO_PER_NANO)
    return _rounded(pico, PICO_PER_NANO)


def uses_of(rates: Rates, record: Record) -> tuple[tuple[int | None, int | None], ...]:
    """(uses, rate) of each tool of the provider's that is billed by use."""
    return (
        (record.web_search_requests, rates.web_search),
        (record.file_search_requests, rates.file_search),
        (record.code_interpreter_sessions, rates.code_interpreter),
        (record.maps_requests, rates.maps),
    )


def _uses_pico(rates: Rates, record: Record) -> int | None:
    """None where something was used whose price is not known; a price by the request has its searches in it
    (Perplexity's Sonar: https://docs.perplexity.ai/getting-started/pricing)."""
    pico = 0
    for uses, rate in uses_of(rates, record):
        if uses and rate is not None:
            pico += rate * uses
        elif uses and rates.request is None:
            return None
    return pico


class Most(msgspec.Struct, frozen=True, kw_only=True):
    """What a call may use at most, of each unit."""

    input_tokens: int = 0
    output_tokens: int = 0
    search_units: int = 0
    web_searches: int = 0
    """Uses of any tool that is billed by use."""
    seconds: int = 0
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
    return max(_dearest_pico(rates, most) for rates in reached) // PICO_PER_NANO + 1


def _dearest_pico(rates: Rates, most: Most) -> int:
    written = max(rates.cache_write or 0, rates.cache_write_1h or 0) if most.writes_cache else 0
    cached = max(rates.cached_input or 0, rates.cached_audio_input or 0, rates.cached_image_input or 0)
    kinds = (rates.input, rates.audio_input, rates.image_input, rates.video_input)
    tokens_in = max(*(rate or 0 for rate in kinds), written + cached) + (rates.citation or 0)
    said = (rates.output, rates.reasoning_output, rates.audio_output, rates.image_output, rates.video_output)
    tokens_out = max(rate or 0 for rate in said)
    seconds = max(most.seconds, rates.min_audio_s or 0) if rates.audio_hour else 0
    return (
        tokens_in * most.input_tokens
        + tokens_out * most.output_tokens
        + (rates.request or 0)
        + (rates.search_unit or 0) * most.search_units
        + max(rates.web_search or 0, rates.file_search or 0, rates.code_interpreter or 0, rates.maps or 0)
        * most.web_searches
        + -(-(rates.audio_hour or 0) * seconds // 3_600)
    )


_NO_MODALITIES = Modalities()


def _rounded(amount: int, per: int) -> int:
    return min((2 * amount + per) // (2 * per), MAX_COST_NUSD)


def _charged_otherwise(rates: Rates, record: Record) -> bool:
    """By searches, time or the call itself, and that figure is known: token counts are then only informative."""
    if rates.search_unit is not None:
        return record.search_units is not None
    if rates.audio_hour is not None:
        return record.seconds is not None
    return rates.request is not None and rates.input is None and record.outcome is Outcome.OK


def _input_pico(rates: Rates, record: Record, extra: Modalities) -> int | None:
    tokens = record.input_tokens
    if rates.input is None or tokens is None or (rates.search_unit is not None and record.search_units is None):
        return 0 if _charged_otherwise(rates, record) else None
    fresh = tokens
    pico = 0
    if rates.cached_input is not None and record.cached_input_tokens:
        fresh -= record.cached_input_tokens
        pico += rates.cached_input * record.cached_input_tokens
    if rates.cache_write is not None or rates.cache_write_1h is not None:
        hour = record.cache_write_input_tokens_1h or 0
        written = record.cache_write_input_tokens
        if written is None:
            written = (record.cache_write_input_tokens_5m or 0) + hour
        write_rate = rates.input if rates.cache_write is None else rates.cache_write
        hour_rate = write_rate if rates.cache_write_1h is None else rates.cache_write_1h
        fresh -= written
        pico += write_rate * max(written - hour, 0) + hour_rate * hour
    fresh = max(fresh, 0)
    if rates.audio_input is None and rates.image_input is None and rates.video_input is None:
        return pico + rates.input * fresh
    apart = _input_modalities(rates, record, extra)
    if apart is None or apart[0] > fresh:
        return None
    return pico + apart[1] + rates.input * (fresh - apart[0])


def _input_modalities(rates: Rates, record: Record, extra: Modalities) -> tuple[int, int] | None:
    """(fresh tokens, pico-USD) of audio, image and video input; None where it is unknown which of them were cached.

    Tokens served from the cache were charged at the cached rate already; where cached audio or images have a rate of
    their own, the difference is added. A provider that does not tell is taken to have cached text only, unless the
    card prices the difference.
    """
    taken = pico = 0
    for rate, tokens, cached_rate, cached in (
        (rates.audio_input, record.audio_input_tokens, rates.cached_audio_input, extra.cached_audio_tokens),
        (rates.image_input, record.image_input_tokens, rates.cached_image_input, extra.cached_image_tokens),
        (rates.video_input, extra.video_input_tokens, None, None),
    ):
        if rate is None or not tokens:
            continue
        if cached is None and cached_rate is not None and record.cached_input_tokens:
            return None
        from_cache = min(cached or 0, tokens)
        taken += tokens - from_cache
        pico += rate * (tokens - from_cache)
        if rates.cached_input is None:
            taken += from_cache
            pico += (rate if cached_rate is None else cached_rate) * from_cache
        elif cached_rate is not None:
            pico += (cached_rate - rates.cached_input) * from_cache
    return taken, pico


def _output_pico(rates: Rates, record: Record, extra: Modalities) -> int | None:
    tokens = record.output_tokens
    if tokens is None or rates.output is None:
        unpriced = rates.output is not None if tokens is None else tokens > 0
        generates = record.operation is not Operation.EMBEDDING and record.operation is not Operation.RERANK
        return None if unpriced and generates and not _charged_otherwise(rates, record) else 0
    plain = tokens
    pico = 0
    image = extra.image_output_tokens
    if rates.image_output is not None and image is None and record.api == "images":
        return None  # `output_tokens_details` is optional there: how many of the tokens were image is not told
    for rate, part in (
        (rates.reasoning_output, record.reasoning_output_tokens),
        (rates.audio_output, record.audio_output_tokens),
        (rates.image_output, image),
        (rates.video_output, extra.video_output_tokens),
    ):
        if rate is not None and part:
            plain -= part
            pico += rate * part
    if plain < 0:
        return None  # the parts contradict the whole: no bill can be made of them
    if rates.citation is not None and extra.citation_tokens:
        pico += rates.citation * extra.citation_tokens
    return pico + rates.output * plain
