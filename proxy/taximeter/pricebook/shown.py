"""Cards as people and APIs see them: plain dictionaries, rates in USD as they are published."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from taximeter.core.prices import Card, Rates, Span
from taximeter.pricebook.catalog import Listed

_UNITS = {
    "request": ("requests_usd_per_1k", 10**9),
    "search_unit": ("search_units_usd_per_1k", 10**9),
    "web_search": ("web_searches_usd_per_1k", 10**9),
    "file_search": ("file_searches_usd_per_1k", 10**9),
    "code_interpreter": ("code_interpreter_sessions_usd_per_1k", 10**9),
    "maps": ("maps_usd_per_1k", 10**9),
    "image_generation": ("image_generations_usd_per_1k", 10**9),
    "image": ("images_usd_per_1k", 10**9),
    "character": ("characters_usd_per_1m", 10**6),
    "page": ("pages_usd_per_1k", 10**9),
    "annotated_page": ("annotated_pages_usd_per_1k", 10**9),
    "video_second": ("video_usd_per_second", 10**12),
    "audio_hour": ("audio_usd_per_hour", 10**12),
    "min_audio_s": ("min_audio_s", 1),
}
"""Rates that are not per token; the names are those of prices.toml."""
_PER_MTOK = 10**6


def card_as_dict(card: Card) -> dict[str, object]:
    """{"price_ref", rates in USD …, "above": [{"input_tokens", rates …}], "sized", "free",
    "same_as"}; only what is set."""
    shown: dict[str, object] = {"price_ref": card.ref, **_rates(card.rates)}
    if card.above:
        shown["above"] = [{"input_tokens": start, **_rates(rates)} for start, rates in card.above]
    if card.sized:
        shown["sized"] = [
            {"sizes": list(one.sizes), "qualities": list(one.qualities), **_rates(one.rates)} for one in card.sized
        ]
    if card.free:
        shown["free"] = True
    if card.same_as is not None:
        shown["same_as"] = "/".join(card.same_as)
    return shown


def listed_as_dicts(provider: str, listed: Listed) -> Iterator[dict[str, object]]:
    """One dictionary for each card of a model: provider, model, service_tier, from, hours_utc and the card."""
    for tier, schedule in listed.tiers.items():
        for span in schedule:
            for number, card in enumerate(span.cards):
                if card is not None:
                    yield {
                        "provider": provider,
                        "model": listed.model,
                        "service_tier": tier or None,
                        "from": _day(span.from_us),
                        "hours_utc": _hours(span, number),
                        **card_as_dict(card),
                    }


def _rates(rates: Rates) -> dict[str, object]:
    shown: dict[str, object] = {}
    for name in rates.__struct_fields__:
        figure = getattr(rates, name)
        if figure is not None:
            key, per = _UNITS.get(name, (f"{name}_usd_per_mtok", _PER_MTOK))
            shown[key] = figure / per
    return shown


def _day(us: int) -> str | None:
    """First UTC day; None: always."""
    return datetime.datetime.fromtimestamp(us / 1_000_000, datetime.UTC).date().isoformat() if us else None


def _hours(span: Span, number: int) -> str | None:
    if len(span.cards) == 1:
        return None
    ends = [*span.starts_s[1:], 86_400]
    return f"{_clock(span.starts_s[number])}-{_clock(ends[number])}"


def _clock(second: int) -> str:
    return f"{second // 3600:02}:{second % 3600 // 60:02}"
