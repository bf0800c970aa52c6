"""prices.toml: what it says is what is charged, and what it must not say is refused by place and name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from taximeter.core.errors import ConfigError
from taximeter.core.prices import Card, Rates, card_at
from taximeter.pricebook.listed import read_prices


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "prices.toml"
    path.write_text(text, "utf-8")
    return path


def us(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp() * 1_000_000)  # type: ignore[misc, arg-type]


HEAD = '[[price]]\nprovider = "xai"\nmodel = "Grok-X"\nfrom = 2026-01-01\nsource = "a test"\n'


def test_every_rate_in_its_unit(tmp_path: Path) -> None:
    rates = """
        input_usd_per_mtok = 0.15
        cached_input_usd_per_mtok = 0.000001
        cache_write_usd_per_mtok = 3
        cache_write_1h_usd_per_mtok = 4
        audio_input_usd_per_mtok = 5
        image_input_usd_per_mtok = 6
        output_usd_per_mtok = 7
        reasoning_output_usd_per_mtok = 8
        audio_output_usd_per_mtok = 9
        image_output_usd_per_mtok = 10
        requests_usd_per_1k = 5
        search_units_usd_per_1k = 2.00
        web_searches_usd_per_1k = 10
        audio_usd_per_hour = 0.36
        [[price.above]]
        input_tokens = 200_000
        input_usd_per_mtok = 0.30
        [[price.above]]
        input_tokens = 100_000
        input_usd_per_mtok = 0.20
    """
    (declared,) = read_prices(written(tmp_path, HEAD + rates)).models
    base = {
        "input": 150_000,
        "cached_input": 1,
        "cache_write": 3_000_000,
        "cache_write_1h": 4_000_000,
        "audio_input": 5_000_000,
        "image_input": 6_000_000,
        "output": 7_000_000,
        "reasoning_output": 8_000_000,
        "audio_output": 9_000_000,
        "image_output": 10_000_000,
        "request": 5_000_000_000,
        "search_unit": 2_000_000_000,
        "web_search": 10_000_000_000,
        "audio_hour": 360_000_000_000,
    }
    assert (declared.provider, declared.listed.model) == ("x-ai", "grok-x")
    assert card_at(declared.listed.tiers[""], us(2026, 1, 1)) == Card(
        ref="prices.toml:x-ai/Grok-X@2026-01-01",
        rates=Rates(**base),
        above=((100_000, Rates(**base | {"input": 200_000})), (200_000, Rates(**base | {"input": 300_000}))),
    )


def test_prices_follow_each_other_by_date_tier_and_hour(tmp_path: Path) -> None:
    entries = [
        ("2026-03-01", "", "", 3),
        ("2026-01-01", "", "", 1),
        ("2026-01-01", "Flex", "", 5),
        ("2026-02-01", "", "22:00-06:00", 2),
        ("2026-03-01", "", "", 4),
    ]
    text = "".join(
        f'[[price]]\nprovider = "p"\nmodel = "m"\nfrom = {day}\nsource = "s"\nservice_tier = "{tier}"\n'
        f'hours_utc = "{hours}"\ninput_usd_per_mtok = {usd}\n'
        for day, tier, hours, usd in entries
    )
    (declared,) = read_prices(written(tmp_path, text)).models

    def usd_at(at: int, tier: str = "") -> int | None:
        card = card_at(declared.listed.tiers[tier], at)
        return None if card is None or card.rates.input is None else card.rates.input // 1_000_000

    assert usd_at(us(2025, 12, 31, 23, 59)) is None
    assert usd_at(us(2026, 1, 1)) == 1
    assert [usd_at(us(2026, 2, 9, hour)) for hour in (0, 5, 6, 21, 22)] == [2, 2, 1, 1, 2]
    assert usd_at(us(2026, 3, 1, 23)) == 4  # the later entry of the file corrects the earlier of the same day
    assert usd_at(us(2026, 1, 1), "flex") == 5


def test_exact_names_go_before_patterns_and_longer_patterns_first(tmp_path: Path) -> None:
    text = "".join(
        f'[[price]]\nprovider = "p"\nmodel = "{model}"\nfrom = 2026-01-01\nsource = "s"\nfree = true\n'
        for model in ("*", "llama3*", "llama3:8b")
    )
    assert [entry.listed.model for entry in read_prices(written(tmp_path, text)).models] == [
        "llama3:8b",
        "llama3*",
        "*",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[price]\n", "not TOML"),
        ("[prices]\n", "[[price]], [[region]], [[fee]] and [[local]] entries only"),
        ("price = 3\n", "$.price"),
        (HEAD + "input_per_mtok = 1", "unknown field `input_per_mtok`"),
        (HEAD + "input_per_mtok = 1", "Allowed: input_usd_per_mtok, cached_input_usd_per_mtok"),
        (HEAD + "[[price.above]]\ninput_usd_per_mtok = 1", "input_tokens"),
        (HEAD.replace("from = 2026-01-01\n", "") + "free = true", "from"),
        (HEAD.replace("2026-01-01", "'soon'") + "free = true", "$.price[0].from"),
        (HEAD + "input_usd_per_mtok = true", "$.price[0].input_usd_per_mtok"),
        (HEAD + "input_usd_per_mtok = -1", "$.price[0] (xai/Grok-X): input_usd_per_mtok: -1"),
        (HEAD + "input_usd_per_mtok = inf", "is not a price"),
        (HEAD + "input_usd_per_mtok = nan", "is not a price"),
        (HEAD + "input_usd_per_mtok = 0.0000001", "more decimals"),
        (HEAD, "exactly one of these must be given"),
        (HEAD + "free = true\ninput_usd_per_mtok = 1", "exactly one of these must be given"),
        (HEAD + 'same_as = "gpt-4o"', "is not provider/model"),
        (HEAD + 'hours_utc = "25:00-26:00"\ninput_usd_per_mtok = 1', "is not a part of the day"),
        (HEAD.replace("a test", " ") + "free = true", "source must say"),
    ],
)
def test_what_cannot_be_used_is_refused_by_place_and_name(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        read_prices(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_prices(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_prices(tmp_path / "latin.toml")
