"""What a client sees of rates, over a real socket and a real Valkey."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.test_budget import CHAT, budget, post, redis
from taximeter.budgets.rates import Limit, Rates
from taximeter.config import RateSettings
from taximeter.core.record import Open
from taximeter.gateway.admission.budget import BudgetGate
from taximeter.gateway.admission.holding import connect
from taximeter.gateway.admission.rates import duration
from upstream import LAST_CHUNK, RESET, STALL, chunk, response, stream_head
from valkeys import counted
from waits import HANG_S, happens

__all__ = ["redis"]
JSON = [("content-type", "application/json")]


def rate(name="r", **more):
    return RateSettings(name=name, **more)


@pytest.fixture
async def paced(serve, valkey_url):
    """`paced(running, rate, …, budgets=…)`: these are its rates from now on."""
    gates = []

    def use(running, *rates, budgets=(), url=valkey_url):
        gate = running.gate
        gate.admission.budgets = BudgetGate(
            gate.settings.budget,
            connect=lambda: connect(url),
            prices=gate.metering.prices,
            counting=gate.metering.tokenizers,
            rates=Rates(rates),
        )
        gates.append(gate.admission.budgets)
        counted(valkey_url, budgets)
        gate.admission.use_budgets(budgets)
        return gates[-1]

    yield use
    for each in gates:
        await each.close()


def told(answer):
    return {
        name.removeprefix("x-ratelimit-"): value
        for name, value in answer.headers.items()
        if name.startswith("x-ratelimit-")
    }


async def test_the_last_request_that_a_rate_allows_passes_and_the_next_is_told_when(serve, provider, paced, redis):
    async with serve(provider) as running:
        paced(running, rate("per-workspace", requests_per_minute=2))
        first, second, third = [await post(running) for _ in range(3)]
        assert [each.status_code for each in (first, second, third)] == [200, 200, 429]
        assert told(first).keys() == {"limit-requests", "remaining-requests", "reset-requests"}
        assert (told(first)["limit-requests"], told(first)["remaining-requests"]) == ("2", "1")
        assert told(first)["reset-requests"].startswith(("1m0", "1m1"))
        assert third.headers["x-taximeter-error"] == "rate_limit_exceeded" and third.headers["x-should-retry"] == "true"
        assert 59 <= int(third.headers["retry-after"]) <= 61 and told(third)["remaining-requests"] == "0"
        error = third.json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_exceeded", "rate_limit_exceeded")
        assert error["message"].startswith("The rate 'per-workspace' allows 2 requests a minute. Try again in")
        record = await running.record(2)
        assert (record["outcome"], record["tags"]) == ("refused", {"rates": "per-workspace"})
        assert len(provider.requests) == 2
        assert (await post(running, path="/w/beta/v1/chat/completions")).status_code == 200


async def test_tokens_are_held_at_the_bound_and_corrected_when_known(serve, provider, paced, redis):
    async with serve(provider) as running:
        paced(running, rate(tokens_per_minute=400))
        first = await post(running)
        held = 400 - int(told(first)["remaining-tokens"])
        used = (await running.record())["total_tokens"]
        assert held > 160 > used
        key = "tm:{acme}:rate:tokens:r"

        async def counted():
            return sum(map(int, await redis.hvals(key)))

        while await counted() != used:
            await asyncio.sleep(0)
        big = await post(running, {**CHAT, "max_tokens": 500})
        assert big.status_code == 429 and big.headers["x-should-retry"] == "false"
        assert "retry-after" not in big.headers and "this call alone may use" in big.json()["error"]["message"]
        record = await running.record()
        assert "charged_tokens" not in record and running.lines("tick") == []  # a rate is no budget


@pytest.mark.parametrize("steps", [(RESET,), (response(b"{}", 504, JSON),)])
async def test_what_is_not_known_stays_counted_for_the_window(serve, provider, paced, redis, steps):
    provider.script(*steps)
    async with serve(provider) as running:
        gate = paced(running, rate(tokens_per_minute=10_000, concurrent=5))
        await post(running)
        await running.record()
        await gate.pacing.settled()
        held = sum(map(int, await redis.hvals("tm:{acme}:rate:tokens:r")))
        assert held > 160 and await redis.zcard("tm:{acme}:rate:calls:r") == 0
        assert "charged_tokens" not in running.records[0]


async def test_what_never_left_or_was_refused_by_the_provider_counts_no_tokens(serve, provider, paced, redis):
    provider.script(response(b"{}", 400, JSON))
    async with serve(provider) as running:
        gate = paced(running, rate(tokens_per_minute=10_000, requests_per_minute=10))
        assert (await post(running)).status_code == 400
        await running.record()
        await gate.pacing.settled()
        assert await redis.hvals("tm:{acme}:rate:tokens:r") == ["0"]
        assert await redis.hvals("tm:{acme}:rate:requests:r") == ["1"]


async def test_calls_at_once_are_freed_when_they_end_however_they_end(serve, provider, paced, redis):
    provider.script(STALL)
    provider.script(STALL)
    async with serve(provider) as running:
        paced(running, rate(concurrent=2))
        calling = [asyncio.create_task(post(running, {**CHAT, "stream": True})) for _ in range(2)]
        await provider.until(lambda: sum(request.complete for request in provider.requests) == 2)
        refused = await post(running)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert "allows 2 calls at once" in refused.json()["error"]["message"]
        calling[0].cancel()  # its client leaves
        await asyncio.wait(calling[:1])
        async with asyncio.timeout(HANG_S):
            while (await post(running)).status_code == 429:
                await asyncio.sleep(0)
        provider.drop_connections()
        await calling[1]
        async with asyncio.timeout(HANG_S):
            while await redis.zcard("tm:{acme}:rate:calls:r"):
                await asyncio.sleep(0)


async def test_a_second_attempt_is_not_one_call_more_at_once(serve, provider, paced, redis, monkeypatch):
    refusal = b'{"error":{"message":"unknown field stream_options"}}'
    provider.script(response(refusal, 400, JSON))
    provider.script(stream_head(), chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
    async with serve(provider) as running:
        gate = paced(running, rate(concurrent=1))
        tell, told = gate.pacing._tell, asyncio.Event()

        async def slowly():
            await asyncio.wait([asyncio.ensure_future(told.wait())], timeout=0.05)
            await tell()

        monkeypatch.setattr(gate.pacing, "_tell", slowly)
        assert (await post(running, {**CHAT, "stream": True})).status_code == 200
        assert len(provider.requests) == 2


async def test_a_rate_is_for_each_of_what_it_names(serve, provider, paced, redis):
    async with serve(provider) as running:
        paced(
            running,
            rate("users", end_user="*", requests_per_minute=1),
            rate("mini", workspace="acme", model="gpt-4o-mini", task="query", requests_per_minute=1),
        )

        async def status(path="/w/acme/v1/chat/completions", **headers):
            return (await post(running, path=path, headers=headers)).status_code

        assert [await status(**{"x-end-user": user}) for user in ("a", "b", "a", "b")] == [200, 200, 429, 429]
        assert [await status() for _ in range(3)] == [200, 200, 200]
        assert [await status("/w/acme/k/query/v1/chat/completions") for _ in range(2)] == [200, 429]
        assert [await status("/w/beta/k/query/v1/chat/completions") for _ in range(2)] == [200, 200]


async def test_what_asks_for_nothing_that_is_billed_counts_in_no_rate(serve, provider, paced, redis):
    async with serve(provider) as running:
        paced(running, rate(requests_per_minute=1, tokens_per_minute=1))
        async with httpx2.AsyncClient(base_url=running.url) as client:
            for _ in range(3):
                assert "x-ratelimit-limit-requests" not in (await client.get("/w/acme/v1/models")).headers


async def test_a_rate_in_requests_reads_no_body_and_lets_any_pass(serve, provider, paced, redis):
    async with serve(provider) as running, httpx2.AsyncClient(base_url=running.url) as client:

        async def odd():
            head = {"content-type": "application/x-odd"}
            return await client.post("/w/acme/v1/chat/completions", content=b"\xff\xfe", headers=head)

        paced(running, rate(requests_per_minute=1))
        assert (await odd()).headers["x-ratelimit-remaining-requests"] == "0"
        assert (await odd()).status_code == 429
        paced(running, rate("t", tokens_per_minute=1_000))
        assert (await odd()).status_code == 400


async def test_the_upstreams_own_rates_pass_untouched(serve, provider, paced, redis):
    theirs = [*JSON, ("x-ratelimit-remaining-tokens", "7")]
    provider.script(response(b"{}", headers=theirs))
    async with serve(provider) as running:
        paced(running, rate(requests_per_minute=5), budgets=[budget()])
        await redis.hset("tm:{acme}:held", ":epoch", "7")
        answer = await post(running)
        assert told(answer) == {"remaining-tokens": "7"} and "x-taximeter-budget-limit" in answer.headers
        assert "remaining-requests" in told(await post(running))


async def test_what_a_budget_refuses_counts_in_no_rate(serve, provider, paced, redis):
    async with serve(provider) as running:
        paced(running, rate(requests_per_minute=5), budgets=[budget(limit=10)])
        assert (await post(running)).headers["x-taximeter-error"] == "insufficient_quota"
        assert await redis.keys("tm:{acme}:rate:*") == []


@pytest.mark.parametrize(("choice", "status"), [("allow", 200), ("refuse", 503)])
async def test_without_redis_a_rate_does_as_a_budget(serve, provider, paced, choice, status):
    async with serve(provider, budget={"on_unavailable": choice}) as running:
        paced(running, rate(requests_per_minute=1), url="redis://127.0.0.1:1/0")
        assert [(await post(running)).status_code for _ in range(2)] == [status] * 2


async def test_an_emptied_redis_opens_no_window_twice(serve, provider, paced, redis):
    async with serve(provider) as running:
        gate = paced(running, rate(requests_per_minute=3))
        for _ in range(3):
            assert (await post(running)).status_code == 200
        await redis.flushall()
        assert (await post(running)).status_code == 429  # it waited a second, until all were heard
        await gate.look_at_rates()
        assert (await post(running)).status_code == 429 and len(provider.requests) == 3


async def test_what_redis_did_not_hear_it_hears_when_it_is_back(serve, provider, paced, redis, valkey_url):
    go_on = asyncio.Event()
    provider.script(go_on, response(b"{}", headers=JSON))
    async with serve(provider) as running:
        gate = paced(running, rate(concurrent=1))
        calling = asyncio.create_task(post(running))
        await provider.until(lambda: provider.requests and provider.requests[0].complete)
        there, gate._holding = gate._holding, connect("redis://127.0.0.1:1/0")
        go_on.set()
        await calling
        await happens(lambda: gate.pacing._telling is None)
        assert await redis.zcard("tm:{acme}:rate:calls:r") == 1
        await gate.close()
        gate._holding = there
        await gate.look_at_rates()
        assert await redis.zcard("tm:{acme}:rate:calls:r") == 0


# ── which are about a call ───────────────────────────────────────────────────────────────────────────────────


def call(**more):
    return Open(
        request_id="q", started_at=0, workspace="acme", upstream="openai", provider="openai", api="chat",
        request_model="m/1", key_id="k1", **more,
    )  # fmt: skip


def test_a_rate_has_a_limit_for_each_figure_and_each_combination_of_values():
    rates = Rates([
        rate("a", requests_per_minute=3, tokens_per_minute=5, concurrent=7),
        rate("b", workspace="other", concurrent=1),
        rate("c", key="*", model="*", upstream="openai", concurrent=1),
        rate("d", end_user="*", concurrent=1),
        rate("e", key="k2", concurrent=1),
    ])  # fmt: skip
    assert rates.of(call()) == (
        Limit("a", "requests", 3, "a"),
        Limit("a", "tokens", 5, "a"),
        Limit("a", "calls", 7, "a"),
        Limit("c", "calls", 1, "c:key=k1:model=m/1"),
    )
    assert (rates.concern("any"), rates.weigh("any")) == (True, True)
    none = Rates([rate("b", workspace="other", concurrent=1)])
    assert (none.concern("acme"), none.concern("other"), none.weigh("other")) == (False, True, False)
    assert not Rates() and not Rates().concern("acme")


names = st.text(alphabet="ab:=*", min_size=1, max_size=4)


@given(st.tuples(names, names), st.tuples(names, names))
def test_no_two_combinations_of_values_share_a_place(one, other):
    rates = Rates([rate(end_user="*", task="*", concurrent=1)])
    places = [rates.of(call(task=task, end_user=user))[0].place for task, user in (one, other)]
    assert (places[0] == places[1]) is (one == other)


@pytest.mark.parametrize(
    ("ms", "shown"), [(0, "0ms"), (12, "12ms"), (1_000, "1s"), (1_250, "1.25s"), (60_000, "1m0s"), (61_001, "1m1.001s")]
)
def test_durations_are_written_as_go_writes_them(ms, shown):
    assert duration(ms) == shown
