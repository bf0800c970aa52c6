"""Images by size and quality, speech by the character, documents by the page, video by the second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taximeter.config import Settings
from taximeter.core.errors import ConfigError
from taximeter.core.prices import Why
from taximeter.core.record import Operation, Outcome, Record
from taximeter.pricebook import PriceBook, compile_prices
from taximeter.pricebook.listed import read_prices
from taximeter.pricebook.shown import card_as_dict

NOW_US = 1_790_000_000_000_000
HEAD = '[[price]]\nprovider = "p"\nmodel = "m"\nfrom = 2026-01-01\nsource = "s"\n'


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    folder = tmp_path_factory.mktemp("prices")
    (folder / "prices.toml").write_text(
        HEAD + "annotated_pages_usd_per_1k = 3\npages_usd_per_1k = 1\n"
        "[[region]]\nprovider = 'google'\nmodel = 'imagen*'\nregion = 'eu'\nfrom = 2025-01-01\npercent = 110\n"
        "source = 's'\n"
        "[[fee]]\nprovider = 'openai'\nmodel = 'dall-e-3'\nfrom = 2025-01-01\nweb_searches_usd_per_1k = 1\n"
        "source = 's'\n"
    )
    compile_prices(Settings(prices_file=str(folder / "prices.toml")), folder / "compiled.json", {})
    return PriceBook.load(folder / "compiled.json")


def call(provider: str, model: str, **members: Any) -> Record:
    return Record(
        request_id="r", started_at=NOW_US, ended_at=NOW_US, workspace="w", upstream="u", provider=provider,
        api="images", operation=Operation.OTHER, response_model=model, outcome=Outcome.OK, **members,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "model", "made", "usd"),
    [
        ("openai", "dall-e-3", {"images": 1}, "0.04"),
        ("openai", "dall-e-3", {"images": 2, "media_size": "1024x1792", "media_quality": "HD"}, "0.24"),
        ("openai", "dall-e-3", {"images": 1, "media_size": "1024x1792", "web_search_requests": 1}, "0.081"),
        ("openai", "dall-e-2", {"images": 3, "media_size": "256x256"}, "0.048"),
        ("google", "imagen-4.0-ultra-generate-001", {"images": 2}, "0.12"),
        ("vertex", "imagen-4.0-generate-001", {"images": 1, "region": "eu"}, "0.04"),
        ("openai", "sora-2", {"video_seconds": 8.0, "media_size": "1280x720"}, "0.8"),
        ("openai", "sora-2-pro", {"video_seconds": 4.0, "media_size": "1792x1024"}, "2"),
        ("openai", "tts-1", {"input_characters": 1_000}, "0.015"),
        ("openai", "tts-1-hd", {"input_characters": 1}, "0.00003"),
        ("mistral", "mistral-ocr-2512", {"pages": 3}, "0.006"),
        ("mistral", "mistral-ocr-2512", {"pages": 3, "annotated_pages": 3}, "0.009"),
        ("p", "m", {"pages": 3, "annotated_pages": 1}, "0.005"),
        ("openai", "dall-e-3", {"images": 0}, "0"),
    ],
)
def test_each_piece_has_its_price(book: PriceBook, provider: str, model: str, made: dict[str, Any], usd: str) -> None:
    cost, ref = book.cost(call(provider, model, **made))
    assert (cost, ref is not None) == (round(float(usd) * 10**9), True)


@pytest.mark.parametrize(
    ("model", "size", "usd"),
    [("sonar", "low", "0.00515"), ("sonar-pro", "medium", "0.01213"), ("sonar-reasoning-pro", "high", "0.01514")],
)
def test_perplexitys_fee_depends_on_its_search_context(book: PriceBook, model: str, size: str, usd: str) -> None:
    used = call("perplexity", model, input_tokens=10, output_tokens=140, media_size=size)
    used.api, used.operation = "chat", Operation.LLM
    assert book.cost(used)[0] == round(float(usd) * 10**9)
    used.media_size = None
    assert (book.cost(used)[0], book.why(used)) == (None, Why.SIZE_WITHOUT_PRICE)


def test_what_hears_and_speaks_is_not_priced_as_text(book: PriceBook) -> None:
    said = call(
        "openai",
        "gpt-4o-audio-preview",
        input_tokens=100,
        audio_input_tokens=40,
        output_tokens=60,
        audio_output_tokens=50,
    )
    said.api, said.operation = "chat", Operation.LLM
    assert book.cost(said)[0] == 60 * 2_500 + 40 * 40_000 + 10 * 10_000 + 50 * 80_000


@pytest.mark.parametrize(
    ("provider", "model", "made", "why"),
    [
        ("openai", "dall-e-3", {"images": 1, "media_size": "512x512"}, Why.SIZE_WITHOUT_PRICE),
        ("openai", "dall-e-3", {"images": 1, "media_quality": "auto"}, Why.SIZE_WITHOUT_PRICE),
        ("openai", "sora-2", {"video_seconds": 8.0, "media_size": "1792x1024"}, Why.SIZE_WITHOUT_PRICE),
        ("openai", "dall-e-3", {"video_seconds": 1.0}, Why.FIGURE_UNKNOWN),
        ("openai", "gpt-4o-mini-tts", {"input_characters": 100}, Why.FIGURE_UNKNOWN),  # it is billed by tokens
        ("venice", "flux", {"images": 1}, Why.MODEL_WITHOUT_PRICE),
        ("openai", "dall-e-3", {}, Why.USAGE_UNKNOWN),
        ("mistral", "mistral-ocr-2503", {"pages": 3, "annotated_pages": 3}, Why.FIGURE_UNKNOWN),
    ],
)
def test_what_has_no_price_says_why(book: PriceBook, provider: str, model: str, made: dict[str, Any], why: Why) -> None:
    record = call(provider, model, **made)
    assert (book.cost(record), book.why(record)) == ((None, None), why)


def test_a_card_shows_its_sizes(book: PriceBook) -> None:
    card = book.find(call("openai", "dall-e-2"))
    assert card is not None
    shown = card_as_dict(card)["sized"]
    assert isinstance(shown, list)
    assert shown[2]["sizes"] == ["256x256"]
    assert (shown[2]["images_usd_per_1k"], shown[2]["qualities"]) == (16, [])


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("[[price.sized]]\nsizes = ['1x1']\n", "sized: an entry needs a price"),
        ("[[price.sized]]\nimages_usd_per_1k = 1\n", "sizes or qualities"),
        ("[[price.sized]]\nsize = '1x1'\nimages_usd_per_1k = 1\n", "Allowed: "),
        ("[[price.sized]]\nsizes = [1]\nimages_usd_per_1k = 1\n", "qualities"),
        ("free = true\n[[price.sized]]\nsizes = ['1x1']\nimages_usd_per_1k = 1\n", "exactly one"),
        ("characters_usd_per_1m = -1\n", "is not a price"),
    ],
)
def test_a_bad_entry_says_what_is_wrong(tmp_path: Path, entry: str, says: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(HEAD + entry)
    with pytest.raises(ConfigError, match=says):
        read_prices(file)
