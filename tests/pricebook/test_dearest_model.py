"""What a call may cost at most by the lists, and how much a model reads at once."""

from __future__ import annotations

import pytest

from taximeter.config import Settings
from taximeter.core.prices import Most
from taximeter.core.record import Open, Operation
from taximeter.pricebook import PriceBook, compile_prices
from taximeter.pricebook.book import LONG_CONTEXT_TOKENS

NOVEMBER_US = 1_795_132_800_000_000  # 2026-11-20


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    directory = tmp_path_factory.mktemp("prices")
    (directory / "none.toml").touch()
    compile_prices(Settings(prices_file=str(directory / "none.toml")), directory / "prices.json", {})
    return PriceBook.load(directory / "prices.json")


def test_the_dearest_of_several_models_and_tiers_is_told(
    listed: PriceBook,
) -> None:
    call = Open(request_id="r", started_at=NOVEMBER_US, workspace="w", upstream="u", provider="openai", api="chat",
                operation=Operation.LLM)  # fmt: skip
    million = Most(input_tokens=1_000_000)

    def dearest(*models: str, tiers: tuple[str, ...] | None = ("",)) -> tuple[int, bool]:
        return listed.dearest_nusd(call, models, tiers, million)

    mini, big = dearest("gpt-4.1-mini"), dearest("gpt-4.1")
    assert mini[1] and big[1] and mini[0] < big[0]
    assert dearest("gpt-4.1-mini", "gpt-4.1") == big
    assert dearest("gpt-4.1", "nobody's") == (big[0], False) and dearest("nobody's") == (0, False)
    priority = dearest("gpt-4.1-mini", tiers=("", "priority"))
    assert priority[0] > mini[0] and dearest("gpt-4.1-mini", tiers=None)[0] >= priority[0]


def test_a_models_context_window_is_told(listed: PriceBook) -> None:
    assert listed.context_tokens("openai", "gpt-4o-mini-2024-07-18") == 128_000
    assert listed.context_tokens("azure-openai", "gpt-4o") == 128_000
    assert listed.context_tokens("anthropic", "claude-sonnet-4-5") == LONG_CONTEXT_TOKENS
    assert listed.context_tokens("openai", "nobody's") is None and listed.context_tokens("vllm", "gpt-4o") is None
