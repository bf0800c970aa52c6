"""The compiled cards against genai-prices' own arithmetic: every provider, model, tier and time it has a rate for."""

from __future__ import annotations

import datetime
import itertools
from decimal import Decimal
from typing import Any, cast

import msgspec
import pytest
from genai_prices import types
from genai_prices.data import providers

from taximeter.core.prices import Card, card_at, cost_nusd
from taximeter.core.record import Operation, Outcome, Record
from taximeter.pricebook import genai
from taximeter.pricebook.book import PriceBook
from taximeter.pricebook.catalog import Catalog, Publisher

PUBLISHERS = {publisher.id: publisher for publisher in genai.publishers()}
CONTEXTS = {
    "": {},
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}
TIMES = [
    datetime.datetime(year, month, day, hour, minute, 30, tzinfo=datetime.UTC)
    for (year, month, day), (hour, minute) in itertools.product(
        [(2023, 6, 1), (2025, 2, 9), (2025, 10, 1), (2026, 5, 1), (2026, 11, 22)], [(0, 0), (3, 30), (8, 15), (17, 0)]
    )
]
SAMPLES: list[dict[str, int | float]] = [
    {"input_tokens": 1_000, "output_tokens": 300},
    {"input_tokens": 901_234, "cached_input_tokens": 500_001, "output_tokens": 77},
    {
        "input_tokens": 40_000,
        "cached_input_tokens": 3_000,
        "cache_write_input_tokens": 20_000,
        "cache_write_input_tokens_1h": 7_000,
        "output_tokens": 1_234,
        "reasoning_output_tokens": 1_000,
        "web_search_requests": 3,
    },
    {"input_tokens": 5_000, "audio_input_tokens": 4_000, "output_tokens": 900, "audio_output_tokens": 700},
    {"input_tokens": 5_000, "image_input_tokens": 4_000, "output_tokens": 900},
    {"seconds": 3.4},
    {"seconds": 7_261.25},
    {"input_characters": 4_001},
    {"pages": 12, "annotated_pages": 0},
    {"pages": 12, "annotated_pages": 12},
]
GENAI_NAMES = {
    "input_tokens": "input_tokens",
    "cached_input_tokens": "cache_read_tokens",
    "cache_write_input_tokens": "cache_write_tokens",
    "cache_write_input_tokens_1h": "cache_write_1h_tokens",
    "audio_input_tokens": "input_audio_tokens",
    "image_input_tokens": "input_image_tokens",
    "output_tokens": "output_tokens",
    "reasoning_output_tokens": "output_reasoning_tokens",
    "audio_output_tokens": "output_audio_tokens",
    "web_search_requests": "web_searches",
    "input_characters": "input_characters",
    "pages": "input_document_pages",
    "annotated_pages": "input_annotated_document_pages",
}


def genai_usage(sample: dict[str, int | float], prices: types.ModelPrice) -> types.Usage:
    """The sample in genai-prices' names; where it demands an explicit overlap (cached audio), there is none."""
    usage: dict[str, Any] = {GENAI_NAMES[name]: value for name, value in sample.items() if name in GENAI_NAMES}
    if "seconds" in sample:
        usage |= {
            "audio_seconds": Decimal(str(sample["seconds"])),
            "input_audio_seconds": Decimal(str(sample["seconds"])),
        }
    for key, name in (
        ("cache_audio_read_mtok", "cache_audio_read_tokens"),
        ("cache_image_read_mtok", "cache_image_read_tokens"),
    ):
        if getattr(prices, key) is not None:
            usage[name] = 0
    return types.Usage(**usage)


def known(card: Card, sample: dict[str, int | float]) -> bool:
    """The card has a rate for what was used: elsewhere genai-prices charges nothing where the cost is unknown."""
    if "input_characters" in sample:
        return card.rates.character is not None
    if "pages" in sample:
        return (card.rates.annotated_page if sample["annotated_pages"] else card.rates.page) is not None
    if "seconds" in sample:
        return card.rates.audio_hour is not None
    if "web_search_requests" in sample and card.rates.web_search is None and card.rates.request is None:
        return False
    return card.rates.input is not None and card.rates.output is not None


def inexact_rates(prices: types.ModelPrice) -> list[Decimal]:
    """Rates that are no whole number of pico-USD."""
    found = []
    for key, price in prices.__dict__.items():
        if key in genai._RATES and price is not None:
            steps = [price] if isinstance(price, Decimal) else [price.base, *(tier.price for tier in price.tiers)]
            found += [usd for usd in steps if usd * genai._RATES[key][1] % 1]
    return found


def allowed_nusd(prices: types.ModelPrice, sample: dict[str, int | float]) -> Decimal:
    """One rounding; where a rate itself is no whole number of pico-USD, half a pico-USD a token more."""
    tokens = sum(value for name, value in sample.items() if name.endswith(("tokens", "1h")))
    return Decimal("0.5") + (Decimal(tokens) * Decimal("0.0005") if inexact_rates(prices) else 0)


@pytest.mark.parametrize("provider", providers, ids=lambda provider: provider.id)
def test_cards_cost_what_genai_prices_says(provider: types.Provider) -> None:
    compared = 0
    for model, listed in zip(provider.models, PUBLISHERS[provider.id].models, strict=True):
        times = TIMES if isinstance(model.prices, list) or model.price_variants else TIMES[-1:]
        for (tier, context), at in itertools.product(CONTEXTS.items(), times):
            if tier not in listed.tiers:
                continue
            at_us = int(at.timestamp() * 1_000_000)
            card = card_at(listed.tiers[tier], at_us)
            if card is None:
                continue
            prices = model.get_prices(at, context)
            for sample in SAMPLES:
                if not known(card, sample):
                    continue
                record = Record(
                    request_id="r",
                    started_at=0,
                    ended_at=at_us,
                    workspace="w",
                    upstream="u",
                    provider=provider.id,
                    api="chat",
                    operation=Operation.LLM,
                    outcome=Outcome.OK,
                    **cast(dict[str, Any], sample),
                )
                asked = model.calc_price(
                    genai_usage(sample, prices), provider, genai_request_timestamp=at, price_context=context
                )
                found = cost_nusd(card, record)
                assert found is not None, (model.id, tier, at, sample)
                assert abs(found - asked.total_price * 10**9) <= allowed_nusd(prices, sample), (
                    model.id,
                    tier,
                    at,
                    sample,
                )
                compared += 1
    assert compared or not any(
        known(card, sample)
        for listed in PUBLISHERS[provider.id].models
        for schedule in listed.tiers.values()
        for span in schedule
        for card in span.cards
        if card is not None
        for sample in SAMPLES
    )


def test_all_but_a_few_list_prices_are_exact_in_pico_usd() -> None:
    inexact = {
        usd
        for provider in providers
        for model in provider.models
        for prices in ([each.prices for each in model.prices] if isinstance(model.prices, list) else [model.prices])
        for usd in inexact_rates(prices)
    }
    # What is left is 1/12 and 1/24 USD in full (OpenRouter's cache writes) and floats gone astray (Hugging Face's).
    twelfth = Decimal(1) / 12
    assert all(
        min(abs(usd - twelfth), abs(usd - twelfth / 2), abs(usd - round(usd, 6))) < Decimal("1e-14") for usd in inexact
    )


def test_every_unit_is_priced_or_left_out_knowingly() -> None:
    used = {
        key
        for provider in providers
        for model in provider.models
        for entry in (model.prices if isinstance(model.prices, list) else [model])
        for key in entry.prices.__dict__
    }
    assert used <= genai._RATES.keys() | genai.NOT_MEASURED


def exact_names(publisher: Publisher) -> set[str]:
    names = {model.model.lower() for model in publisher.models}
    for model in publisher.models:
        names.update((model.rule.exact() if model.rule else None) or ())
    return names


@pytest.mark.parametrize("provider", providers, ids=lambda provider: provider.id)
def test_names_find_the_model_that_genai_prices_finds(provider: types.Provider) -> None:
    book = PriceBook(Catalog(compiled_at=0, source="test", publishers=list(PUBLISHERS.values())))
    names = exact_names(PUBLISHERS[provider.id])
    for other in provider.fallback_model_providers or ():
        names |= exact_names(PUBLISHERS[other])
    at = TIMES[-1]
    for name in sorted(names):
        expected = provider.find_model(name, all_providers=providers)
        schedule = book.lists._listed(provider.id, name, "")
        card = None if schedule is None else card_at(schedule, int(at.timestamp() * 1_000_000))
        if card is None:
            assert expected is None or not any(
                key in genai._RATES and value is not None for key, value in expected.get_prices(at).__dict__.items()
            )
        else:
            assert expected is not None
            assert card.ref.split("/", 1)[1] == f"{expected.id}@{genai.version().partition('@')[2]}", name


def test_compiled_lists_survive_the_file() -> None:
    catalog = Catalog(compiled_at=1, source=genai.version(), publishers=list(PUBLISHERS.values()))
    assert msgspec.json.decode(msgspec.json.encode(catalog), type=Catalog) == catalog
