"""What a price depends on beside model and tier: the region a model ran in, and fees by use. Pure.

Both stand in price files (`[[region]]`, `[[fee]]`), as list prices do not carry them, and change the cards of list
prices. What an operator states as a model's own price is what is paid, and stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

import msgspec
from msgspec.structs import replace

from taximeter.core.prices import Card, Rates, Schedule, Sized, Span

ANYWHERE = frozenset(("", "global", "not_available"))
"""Regions told that mean the list price."""
_PER_CENT = 100
_NO_TOKENS = frozenset((
    "request", "search_unit", "web_search", "file_search", "code_interpreter", "maps", "image_generation", "image",
    "character", "page", "annotated_page", "video_second", "audio_hour", "min_audio_s",
))  # fmt: skip
"""Rates that a region leaves as they are."""


class Region(msgspec.Struct, frozen=True, kw_only=True):
    """From an instant on tokens of these models cost so much of the list price in these regions."""

    provider: str
    model: str
    """A pattern, lower case."""
    region: str
    """Likewise."""
    from_us: int
    percent: int
    """110: a tenth more."""


class Fee(msgspec.Struct, frozen=True, kw_only=True):
    """From an instant on these uses of the provider's tools cost so much, where the model's card does not say."""

    provider: str
    model: str
    from_us: int
    rates: Rates
    ref: str


def with_fees(schedule: Schedule, fees: Iterable[Fee], names: Sequence[str]) -> Schedule:
    """The schedule with the fees of the first entry that matches, where a card has none of its own."""
    mine = [fee for fee in fees if _matches(fee.model, names)]
    for fee in sorted(mine, key=lambda fee: fee.from_us, reverse=True):
        added = {name: rate for name in Rates.__struct_fields__ if (rate := getattr(fee.rates, name)) is not None}

        def cards(card: Card, added: dict[str, int] = added, ref: str = fee.ref) -> Card:
            missing = {name: rate for name, rate in added.items() if getattr(card.rates, name) is None}
            if not missing or card.free or card.same_as is not None:
                return card
            above = tuple((start, replace(rates, **missing)) for start, rates in card.above)
            sized = tuple(Sized(one.sizes, one.qualities, replace(one.rates, **missing)) for one in card.sized)
            rates = replace(card.rates, **missing)
            return replace(card, rates=rates, above=above, sized=sized, ref=f"{card.ref}+{ref}")

        schedule = _from(schedule, fee.from_us, cards)
    return schedule


def in_region(schedule: Schedule, rules: Iterable[Region], names: Sequence[str], region: str) -> Schedule:
    """The schedule as it is in a region: of the rules that match, the last that has begun counts; without one there is
    no price."""
    mine = [rule for rule in rules if fnmatchcase(region, rule.region) and _matches(rule.model, names)]
    model = next((rule.model for rule in mine), "")  # the first that matches, with all its dates
    begun = sorted((rule for rule in mine if rule.model == model), key=lambda rule: rule.from_us)
    if not begun:
        return ()
    whole = schedule
    parts: list[Span] = []
    for number, rule in enumerate(begun):
        until_us = begun[number + 1].from_us if number + 1 < len(begun) else None
        scaled = _from(whole, rule.from_us, _scaling(rule.percent, region))
        parts += [
            span for span in scaled if (span.from_us >= rule.from_us) and (until_us is None or span.from_us < until_us)
        ]
    return tuple(parts)


def _scaling(percent: int, region: str) -> Callable[[Card], Card]:
    def card(card: Card) -> Card:
        if percent == _PER_CENT:
            return card
        above = tuple((start, _scaled(rates, percent)) for start, rates in card.above)
        ref = f"{card.ref}*{percent}%@{region}"
        sized = tuple(Sized(one.sizes, one.qualities, _scaled(one.rates, percent)) for one in card.sized)
        return replace(card, rates=_scaled(card.rates, percent), above=above, sized=sized, ref=ref)

    return card


def _scaled(rates: Rates, percent: int) -> Rates:
    figures = {
        name: (2 * rate * percent + _PER_CENT) // (2 * _PER_CENT)
        for name in Rates.__struct_fields__
        if name not in _NO_TOKENS and (rate := getattr(rates, name)) is not None
    }
    return replace(rates, **figures)


def _from(schedule: Schedule, from_us: int, change: Callable[[Card], Card]) -> Schedule:
    """The schedule with its cards changed from an instant on."""
    spans: list[Span] = []
    for number, span in enumerate(schedule):
        ends_us = schedule[number + 1].from_us if number + 1 < len(schedule) else None
        changed = tuple(None if card is None else change(card) for card in span.cards)
        if span.from_us >= from_us:
            spans.append(Span(span.from_us, changed, span.starts_s))
        elif ends_us is not None and ends_us <= from_us:
            spans.append(span)
        else:
            spans += (span, Span(from_us, changed, span.starts_s))
    return tuple(spans)


def _matches(pattern: str, names: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)
