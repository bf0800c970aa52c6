"""genai-prices' list made into rate cards: asked itself at every instant where something changes. Parent process only.

Imported lazily: the package takes 41 MB.
"""

from __future__ import annotations

import datetime
import importlib.metadata
from collections.abc import Iterator
from decimal import Decimal

from genai_prices import types
from genai_prices.data import providers

from taximeter.core.prices import Card, Rates, Schedule, Span
from taximeter.pricebook.catalog import Listed, Publisher, Rule

PACKAGE = "genai-prices"

_RATES = {
    "input_mtok": ("input", 10**6),
    "cache_read_mtok": ("cached_input", 10**6),
    "cache_write_mtok": ("cache_write", 10**6),
    "cache_write_1h_mtok": ("cache_write_1h", 10**6),
    "input_audio_mtok": ("audio_input", 10**6),
    "cache_audio_read_mtok": ("cached_audio_input", 10**6),
    "input_image_mtok": ("image_input", 10**6),
    "cache_image_read_mtok": ("cached_image_input", 10**6),
    "input_video_mtok": ("video_input", 10**6),
    "output_mtok": ("output", 10**6),
    "output_reasoning_mtok": ("reasoning_output", 10**6),
    "output_audio_mtok": ("audio_output", 10**6),
    "output_image_mtok": ("image_output", 10**6),
    "output_video_mtok": ("video_output", 10**6),
    "output_citation_mtok": ("citation", 10**6),
    "requests_kcount": ("request", 10**9),
    "web_searches_kcount": ("web_search", 10**9),
    "rerank_searches_kcount": ("search_unit", 10**9),
    "storage_searches_kcount": ("file_search", 10**9),
    "input_mchars": ("character", 10**6),
    "input_document_kpages": ("page", 10**9),
    "input_annotated_document_kpages": ("annotated_page", 10**9),
    "audio_hours": ("audio_hour", 10**12),
    "input_audio_hours": ("audio_hour", 10**12),
}
"""genai-prices' key -> our rate and the factor from USD per its unit to pico-USD for one (audio stays per hour)."""

NOT_MEASURED = frozenset(
    {
        "input_text_messages_kcount",
    }
)
"""Units no record has. A model priced by them alone stays unpriced; beside other prices they are left out."""

_CONTEXTS = {"processing": {"batch"}, "service_tier": {"flex", "priority", "fast"}, "speed": {"fast"}}
"""Which request contexts are service tiers as a record reports them."""

_SHORTEST_AUDIO_S = {("groq", "whisper-large-v3"): 10, ("groq", "whisper-large-v3-turbo"): 10}
"""Groq bills at least 10 s a request; in genai-prices this is code (ModelInfo.calc_price), not data."""


def version() -> str:
    """Package and version, as in a price_ref."""
    return f"{PACKAGE}@{importlib.metadata.version(PACKAGE)}"


def publishers() -> Iterator[Publisher]:
    """Every provider's list."""
    release = importlib.metadata.version(PACKAGE)
    for provider in providers:
        models = [
            Listed(
                model=model.id,
                rule=_rule(model.match),
                tiers=_tiers(provider.id, model, release),
                context_tokens=model.context_window,
            )
            for model in provider.models
        ]
        yield Publisher(id=provider.id, models=models, instead=list(provider.fallback_model_providers or ()))


def _rule(clause: types.MatchLogic) -> Rule:
    if isinstance(clause, types.ClauseOr):
        return Rule("or", rules=tuple(map(_rule, clause.or_)))
    if isinstance(clause, types.ClauseAnd):
        return Rule("and", rules=tuple(map(_rule, clause.and_)))
    if isinstance(clause, types.ClauseRegex):
        return Rule("regex", clause.regex)
    if isinstance(clause, types.ClauseEquals):
        return Rule("equals", clause.equals.lower())
    if isinstance(clause, types.ClauseStartsWith):
        return Rule("starts_with", clause.starts_with.lower())
    if isinstance(clause, types.ClauseEndsWith):
        return Rule("ends_with", clause.ends_with.lower())
    return Rule("contains", clause.contains.lower())


def _tiers(provider: str, model: types.ModelInfo, release: str) -> dict[str, Schedule]:
    contexts: dict[str, dict[str, str]] = {"": {}}
    for variant in model.price_variants or ():
        if len(variant.when) == 1:
            ((key, value),) = variant.when.items()
            if value in _CONTEXTS.get(key, ()):
                contexts[value] = variant.when
    tiers = {}
    for tier, context in contexts.items():
        ref = f"{PACKAGE}:{provider}/{model.id}@{release}" + (f"#{tier}" if tier else "")
        schedule = _schedule(provider, model, context, ref)
        if any(card is not None for span in schedule for card in span.cards):
            tiers[tier] = schedule
    return tiers


def _schedule(provider: str, model: types.ModelInfo, context: dict[str, str], ref: str) -> Schedule:
    constraints = [entry.constraint for entry in model.prices] if isinstance(model.prices, list) else []
    constraints += [variant.constraint for variant in model.price_variants or () if variant.when == context]
    days = {entry.start_date for entry in constraints if isinstance(entry, types.StartDateConstraint)}
    starts = {0}
    for entry in constraints:
        if isinstance(entry, types.TimeOfDateConstraint):
            starts |= {_second(entry.start_time), _second(entry.end_time)}
    spans: list[Span] = []
    for day in [datetime.date(1970, 1, 1), *sorted(days)]:
        begins = datetime.datetime.combine(day, datetime.time(), datetime.UTC)
        cards = tuple(
            _card(provider, model, begins + datetime.timedelta(seconds=start), context, ref) for start in sorted(starts)
        )
        span = Span(from_us=int(begins.timestamp()) * 1_000_000, cards=cards, starts_s=tuple(sorted(starts)))
        if not spans or spans[-1].cards != span.cards:
            spans.append(span)
    return tuple(spans)


def _second(time: datetime.time) -> int:
    """Second of the UTC day; a time without a zone is UTC."""
    zoned = time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
    utc = datetime.datetime.combine(datetime.date(1970, 1, 2), zoned).astimezone(datetime.UTC)
    return utc.hour * 3600 + utc.minute * 60 + utc.second


def _card(
    provider: str, model: types.ModelInfo, at: datetime.datetime, context: dict[str, str], ref: str
) -> Card | None:
    if context and not any(
        variant.when == context and (variant.constraint is None or variant.constraint.active(at))
        for variant in model.price_variants or ()
    ):
        return None  # the tier was not offered yet
    prices = {key: value for key, value in model.get_prices(at, context).__dict__.items() if value is not None}
    known = {key: value for key, value in prices.items() if key in _RATES}
    if not known:
        return None
    shortest = _SHORTEST_AUDIO_S.get((provider, model.id))
    tiered = [price for price in known.values() if isinstance(price, types.TieredPrices)]
    starts = sorted({tier.start for price in tiered for tier in price.tiers})
    return Card(
        ref=ref,
        rates=_rates(known, 0, shortest),
        above=tuple((start, _rates(known, start + 1, shortest)) for start in starts),
    )


def _rates(prices: dict[str, Decimal | types.TieredPrices], input_tokens: int, min_audio_s: int | None) -> Rates:
    figures: dict[str, int] = {}
    for key, price in prices.items():
        if isinstance(price, types.TieredPrices):
            usd = price.base
            for tier in price.tiers:
                if input_tokens > tier.start:
                    usd = tier.price
        else:
            usd = price
        name, factor = _RATES[key]
        figures[name] = round(usd * factor)
    return Rates(**figures, min_audio_s=min_audio_s)
