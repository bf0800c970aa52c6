"""What a client sees of quotes, over a real socket and a real Valkey: the figures, what stands against the call, and
that nothing is sent, held or recorded."""

import contextlib

import httpx2
import pytest

from ledger_fake import NOON_US
from taximeter.budgets.reservations import sum_keys
from taximeter.budgets.rule import Budget
from taximeter.gateway.admission.budget import BudgetGate
from taximeter.gateway.admission.holding import connect
from taximeter.keys.rule import ProxyKey, digest
from valkeys import counted, known
from waits import HANG_S

SECRET = "tm-" + "a" * 64
KEY = ProxyKey(id="k1", sha256=digest(SECRET), workspace="acme", models=("gpt-4o-mini",))
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 40}
QUOTE = "/quote/w/acme/t/run-1/k/query/v1/chat/completions"


def budget(**more):
    return Budget(**{"id": "b1", "workspace": "acme", "unit": "tokens", "period": "day", "limit": 10_000, **more})


@pytest.fixture
async def redis(redis):
    await known(redis, "acme")
    return redis


@pytest.fixture
async def quoting(serve, provider, valkey_url):
    """`async with quoting(budgets, …) as quote`: `await quote(body, path)` is an answer of /quote."""

    @contextlib.asynccontextmanager
    async def running(*budgets, url=valkey_url, keys=(), prices=None, **settings):
        async with serve(provider, keys=keys, **settings) as running:
            gate = running.gate
            gate.admission.budgets = BudgetGate(
                gate.settings.budget,
                connect=lambda: connect(url),
                prices=prices or gate.metering.prices,
                counting=gate.metering.tokenizers,
                now_us=lambda: NOON_US,
            )
            counted(valkey_url, budgets)
            gate.admission.use_budgets(budgets)

            async def quote(body=CHAT, path=QUOTE, method="POST", **more):
                async with httpx2.AsyncClient(base_url=running.url, timeout=HANG_S) as client:
                    return await client.request(method, path, json=body, **more)

            try:
                yield quote
            finally:
                await gate.admission.budgets.close()
            assert provider.requests == [] and running.records == [] and running.lines("open") == []

    return running


async def test_a_quote_counts_bounds_and_prices_a_call_and_says_what_would_be_left(quoting, redis):
    await redis.hset(sum_keys(budget().sole, NOON_US)[0], mapping={"used": 9_000, "charged": 100})
    async with quoting(
        budget(), budget(id="b2", mode="soft", unit="usd", limit=10**9), budget(id="b3", task="else")
    ) as q:
        answer = await q()
        assert answer.status_code == 200, answer.text
        told = answer.json()
        names = ("api", "operation", "model", "provider", "workspace", "track", "task", "input_source", "would_pass")
        assert [told[name] for name in names] == [
            "chat", "llm", "gpt-4o-mini", "openai", "acme", "run-1", "query", "counted", True,
        ]  # fmt: skip
        bound = told["bound"]
        assert told["input_tokens"] < bound["input_tokens"] < 200 and bound["output_tokens"] == 40
        assert told["input_cost_usd"] == told["input_tokens"] / 10**6
        nusd = bound["input_tokens"] * 1_000 + 40 * 2_000
        assert told["bound_cost_usd"] == nusd / 10**9
        hard, soft = told["budgets"]
        assert (hard["budget"]["id"], hard["left"]) == ("b1", 900)
        assert hard["bound"] == bound["input_tokens"] + 40 and hard["left_after"] == 900 - hard["bound"]
        assert (soft["left"], soft["left_after"]) == (1, 1 - nusd / 10**9)
        assert told["refusal"] is None and told["notes"] == []
    assert await redis.hgetall("tm:{acme}:held") == {":epoch": "7"}


@pytest.mark.parametrize(
    ("spent", "held", "code"),
    [(9_950, 0, "insufficient_quota"), (10_000, 0, "insufficient_quota"), (0, 9_950, "budget_reserved")],
)
async def test_a_quote_says_with_what_the_call_would_be_refused(quoting, redis, spent, held, code):
    await redis.hset(sum_keys(budget().sole, NOON_US)[0], "used", spent)
    await redis.hset("tm:{acme}:held", "b1", held)
    async with quoting(budget()) as quote:
        told = (await quote()).json()
        assert told["would_pass"] is False and told["budgets"][0]["left_after"] < 0
        assert (told["refusal"]["status"], told["refusal"]["code"]) == (429, code)
        assert "budget" in told["refusal"]["message"]


async def test_a_call_that_would_be_clamped_passes_and_says_to_what(quoting, redis):
    await redis.hset(sum_keys(budget().sole, NOON_US)[0], "used", 9_500)
    body = {**CHAT, "max_tokens": 5_000}
    async with quoting(budget(), budget={"clamp": True}) as quote:
        told = (await quote(body)).json()
        assert told["would_pass"] and told["refusal"] is None and told["budgets"][0]["left_after"] < 0
        assert told["clamped_output_tokens"] == 500 - told["bound"]["input_tokens"]
        await redis.hset("tm:{acme}:held", "b1", 500)
        held = (await quote(body)).json()
        assert not held["would_pass"] and held["refusal"]["code"] == "budget_reserved"  # as the call would be told
        await redis.hdel("tm:{acme}:held", "b1")
        searching = (await quote({**body, "web_search_options": {}})).json()
        assert not searching["would_pass"] and searching["clamped_output_tokens"] is None
    async with quoting(budget()) as quote:
        assert (await quote(body)).json()["would_pass"] is False


async def test_a_model_without_a_price_costs_null_and_says_so(quoting, redis):
    class Unpriced:
        def dearest_nusd(self, call, models, tiers, most):
            return 0, False

        def context_tokens(self, provider, model, *, longest=True):
            return None

    async with quoting(budget(unit="usd"), prices=Unpriced()) as quote:
        told = (await quote()).json()
        assert told["input_cost_usd"] is told["bound_cost_usd"] is told["budgets"][0]["bound"] is None
        assert told["notes"] == ["No price is known for gpt-4o-mini of openai."] and told["input_tokens"] > 0
        assert told["would_pass"] is True
    async with quoting(budget(unit="usd"), prices=Unpriced(), budget={"on_unpriced": "refuse"}) as quote:
        told = (await quote()).json()
        assert told["refusal"]["code"] == "insufficient_quota" and "no price here" in told["refusal"]["message"]


async def test_what_has_no_bound_or_is_not_allowed_is_told(quoting, redis):
    searching = {**CHAT, "web_search_options": {}}
    async with quoting(budget(), keys=[KEY]) as quote:
        told = (await quote(searching)).json()
        assert told["refusal"]["code"] == "unbounded_request" and told["bound"]["endless"] == ["web_search_options"]
        auth = {"authorization": f"Bearer {SECRET}"}
        told = (await quote({**CHAT, "model": "gpt-5"}, "/quote/v1/chat/completions", headers=auth)).json()
        assert (told["key_id"], told["workspace"], told["refusal"]["code"]) == ("k1", "acme", "forbidden")
        told = (await quote({**CHAT, "max_tokens": "many"})).json()
        assert told["refusal"]["code"] == "bad_request" and told["bound"] is None


async def test_without_a_budget_or_redis_a_quote_tells_what_it_can(quoting):
    async with quoting(budget(), url="redis://127.0.0.1:1/0") as quote:
        told = (await quote()).json()
        assert told["budgets"][0]["left"] is told["budgets"][0]["left_after"] is None
        assert told["budgets"][0]["bound"] > 0 and "Redis does not answer" in told["notes"][0]
        told = (await quote(path="/w/beta/quote/v1/chat/completions")).json()
        assert (told["workspace"], told["budgets"], told["would_pass"]) == ("beta", [], True)
        told = (await quote([1], path="/w/beta/quote/v1/chat/completions")).json()
        assert (
            told["input_tokens"] is told["bound"] is None and told["would_pass"] and "JSON object" in told["notes"][0]
        )


async def test_a_quote_asks_for_what_its_call_would_ask_for(quoting):
    async with quoting(auth={"mode": "keys"}, keys=[KEY]) as quote:
        assert (await quote()).status_code == 401
        auth = {"authorization": f"Bearer {SECRET}"}
        assert (await quote(headers=auth)).status_code == 200
        elsewhere = await quote(path="/quote/w/other/v1/chat/completions", headers=auth)
        assert (elsewhere.status_code, elsewhere.json()["error"]["code"]) == (403, "forbidden")
        answer = await quote(None, method="GET", headers=auth)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert (await quote(path="/quote/w/a%20b/v1/chat/completions", headers=auth)).status_code == 400


async def test_embeddings_and_rerank_are_quoted(quoting):
    async with quoting() as quote:
        told = (await quote({"model": "e", "input": ["one two", "three"]}, "/quote/v1/embeddings")).json()
        assert (told["operation"], told["input_tokens"], told["bound"]["output_tokens"]) == ("embedding", 3, 0)
        body = {"model": "r", "query": "q", "documents": ["d"] * 101}
        told = (await quote(body, "/quote/v1/rerank")).json()
        assert (told["operation"], told["bound"]["search_units"]) == ("rerank", 2)
