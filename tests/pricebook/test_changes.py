"""What a price depends on beside model and tier: regions, speed, fees by use; and why a call has no price."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.config import Settings
from taximeter.core.dearest import Most
from taximeter.core.errors import ConfigError
from taximeter.core.prices import Card, Rates, Span, Why, card_at
from taximeter.core.record import IMPOSSIBLE, IN_PART, Open, Operation, Outcome, Record
from taximeter.pricebook import Beforehand, PriceBook, compile_prices
from taximeter.pricebook.changes import Region, in_region
from taximeter.pricebook.listed import read_prices

NOW_US = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1_000_000)
OWN = """
[[price]]
provider = "google"
model = "claude-opus-5"
from = 2026-10-01
input_usd_per_mtok = 1
output_usd_per_mtok = 1
source = "contract"
[[region]]
provider = "google"
model = "gemini-3*"
region = "europe-west4"
from = 2026-01-01
percent = 120
source = "a test"
[[fee]]
provider = "openai"
model = "gpt-5*"
from = 2026-01-01
code_interpreter_sessions_usd_per_1k = 30
source = "a test"
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    """Shipped and list prices."""
    return _book(tmp_path_factory.mktemp("prices"), "")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    return _book(tmp_path_factory.mktemp("prices"), OWN)


def _book(folder: Path, own: str) -> PriceBook:
    file = folder / "prices.toml"
    file.write_text(own)
    compile_prices(Settings(prices_file=str(file)), folder / "compiled.json", {})
    return PriceBook.load(folder / "compiled.json")


def call(provider: str, model: str, **more: Any) -> Record:
    figures: dict[str, Any] = {"input_tokens": 1_000_000, "output_tokens": 0, "ended_at": NOW_US}
    return Record(
        request_id="r",
        started_at=0,
        workspace="w",
        upstream="u",
        provider=provider,
        api="chat",
        request_model=model,
        response_model=model,
        **{"operation": Operation.LLM, "outcome": Outcome.OK, **figures, **more},
    )


def usd(book: PriceBook, record: Record) -> float | None:
    nusd, ref = book.cost(record)
    assert (nusd is None) == (ref is None)
    return None if nusd is None else nusd / 10**9


@pytest.mark.parametrize(
    ("provider", "model", "region", "times"),
    [
        ("anthropic", "claude-opus-4-8", "us", 1.1),
        ("anthropic", "claude-opus-4-8", "global", 1),
        ("anthropic", "claude-opus-4-8", "not_available", 1),
        ("anthropic", "claude-opus-4-8", "mars", None),
        ("vertex", "claude-opus-5", "us-east5", 1.1),
        ("vertex", "claude-opus-5", "eu", 1.1),
        ("vertex", "claude-opus-5", "global", 1),
        ("vertex", "gemini-2.5-flash", "europe-west4", 1),
        ("vertex", "gemini-3-flash-preview", "europe-west4", 1.1),
        ("openai", "gpt-5", "eu", 1),
        ("openai", "gpt-5.4", "eu", 1.1),
        ("openai", "gpt-5.4", None, 1),
    ],
)
def test_a_region_has_its_price_or_none(
    book: PriceBook, provider: str, model: str, region: str | None, times: float | None
) -> None:
    plain = usd(book, call(provider, model))
    assert plain
    found = usd(book, call(provider, model, region=region))
    assert found == (None if times is None else pytest.approx(plain * times, rel=1e-12))
    if times is None:
        assert book.why(call(provider, model, region=region)) is Why.REGION_WITHOUT_PRICE


def test_a_regions_price_begins_on_its_day(book: PriceBook) -> None:
    days = {
        (month, day): int(datetime(2026, month, day, tzinfo=UTC).timestamp() * 1_000_000) - late
        for (month, day), late in {(6, 30): 0, (7, 1): 0}.items()
    }
    before, since = (
        usd(book, call("vertex", "gemini-3-flash-preview", region="eu", ended_at=at)) for at in days.values()
    )
    assert before
    assert since == pytest.approx(before * 1.1)


def test_an_operators_own_rules_come_first_and_an_own_price_is_what_is_paid(own: PriceBook, book: PriceBook) -> None:
    plain = usd(book, call("vertex", "gemini-3-flash-preview"))
    assert plain
    assert usd(own, call("vertex", "gemini-3-flash-preview", region="europe-west4")) == pytest.approx(plain * 1.2)
    assert usd(own, call("vertex", "gemini-3-flash-preview", region="us-east1")) == pytest.approx(plain * 1.1)
    assert usd(own, call("vertex", "claude-opus-5", region="us-east5")) == 1


def test_speed_is_priced_apart_or_not_at_all(book: PriceBook) -> None:
    costs = {
        speed: usd(book, call("anthropic", "claude-opus-4-8", speed=speed)) for speed in (None, "standard", "fast", "x")
    }
    assert costs[None] == costs["standard"]
    assert costs["fast"] == pytest.approx(2 * (costs[None] or 0))
    assert costs["x"] is None
    assert book.why(call("anthropic", "claude-opus-4-8", speed="x")) is Why.SPEED_WITHOUT_PRICE
    both = call("anthropic", "claude-opus-4-8", speed="fast", service_tier="batch")
    assert (usd(book, both), book.why(both)) == (None, Why.SPEED_WITHOUT_PRICE)


@pytest.mark.parametrize(
    ("provider", "model", "uses", "fee"),
    [
        ("openai", "gpt-5", {"web_search_requests": 2}, 0.02),
        ("openai", "gpt-5", {"file_search_requests": 4}, 0.01),
        ("openai", "gpt-5", {"code_interpreter_sessions": 1}, None),
        ("openai", "gpt-5", {"web_search_requests": 0}, 0),
        ("xai", "grok-4", {"web_search_requests": 3}, 0.015),
        ("xai", "grok-4", {"file_search_requests": 3}, None),
        ("google", "gemini-2.5-flash", {"web_search_requests": 1}, 0.035),
        ("google", "gemini-2.5-flash", {"maps_requests": 1}, None),
        ("perplexity", "sonar-deep-research", {"web_search_requests": 74}, 0.37),
        ("groq", "openai/gpt-oss-20b", {"web_search_requests": 1}, None),
        ("openai", "gpt-5", {"image_generations": 1}, None),
    ],
)
def test_a_use_of_a_tool_has_its_fee_or_the_call_has_no_cost(
    book: PriceBook, provider: str, model: str, uses: dict[str, int], fee: float | None
) -> None:
    tokens = usd(book, call(provider, model))
    assert tokens is not None
    record = call(provider, model, **uses)
    assert usd(book, record) == (None if fee is None else pytest.approx(tokens + fee))
    if fee is None:
        assert book.why(record) is Why.USE_WITHOUT_PRICE


def test_a_fee_of_ones_own_is_added_where_the_list_has_none(own: PriceBook, book: PriceBook) -> None:
    record = call("openai", "gpt-5", code_interpreter_sessions=2, web_search_requests=1)
    tokens = usd(book, call("openai", "gpt-5"))
    assert tokens
    assert usd(own, record) == pytest.approx(tokens + 0.06 + 0.01)
    assert own.cost(record)[1] == f"{book.cost(call('openai', 'gpt-5'))[1]}+fee:openai/gpt-5*@2026-01-01"


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (call("openai", "nobody-knows"), Why.MODEL_WITHOUT_PRICE),
        (call("openai", "o3", service_tier="scale"), Why.SERVICE_TIER_WITHOUT_PRICE),
        (call("bedrock", "openai.gpt-oss-20b-1:0", service_tier="flex"), Why.SERVICE_TIER_WITHOUT_PRICE),
        (call("openrouter", "openai/gpt-4o", service_tier="byok"), Why.SERVICE_TIER_WITHOUT_PRICE),
        (call("openai", "o3", input_tokens=None, output_tokens=None), Why.USAGE_UNKNOWN),
        (call("openai", "o3", output_tokens=None), Why.FIGURE_UNKNOWN),
        (call("openai", "o3", inconsistent=True), Why.USAGE_INCONSISTENT),
        (call("openai", "o3", inconsistent=True, cost_note=IMPOSSIBLE), Why.USAGE_IMPOSSIBLE),
        (call("openai", "o3", cost_note=IN_PART), Why.USE_WITHOUT_PRICE),
        (call("bedrock", "us.amazon.nova-pro-v1:0", speed="optimized"), Why.SPEED_WITHOUT_PRICE),
        (call("openai", "nobody-knows", outcome=Outcome.REFUSED), None),
        (call("openai", "nobody-knows", outcome=Outcome.UPSTREAM_ERROR), None),
        (call("openai", "o3", outcome=Outcome.TIMEOUT, input_tokens=None, output_tokens=None), Why.USAGE_UNKNOWN),
        (
            call("openai", "o3", operation=Operation.OTHER, input_tokens=None, output_tokens=None),
            None,
        ),
    ],
)
def test_a_call_without_a_cost_says_why(book: PriceBook, record: Record, why: Why | None) -> None:
    assert book.cost(record) == (None, None)
    assert book.why(record) is why


def test_a_router_in_front_of_a_model_has_a_price_of_its_own(book: PriceBook) -> None:
    routed = call("azure", "gpt-4o-mini-2024-07-18")
    assert usd(book, routed)
    routed.request_model = "model-router"
    assert (usd(book, routed), book.why(routed)) == (None, Why.MODEL_WITHOUT_PRICE)


def test_no_call_costs_more_than_its_bound_wherever_it_runs(book: PriceBook) -> None:
    opening = Open(
        request_id="r",
        started_at=NOW_US,
        workspace="w",
        upstream="u",
        provider="anthropic",
        api="messages",
        operation=Operation.LLM,
    )
    bound, priced = Beforehand(book).dearest_nusd(
        opening, ["claude-opus-4-8"], None, Most(input_tokens=1_000_000, output_tokens=0, writes_cache=False)
    )
    assert priced
    cost, _ = book.cost(call("anthropic", "claude-opus-4-8", region="us", speed="fast"))
    plain, _ = book.cost(call("anthropic", "claude-opus-4-8", region="us"))
    assert cost is None or bound >= cost
    assert plain is not None
    assert bound >= plain


@given(
    starts=st.lists(st.integers(0, 100), min_size=1, max_size=4, unique=True),
    rules=st.lists(st.tuples(st.integers(0, 100), st.integers(1, 300)), min_size=1, max_size=4),
    at=st.integers(0, 120),
)
def test_at_every_moment_the_rule_that_has_begun_last_scales_the_price_of_that_moment(
    starts: list[int], rules: list[tuple[int, int]], at: int
) -> None:
    schedule = tuple(
        Span(start, (Card(ref=str(start), rates=Rates(input=1_000 * (start + 1), request=7)),))
        for start in sorted(starts)
    )
    regions = [Region(provider="p", model="*", region="*", from_us=start, percent=percent) for start, percent in rules]
    plain, found = card_at(schedule, at), card_at(in_region(schedule, regions, ("m",), "eu"), at)
    begun = [rule for rule in rules if rule[0] <= at]
    if plain is None or not begun:
        assert found is None
        return
    last = max(start for start, _ in begun)
    percents = {percent for start, percent in begun if start == last}
    assert found is not None
    assert plain.rates.input is not None
    assert found.rates.input in {plain.rates.input * percent // 100 for percent in percents}
    assert found.rates.request == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[[region]]\nprovider = 'a'\nmodel = '*'\nregion = '*'\nfrom = 2026-01-01\npercent = 0\nsource = 's'",
            "percent",
        ),
        ("[[region]]\nprovider = 'a'\nmodel = '*'\npercent = 110", "Allowed: provider, model, region, from, percent"),
        ("[[fee]]\nprovider = 'a'\nmodel = '*'\nfrom = 2026-01-01\nweb = 1\nsource = 's'", "web_searches_usd_per_1k"),
        (
            "[[fee]]\nprovider = 'a'\nmodel = '*'\nfrom = 2026-01-01\nmaps_usd_per_1k = -1\nsource = 's'",
            "$.fee[0] (a/*): maps_usd_per_1k: -1 is not a price",
        ),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_by_place_and_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_prices(path)
    assert said in str(refused.value)
