"""What a call may cost at most by the lists, and how much a model reads at once."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest

from taximeter.budgets.rule import Allowance, Budget
from taximeter.config import BudgetSettings, Settings
from taximeter.core.dearest import Most
from taximeter.core.record import Open, Operation, Source
from taximeter.flavors.messages import MESSAGES
from taximeter.flavors.meter import Countable, Prepared
from taximeter.gateway.admission.wanted import Wanting
from taximeter.gateway.bounds import demand
from taximeter.pricebook import Beforehand, PriceBook, compile_prices
from taximeter.pricebook.beforehand import LONG_CONTEXT_TOKENS

NOVEMBER_US = 1_795_132_800_000_000  # 2026-11-20


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Beforehand:
    directory = tmp_path_factory.mktemp("prices")
    (directory / "none.toml").touch()
    compile_prices(Settings(prices_file=str(directory / "none.toml")), directory / "prices.json", {})
    return Beforehand(PriceBook.load(directory / "prices.json"))


def test_the_dearest_of_several_models_and_tiers_is_told(
    listed: Beforehand,
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


class Counted(NamedTuple):
    tokens: int
    tokenizer: str
    source: Source


ASKED = {"model": "claude-sonnet-4-5", "max_tokens": 1_000, "messages": [{"role": "user", "content": [
    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}]}]}  # fmt: skip


async def held_nusd(listed: Beforehand, body: bytes, *headers: tuple[bytes, bytes], provider: str = "anthropic") -> int:
    class Counts:
        async def count(
            self, countable: Countable, *, model: str | None, provider: str, tokenizer: str = ""
        ) -> Counted:
            return Counted(0, "none", Source.COUNTED)

    head = [(b"content-type", b"application/json"), *headers]
    asked = demand.read(MESSAGES, Prepared(body=body), head, b"/v1/messages", b"", body, 10**6)
    call = Open(request_id="r", started_at=NOVEMBER_US, workspace="w", upstream="u", provider=provider, api="messages",
                operation=Operation.LLM, request_model="claude-sonnet-4-5")  # fmt: skip
    allowance = Allowance(Budget(id="b", workspace="w", limit=10**10, unit="usd", created_at=0), ())
    want = await Wanting(BudgetSettings(), listed, Counts()).of([allowance], call, MESSAGES, asked, "")
    return want.held.cost_nusd or 0


async def test_a_pdf_is_held_at_the_window_and_the_cache_writes_that_the_request_asks_for(listed: Beforehand) -> None:
    body = json.dumps(ASKED).encode()
    plain = await held_nusd(listed, body)
    assert 0.6 < plain / 1e9 < 0.75  # 200,000 tokens at 3 USD a million (cached ones are cheaper), and an answer
    cached = await held_nusd(listed, body[:-1] + b', "cache_control": {"type": "ephemeral", "ttl": "1h"}}')
    assert cached > 1.9 * plain
    assert await held_nusd(listed, body.replace(b"document", b"d\\u006fcument")) > cached
    assert await held_nusd(listed, body, (b"anthropic-beta", b"context-1m-2025-08-07")) > 6 * plain


def test_a_models_context_window_is_told(listed: Beforehand) -> None:
    assert listed.context_tokens("openai", "gpt-4o-mini-2024-07-18") == 128_000
    assert listed.context_tokens("azure-openai", "gpt-4o") == 128_000
    assert listed.context_tokens("anthropic", "claude-sonnet-4-5") == LONG_CONTEXT_TOKENS
    assert listed.context_tokens("anthropic", "claude-sonnet-4-5", longest=False) == 200_000
    assert listed.context_tokens("openai", "nobody's") is None and listed.context_tokens("vllm", "gpt-4o") is None
