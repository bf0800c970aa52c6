"""Rate cards and the arithmetic of one call's cost: integers only, one rounding at the end. Pure.

A rate is pico-USD (1e-12 USD) per token, request, search …: list prices per million tokens have up to six decimals,
so pico-USD are exact where nano-USD are not; the few that have more are rounded to the nearest. What a card says,
when it applies and who publishes it is decided elsewhere (`taximeter.pricebook`); no provider's name is known here.
"""

from __future__ import annotations

from bisect import bisect_right
from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

from taximeter.core.bounds import MAX_COST_NUSD
from taximeter.core.modalities import Modalities, modalities
from taximeter.core.record import Operation, Outcome, Record

PICO_PER_NANO = 1_000
_MS = 1_000
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
    SIZE_WITHOUT_PRICE = "size_without_price"
    """The model is priced by the size and quality of what it makes, and not in this one."""
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
    image_generation: int | None = None
    """pico-USD per image that another model made as a tool of this one."""
    image: int | None = None
    """pico-USD per image made."""
    character: int | None = None
    """pico-USD per character spoken."""
    page: int | None = None
    """pico-USD per page of a document."""
    annotated_page: int | None = None
    """pico-USD per page that was described in a form of the client's own, instead of `page`."""
    video_second: int | None = None
    """pico-USD per second of video made."""
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


class Sized(msgspec.Struct, frozen=True, array_like=True):
    """Rates that apply to one size and quality of what a model makes."""

    sizes: tuple[str, ...]
    """Patterns with `*`, lower case; "" is a call that names none, and no patterns are any."""
    qualities: tuple[str, ...]
    """Likewise."""
    rates: Rates

    def fits(self, size: str | None, quality: str | None) -> bool:
        """Whether it is about these."""
        return _is_one(size, self.sizes) and _is_one(quality, self.qualities)


def _is_one(name: str | None, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatchcase((name or "").lower(), pattern) for pattern in patterns)


class Card(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The rates of one model at one time in one service tier."""

    ref: str
    """Where the rates come from; what a record keeps as `price_ref`."""
    rates: Rates
    above: tuple[tuple[int, Rates], ...] = ()
    """(input tokens, rates), ascending: these rates apply to *all* tokens once the total input exceeds the number."""
    sized: tuple[Sized, ...] = ()
    """Where there are any, the first that fits has the rates; what none fits has no price."""
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
        return None if all(figure is None for figure in figures_of(record)) else 0
    rates = rates_for(card, record)
    if rates is None:
        return None
    if card.above and record.input_tokens is not None:
        for start, higher in card.above:
            if record.input_tokens > start:
                rates = higher
    extra = told_apart(record) if rates.needs_modalities else _NO_MODALITIES
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
    pieces = _pieces_pico(rates, record)
    if pieces is None:
        return None
    pico += uses + pieces
    per = PICO_PER_NANO
    if rates.video_second is not None and record.video_seconds is not None:
        pico, per = pico * _MS + rates.video_second * round(record.video_seconds * _MS), per * _MS
    if rates.audio_hour is not None and record.seconds is not None:
        seconds = record.seconds
        if rates.min_audio_s is not None and seconds > 0:
            seconds = max(seconds, rates.min_audio_s)
        scaled = pico * _US_PER_HOUR + rates.audio_hour * round(seconds * 1_000_000) * (per // PICO_PER_NANO)
        return _rounded(scaled, _US_PER_HOUR * per)
    return _rounded(pico, per)


def figures_of(record: Record) -> tuple[float | None, ...]:
    """What may be billed of a call by itself, whatever tools it used beside."""
    return (
        record.input_tokens,
        record.output_tokens,
        record.search_units,
        record.seconds,
        record.images,
        record.input_characters,
        record.pages,
        record.video_seconds,
    )


def rates_for(card: Card, record: Record) -> Rates | None:
    """The rates for what the call made; None where the card names sizes, and not this one."""
    if not card.sized:
        return card.rates
    return next((one.rates for one in card.sized if one.fits(record.media_size, record.media_quality)), None)


def _pieces_pico(rates: Rates, record: Record) -> int | None:
    """Images, characters and pages; None where pages were annotated at a price nobody knows."""
    annotated = record.annotated_pages or 0
    pico = 0
    if rates.page is not None and record.pages is not None:
        if annotated and rates.annotated_page is None:
            return None
        pico += rates.page * max(record.pages - annotated, 0) + (rates.annotated_page or 0) * annotated
    if rates.image is not None and record.images is not None:
        pico += rates.image * record.images
    if rates.character is not None and record.input_characters is not None:
        pico += rates.character * record.input_characters
    return pico


def uses_of(rates: Rates, record: Record) -> tuple[tuple[int | None, int | None], ...]:
    """(uses, rate) of each tool of the provider's that is billed by use."""
    return (
        (record.web_search_requests, rates.web_search),
        (record.file_search_requests, rates.file_search),
        (record.code_interpreter_sessions, rates.code_interpreter),
        (record.maps_requests, rates.maps),
        (record.image_generations, rates.image_generation),
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


def told_apart(record: Record) -> Modalities:
    """Those of a call: what its record says; what it does not, as its usage object says."""
    told = modalities(record.usage)
    return Modalities(
        cached_audio_tokens=_either(record.cached_audio_input_tokens, told.cached_audio_tokens),
        cached_image_tokens=_either(record.cached_image_input_tokens, told.cached_image_tokens),
        video_input_tokens=_either(record.video_input_tokens, told.video_input_tokens),
        image_output_tokens=_either(record.image_output_tokens, told.image_output_tokens),
        video_output_tokens=_either(record.video_output_tokens, told.video_output_tokens),
        citation_tokens=told.citation_tokens,
    )


def _either(known: int | None, told: int | None) -> int | None:
    return told if known is None else known


_NO_MODALITIES = Modalities()
_DRAWS = ("images", "generate")
"""APIs whose models draw; Gemini's write too, and tell which tokens are which."""


def _rounded(amount: int, per: int) -> int:
    return min((2 * amount + per) // (2 * per), MAX_COST_NUSD)


def _charged_otherwise(rates: Rates, record: Record) -> bool:
    """By searches, time or the call itself, and that figure is known: token counts are then only informative."""
    if rates.search_unit is not None:
        return record.search_units is not None
    if rates.audio_hour is not None:
        return record.seconds is not None
    pieces = (
        (rates.image, record.images),
        (rates.character, record.input_characters),
        (rates.page, record.pages),
        (rates.video_second, record.video_seconds),
    )
    if any(rate is not None for rate, _ in pieces):
        return all(figure is not None for rate, figure in pieces if rate is not None)
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
    if rates.image_output is not None and image is None and tokens and record.api in _DRAWS:
        return None  # details are optional there: how many of the tokens were image is not told
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
