"""Which price a call gets: the order of sources, the served model, the moment, the tier, and when there is none."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from taximeter.config import Settings
from taximeter.core.record import IMPOSSIBLE, Operation, Outcome, Record
from taximeter.pricebook import PriceBook, book, compile_prices, unpriced
from taximeter.pricebook.catalog import Catalog
from taximeter.pricebook.shown import card_as_dict

ENV = {
    "LIGHTRAG_LLM_PRICE_PER_1K_INPUT": "0.001",
    "LIGHTRAG_LLM_PRICE_PER_1K_OUTPUT": "0.002",
    "LIGHTRAG_EMBEDDING_PRICE_PER_1K": "0.0001",
}
OWN = """
[[price]]
provider = "openai"
model = "gpt-4o-mini-2024-07-18"
from = 2026-06-01
input_usd_per_mtok = 1
output_usd_per_mtok = 1
source = "contract"
[[price]]
provider = "azure"
model = "our-deployment"
from = 2026-01-01
same_as = "openai/gpt-4o"
source = "our deployment"
[[price]]
provider = "litellm"
model = "*"
from = 2026-01-01
same_as = "openai/*"
source = "our gateway serves OpenAI only"
[[price]]
provider = "ollama"
model = "llama3*"
from = 2026-01-01
free = true
source = "our hardware"
"""


def at(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp() * 1_000_000)  # type: ignore[misc, arg-type]


def call(provider: str = "openai", asked: str | None = None, answered: str | None = None, **more: object) -> Record:
    figures: dict[str, object] = {"input_tokens": 1_000_000, "output_tokens": 0, "ended_at": at(2026, 11, 20)}
    return Record(
        request_id="r",
        started_at=0,
        workspace="w",
        upstream=provider,
        provider=provider,
        api="chat",
        request_model=asked,
        response_model=answered,
        **{"operation": Operation.LLM, "outcome": Outcome.OK, **figures, **more},  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PriceBook]:
    """`lists`: genai-prices alone; `own`: prices.toml over it; `all`: the environment between them."""
    directory = tmp_path_factory.mktemp("prices")
    (directory / "none.toml").touch()
    (directory / "own.toml").write_text(OWN)
    made = {}
    for name, file, environ in (("lists", "none.toml", {}), ("own", "own.toml", {}), ("all", "own.toml", ENV)):
        compile_prices(Settings(prices_file=str(directory / file)), directory / name, environ)
        made[name] = PriceBook.load(directory / name)
    return made


def usd_per_mtok(cost: tuple[int | None, str | None]) -> float | None:
    return None if cost[0] is None else cost[0] / 10**9


@pytest.mark.parametrize(
    ("provider", "asked", "answered", "usd"),
    [
        ("openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18", 0.15),
        ("openai", "my-alias", "gpt-4o-mini", 0.15),
        ("openai", "gpt-4o-mini", None, 0.15),
        ("openai", "openai/gpt-4o-mini", None, 0.15),
        ("openai", None, "gpt-3.5-turbo-instruct:20230824-v2", 1.5),
        ("openrouter", None, "openai/gpt-4o-mini", 0.15),
        ("azure", "deployment", "gpt-4o-mini-2024-07-18", 0.15),
        ("azure", "text-embedding-ada-002", "ada", 0.1),
        ("gemini", "models/gemini-2.5-flash", None, 0.3),
        ("vertex", "x", "projects/p/locations/l/publishers/google/models/gemini-2.5-flash", 0.3),
        ("vertex", None, "claude-3-7-sonnet-20250219", 3.0),
        ("anthropic", "claude-3-5-haiku-latest", "claude-3-5-haiku-20241022", 0.8),
        ("bedrock", "us.amazon.nova-lite-v1:0", None, 0.06),
        ("bedrock", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5-20250929", 3.0),
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5-20250929", 3.3),
        ("mistral", "mistral-embed", "mistral-embed", 0.1),
    ],
)
def test_list_prices_of_names_as_providers_spell_them(
    books: dict[str, PriceBook], provider: str, asked: str | None, answered: str | None, usd: float
) -> None:
    assert usd_per_mtok(books["lists"].cost(call(provider, asked, answered))) == usd


@pytest.mark.parametrize(
    ("provider", "asked", "answered"),
    [
        ("openai", "gpt-4o-mini", "gpt-99-unheard-of"),  # the served model is not the one asked for: no guess
        ("azure", "gpt-4o", None),  # a deployment may be called anything
        ("litellm", "gpt-4o", "gpt-4o"),  # a gateway has no list
        ("vllm", "meta-llama/Llama-3", "meta-llama/Llama-3"),
        ("", "gpt-4o", "gpt-4o"),
        ("openai", None, None),
        ("bedrock", "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc", "claude-sonnet-4-5-20250929"),
    ],
)
def test_where_the_price_would_be_a_guess_there_is_none(
    books: dict[str, PriceBook], provider: str, asked: str | None, answered: str | None
) -> None:
    assert books["lists"].cost(call(provider, asked, answered)) == (None, None)


def test_own_prices_go_before_the_environment_which_goes_before_the_lists(books: dict[str, PriceBook]) -> None:
    ours = call(asked="gpt-4o-mini", answered="gpt-4o-mini-2024-07-18")
    assert books["all"].cost(ours) == (10**9, "prices.toml:openai/gpt-4o-mini-2024-07-18@2026-06-01")
    before = call(asked="gpt-4o-mini", answered="gpt-4o-mini-2024-07-18", ended_at=at(2026, 5, 31, 23, 59))
    assert books["all"].cost(before) == (10**9, "env")
    assert books["own"].cost(before)[0] == 150_000_000
    assert books["all"].cost(call("vllm", "any")) == (10**9, "env")
    embedding = call("tei", "bge-m3", operation=Operation.EMBEDDING, output_tokens=None)
    assert books["all"].cost(embedding) == (100_000_000, "env")
    assert books["all"].cost(call("jina", "reranker", operation=Operation.RERANK)) == (None, None)


def test_an_entry_may_point_to_a_list_price(books: dict[str, PriceBook]) -> None:
    cost, ref = books["own"].cost(call("azure", "our-deployment", None))
    assert cost == 2_500_000_000
    assert ref is not None
    assert ref.startswith("prices.toml:azure/our-deployment@2026-01-01=genai-prices:openai/gpt-4o@")
    assert usd_per_mtok(books["own"].cost(call("litellm", "alias", "gpt-4o-mini"))) == 0.15
    assert usd_per_mtok(books["own"].cost(call("litellm", "o3", service_tier="flex"))) == 1.0
    assert books["own"].cost(call("litellm", "unheard-of")) == (None, None)


def test_a_call_of_impossible_usage_has_no_price_now_or_later(books: dict[str, PriceBook]) -> None:
    known = call("openai", "gpt-4o-mini")
    assert books["all"].cost(known)[0] is not None
    known.cost_note = IMPOSSIBLE
    assert books["all"].cost(known) == (None, None)


def test_a_free_server_costs_nothing_and_says_so(books: dict[str, PriceBook]) -> None:
    assert books["own"].cost(call("ollama", "llama3.2:3b")) == (0, "prices.toml:ollama/llama3*@2026-01-01")
    assert books["own"].cost(call("ollama", "qwen3:4b")) == (None, None)
    unknown = call("ollama", "llama3.2:3b", input_tokens=None, output_tokens=None)
    assert books["own"].cost(unknown) == (None, None)


def test_a_service_tier_has_its_own_price_or_none(books: dict[str, PriceBook]) -> None:
    costs = {
        tier: usd_per_mtok(books["lists"].cost(call("openai", "o3", service_tier=tier)))
        for tier in (None, "default", "auto", "flex", "priority", "scale")
    }
    assert costs == {None: 2.0, "default": 2.0, "auto": 2.0, "flex": 1.0, "priority": 3.5, "scale": None}


def test_unknown_usage_has_no_cost_and_no_warning(
    books: dict[str, PriceBook], caplog: pytest.LogCaptureFixture
) -> None:
    for figures in ({"input_tokens": None, "output_tokens": None}, {"output_tokens": None}):
        assert books["lists"].cost(call("openai", "gpt-4o-mini", **figures)) == (None, None)
    refused = call("openai", "no-such", outcome=Outcome.REFUSED, input_tokens=None, output_tokens=None)
    assert books["lists"].cost(refused) == (None, None)
    assert caplog.records == []


def test_a_model_without_price_is_warned_about_once(
    books: dict[str, PriceBook], caplog: pytest.LogCaptureFixture
) -> None:
    fresh = PriceBook(books["lists"].lists.catalog)
    for _ in range(3):
        fresh.cost(call("openai", "gpt-99"))
    fresh.cost(call("openai", "o3", service_tier="scale"))
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "openai/gpt-99" in caplog.records[0].getMessage()
    assert "'scale'" in caplog.records[1].getMessage()


def test_made_up_model_names_fill_neither_memory_nor_log(
    books: dict[str, PriceBook], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(book, "_REMEMBERED", 8)
    monkeypatch.setattr(unpriced, "_WARNED", 5)
    fresh = PriceBook(books["lists"].lists.catalog)
    for number in range(40):
        fresh.cost(call("openai", f"made-up-{number}"))
        assert len(fresh._chains) <= 8
    assert len(caplog.records) == 5
    assert usd_per_mtok(fresh.cost(call("openai", "gpt-4o-mini"))) == 0.15


def test_cards_can_be_listed_and_explained(books: dict[str, PriceBook]) -> None:
    cards = list(books["all"].lists.cards())
    assert cards[0] == {
        "provider": "openai",
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": None,
        "from": "2026-06-01",
        "hours_utc": None,
        "price_ref": "prices.toml:openai/gpt-4o-mini-2024-07-18@2026-06-01",
        "input_usd_per_mtok": 1.0,
        "output_usd_per_mtok": 1.0,
    }
    assert {"provider": "ollama", "model": "llama3*", "free": True}.items() <= cards_of(cards, "ollama")[0].items()
    assert cards_of(cards, "litellm")[0]["same_as"] == "openai/*"
    assert [card["operation"] for card in cards_of(cards, "*")] == ["llm", "embedding"]
    assert any(card["hours_utc"] for card in cards_of(cards, "deepseek"))
    assert any("above" in card for card in cards_of(cards, "google"))
    card = books["lists"].find(call("openai", "gpt-4o-mini", input_tokens=None))
    assert card is not None
    explained = card_as_dict(card)
    assert explained is not None
    assert explained["input_usd_per_mtok"] == 0.15
    assert books["lists"].find(call("openai", "gpt-99")) is None


def cards_of(cards: list[dict[str, object]], provider: str) -> list[dict[str, object]]:
    return [card for card in cards if card["provider"] == provider]


def test_own_prices_are_found_by_every_name_the_call_had(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        '[[price]]\nprovider = "azure"\nmodel = "dep"\nfrom = 2026-01-01\ninput_usd_per_mtok = 9\n'
        'output_usd_per_mtok = 9\nsource = "s"\n'
    )
    catalog = compile_prices(Settings(prices_file=str(tmp_path / "own.toml")), tmp_path / "prices.json", {})
    assert usd_per_mtok(PriceBook(catalog).cost(call("azure", "dep", "gpt-4o"))) == 9.0


def test_ones_own_prices_stand_over_the_shipped_ones_and_leave_the_rest(tmp_path: Path) -> None:
    """By whatever name or pattern; where they say nothing, or nothing yet, what is shipped holds."""
    (tmp_path / "own.toml").write_text(
        '[[price]]\nprovider = "cohere"\nmodel = "rerank-v3*"\nfrom = 2026-11-19\nsearch_units_usd_per_1k = 1\n'
        'source = "contract"\n'
        '[[price]]\nprovider = "cohere"\nmodel = "alias"\nfrom = 2026-01-01\n'
        'search_units_usd_per_1k = 3\nsource = "s"\n'
    )
    catalog = compile_prices(Settings(prices_file=str(tmp_path / "own.toml")), tmp_path / "prices.json", {})
    priced = PriceBook(catalog)

    def usd(*names: str, day: int = 20) -> float | None:
        searched: dict[str, Any] = {
            "operation": Operation.RERANK,
            "input_tokens": None,
            "output_tokens": None,
            "search_units": 1_000,
        }
        return usd_per_mtok(priced.cost(call("cohere", *names, ended_at=at(2026, 11, day), **searched)))

    assert usd("rerank-v3.5") == 1.0
    assert usd("rerank-v3.5", day=18) == 2.0
    assert usd("alias", "rerank-v3.5") == 1.0
    assert usd("alias", "rerank-v3.5", day=18) == 3.0
    shipped = PriceBook(Catalog(compiled_at=0, source="", declared=catalog.shipped))
    for provider, model in {(entry.provider, entry.listed.model) for entry in catalog.shipped} - {
        ("cohere", "rerank-v3.5")
    }:
        size = "low" if provider == "perplexity" else None
        asked = call(provider, model, search_units=1_000, images=1, video_seconds=1.0, media_size=size)
        assert priced.cost(asked) == shipped.cost(asked) != (None, None), (provider, model)
    cards = cards_of(list(priced.lists.cards()), "cohere")
    assert {"rerank-v3*", "rerank-v3.5"} <= {str(card["model"]) for card in cards}
