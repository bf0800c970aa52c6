"""What a client sees of hard budgets, over a real socket and a real Valkey; what the journal says of it."""

import asyncio
import contextlib

import httpx2
import pytest

from ledger_fake import NOON_US
from taximeter.budgets.reservations import sum_keys
from taximeter.budgets.rule import Budget, Budgets, cap
from taximeter.gateway.admission import budget as budget_module
from taximeter.gateway.admission.budget import BudgetGate
from taximeter.gateway.admission.holding import connect
from upstream import CLOSE, RESET, STALL, response, stream_head
from valkeys import counted, known
from waits import HANG_S, happens

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 40}


def budget(**more):
    return Budget(**{"id": "b1", "workspace": "acme", "unit": "tokens", "period": "day", "limit": 10_000, **more})


@pytest.fixture
async def redis(redis):
    """Of one workspace that is known there."""
    await known(redis, "acme")
    return redis


@pytest.fixture
async def gated(serve, valkey_url):
    """`gated(running, budget, …)`: these are its budgets from now on."""
    gates = []

    def use(running, *budgets, url=valkey_url):
        counted(valkey_url, budgets)
        gate = running.gate
        gate.admission.budgets = BudgetGate(
            gate.settings.budget,
            connect=lambda: connect(url),
            prices=gate.metering.prices,
            counting=gate.metering.tokenizers,
            now_us=lambda: NOON_US,
        )
        gates.append(gate.admission.budgets)
        gate.admission.use_budgets(budgets)

    yield use
    for each in gates:
        await each.close()


async def post(running, body=CHAT, path="/w/acme/v1/chat/completions", **more):
    async with httpx2.AsyncClient(base_url=running.url, timeout=HANG_S) as client:
        return await client.post(path, json=body, **more)


async def spend(redis, amount, of):
    """As if so much of a budget had been spent in its period, whatever it is about."""
    await redis.hset(sum_keys(of.sole, NOON_US)[0], "used", amount)


async def test_a_call_within_its_budget_is_relayed_and_holds_until_it_is_counted(serve, provider, gated, redis):
    async with serve(provider) as running:
        gated(running, budget())
        assert (await post(running)).status_code == 200
        record = await running.record()
        assert (record["outcome"], record["tags"]) == ("ok", {"budgets": "b1"})
        held = int(await redis.hget("tm:{acme}:held", "b1"))
        assert record["total_tokens"] <= held < 250
        assert await redis.hkeys("tm:{acme}:reserved") == [f"{record['request_id']}#1"]


async def test_a_spent_budget_is_told_so_that_sdks_do_not_retry_and_nothing_is_sent(serve, provider, gated, redis):
    await spend(redis, 9_990, budget())
    async with serve(provider) as running:
        gated(running, budget())
        answer = await post(running)
        assert answer.status_code == 429 and answer.headers["x-should-retry"] == "false"
        assert answer.headers["x-taximeter-error"] == "insufficient_quota"
        assert answer.headers["retry-after"] == "43200"  # until midnight
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
        assert "Workspace 'acme' has used its daily budget of 10,000 tokens: 9,990 tokens are spent" in error["message"]
        record = await running.record()
        assert (record["outcome"], record["error_code"], record.get("input_tokens")) == (
            "refused", "insufficient_quota", None,
        )  # fmt: skip
        assert len(running.records) == 1 and provider.requests == []


async def test_a_budget_held_by_calls_in_flight_is_retryable(serve, provider, gated, redis):
    await redis.hset("tm:{acme}:held", "b1", 9_990)
    async with serve(provider) as running:
        gated(running, budget())
        answer = await post(running)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "budget_reserved")
        assert answer.headers["x-should-retry"] == "true" and answer.headers["retry-after"] == "2"


async def test_answers_and_refusals_tell_how_the_fullest_budget_stands(serve, provider, gated, redis):
    def told(answer):
        found = {name: value for name, value in answer.headers.items() if name.startswith("x-taximeter-budget-")}
        return tuple(found.pop(f"x-taximeter-budget-{name}", None) for name in ("limit", "remaining", "unit", "reset"))

    async with serve(provider) as running:
        assert told(await post(running)) == (None, None, None, None)
        whole = budget(id="b2", unit="usd", period="total", limit=10**9)
        gated(running, budget(), whole)
        first = await post(running, {**CHAT, "stream": True})
        held = int(await redis.hget("tm:{acme}:held", "b1"))
        assert told(first) == ("10000", str(10_000 - held), "tokens", "43200")
        assert int((await post(running)).headers["x-taximeter-budget-remaining"]) == 10_000 - 2 * held
        await spend(redis, 10**9 - 4, whole)
        refused = await post(running)
        assert refused.status_code == 429 and told(refused) == ("1", "0", "usd", None)
        assert refused.headers["x-should-retry"] == "false" and "retry-after" not in refused.headers


async def test_only_calls_a_budget_is_about_wait_for_it(serve, provider, gated, redis):
    async with serve(provider) as running:
        gated(running, budget(task="query", limit=1), budget(id="b2", mode="soft", limit=1))
        assert (await post(running)).status_code == 200
        assert (await post(running, path="/w/beta/k/query/v1/chat/completions")).status_code == 200
        assert (await post(running, path="/w/acme/k/query/v1/chat/completions")).status_code == 429
        assert [record.get("tags") for record in running.records] == [None, None, {"budgets": "b1"}]
        gated(running)  # and none any more
        assert (await post(running, path="/w/acme/k/query/v1/chat/completions")).status_code == 200


@pytest.mark.parametrize(("choice", "status"), [("allow", 200), ("refuse", 503)])
async def test_without_redis_calls_pass_or_are_refused_as_configured(serve, provider, gated, choice, status, caplog):
    async with serve(provider, budget={"on_unavailable": choice}) as running:
        gated(running, budget(), url="redis://127.0.0.1:1/0")
        answer = await post(running)
        assert answer.status_code == status and "budgets cannot be checked" in caplog.text
        if status == 503:
            assert answer.headers["x-taximeter-error"] == "budget_unavailable"


async def test_what_cannot_cost_anything_passes_a_spent_budget_and_asks_no_redis(serve, provider, gated, redis):
    async with serve(provider, budget={"on_unavailable": "refuse"}) as running:
        gated(running, budget(), url="redis://127.0.0.1:1/0")
        async with httpx2.AsyncClient(base_url=running.url) as client:
            assert (await client.get("/w/acme/v1/models")).status_code == 200
            with_body = await client.request("GET", "/w/acme/v1/models", json={"a": 1})
            assert with_body.headers["x-taximeter-error"] == "budget_unavailable"
    assert "tags" not in running.records[0]


async def test_a_budget_of_requests_counts_what_cannot_cost_anything_too(serve, provider, gated, redis):
    async with serve(provider) as running, httpx2.AsyncClient(base_url=running.url, timeout=HANG_S) as client:
        gated(running, budget(unit="requests", limit=2), budget(id="b2", limit=10))
        assert (await client.get("/w/acme/v1/models")).status_code == 200
        assert (await redis.hgetall("tm:{acme}:reserved")).popitem()[1] == "b1 1"
        assert (await post(running)).status_code == 429  # of tokens there are too few: then it holds no request either
        assert (await client.get("/w/acme/v1/models")).status_code == 200
        refused = await client.get("/w/acme/v1/models")
        assert refused.status_code == 429 and refused.headers["x-taximeter-error"] == "budget_reserved"
        assert running.records[0].get("tags") == {"budgets": "b1"}


async def test_each_end_user_and_model_has_an_allowance_and_says_whose_it_is(serve, provider, gated, redis):
    async with serve(provider) as running:
        each = budget(
            end_user="*", model="gpt-4o-mini", unit="output_tokens", period="week", tz="Europe/Berlin", limit=50
        )
        gated(running, each)
        alice, bob = {"x-end-user": "alice"}, {"x-end-user": "bob"}
        assert (await post(running, headers=alice)).status_code == 200
        refused = await post(running, headers=alice)
        assert refused.headers["x-taximeter-error"] == "budget_reserved"
        assert "the weekly budget of end user 'alice', model 'gpt-4o-mini' of workspace 'acme'" in refused.text
        assert (await post(running, headers=bob)).status_code == (await post(running)).status_code == 200
        assert await redis.hget("tm:{acme}:held", "b1/alice") == "40"
        assert (await post(running, {**CHAT, "model": "gpt-4o"}, headers=alice)).status_code == 200
        await redis.hset(sum_keys(each.of_values(("alice", "gpt-4o-mini")), NOON_US)[0], "used", 50)
        refused = await post(running, headers=alice)
        assert refused.headers["x-taximeter-error"] == "insufficient_quota"
        # Sunday noon in UTC; in Berlin Monday begins an hour before midnight UTC.
        assert refused.headers["retry-after"] == str(11 * 3_600)
        assert refused.json()["error"]["message"].startswith(
            "End user 'alice', model 'gpt-4o-mini' of workspace 'acme' has used its weekly budget of 50 output tokens: "
        )


async def test_a_call_bounded_by_0_holds_nothing_and_a_spent_budget_refuses_it(serve, provider, gated, redis):
    async with serve(provider) as running:
        gated(running, budget())
        assert (await post(running, body={}, path="/w/acme/v1/vector_stores")).status_code == 404  # the provider's word
        assert await redis.keys("tm:{acme}:reserved*") == []
        await spend(redis, 10_000, budget())
        assert (await post(running, body={}, path="/w/acme/v1/vector_stores")).status_code == 429


async def test_a_budget_in_usd_goes_by_the_price(serve, provider, gated, redis):
    async with serve(provider) as running:
        month = budget(unit="usd", period="total", limit=10**9)
        gated(running, month)
        assert (await post(running)).status_code == 200
        held = int(await redis.hget("tm:{acme}:held", "b1"))
        assert held >= (await running.record())["cost_nusd"] > 0
        await spend(redis, 10**9, month)
        answer = await post(running)
        assert "has used its budget of $1: $1 are spent" in answer.json()["error"]["message"]
        assert "retry-after" not in answer.headers


async def test_under_a_budget_a_body_with_two_models_is_refused(serve, provider, gated, redis):
    async with serve(provider) as running:
        gated(running, budget())
        async with httpx2.AsyncClient(base_url=running.url, timeout=HANG_S) as client:
            answer = await client.post(
                "/w/acme/v1/chat/completions",
                content=b'{"model":"a","model":"b","messages":[]}',
                headers={"content-type": "application/json"},
            )
        assert answer.status_code == 400 and "more than one 'model'" in answer.json()["error"]["message"]


async def test_a_key_budget_is_about_that_key(serve, provider, gated, redis):
    assert sum_keys(budget(key_id="key_1", period="total").sole, 0) == ["tm:{acme}:tally:tokens:total:0:key_id=key_1"]
    await spend(redis, 100, budget(key_id="key_1", period="total"))
    async with serve(provider) as running:
        gated(running, budget(key_id="key_1", period="total", limit=100))
        assert (await post(running)).status_code == 200


async def test_a_client_that_leaves_while_its_budget_is_asked_costs_nothing(serve, provider, gated, redis, monkeypatch):
    async with serve(provider) as running:
        gated(running, budget())
        asked, may_go_on = asyncio.Event(), asyncio.Event()
        hold = running.gate.admission.hold

        async def slow(*args):
            asked.set()
            await may_go_on.wait()
            await hold(*args)

        monkeypatch.setattr(running.gate.admission, "hold", slow)
        calling = asyncio.create_task(post(running))
        await asked.wait()
        calling.cancel()
        await asyncio.wait([calling])
        async with asyncio.timeout(HANG_S):
            while not running.watched_left():
                await asyncio.sleep(0)
        may_go_on.set()
        record = await running.record()
        assert (record["outcome"], record.get("input_tokens"), provider.requests) == ("client_left", None, [])


async def test_what_a_call_in_flight_holds_is_held_again_in_a_redis_that_forgot_it(serve, provider, gated, redis):
    go_on = asyncio.Event()
    provider.script(go_on, response(b"{}", headers=[("content-type", "application/json")]))
    async with serve(provider) as running:
        gated(running, budget())
        calling = asyncio.create_task(post(running))
        await provider.until(lambda: provider.requests and provider.requests[0].complete)
        held = await redis.hget("tm:{acme}:held", "b1")
        await redis.flushall()
        await running.gate.admission.budgets.look()
        assert await redis.hget("tm:{acme}:held", "b1") == held
        await known(redis, "acme", budgets=[budget()])
        await running.gate.admission.budgets.look()
        assert await redis.hget("tm:{acme}:held", "b1") == held  # once
        go_on.set()
        assert (await calling).status_code == 200
        await redis.flushall()
        await running.gate.admission.budgets.look()
        assert await redis.keys("*") == []  # it holds nothing any more


async def test_a_call_that_passed_while_redis_was_away_is_held_once_it_is_back(serve, provider, gated, redis):
    go_on = asyncio.Event()
    provider.script(go_on, response(b"{}", headers=[("content-type", "application/json")]))
    async with serve(provider) as running:
        gated(running, budget())
        gate = running.gate.admission.budgets
        there, gate._connect = gate._connect, lambda: connect("redis://127.0.0.1:1/0")
        calling = asyncio.create_task(post(running))
        await provider.until(lambda: provider.requests and provider.requests[0].complete)
        await gate.look()
        gate._holding = there()
        await gate.look()
        assert int(await redis.hget("tm:{acme}:held", "b1")) > 0
        go_on.set()
        assert (await calling).status_code == 200


@pytest.mark.parametrize(("choice", "status"), [("allow", 200), ("refuse", 503)])
async def test_a_redis_that_lost_its_figures_is_waited_for_but_not_for_ever(
    serve, provider, gated, redis, choice, status, monkeypatch
):
    async with serve(provider, budget={"on_unavailable": choice}) as running:
        gated(running, budget())
        await redis.flushall()
        calling = asyncio.create_task(post(running))
        await asyncio.wait([calling], timeout=0.3)
        assert not calling.done() and provider.requests == []
        await known(redis, "acme", budgets=[budget()])
        assert (await calling).status_code == 200
        await redis.flushall()
        monkeypatch.setattr(budget_module, "WAIT_S", 0.2)
        assert (await post(running)).status_code == status


def held_of(running):
    """What the journal says is held, before anything is sent."""
    return [tick["bound_tokens"] for tick in running.lines("tick") if "bound_tokens" in tick]


async def test_a_silent_provider_is_charged_at_the_bound_and_its_tokens_stay_unknown(serve, provider, gated, redis):
    provider.script(STALL)
    async with serve(provider, upstream={"first_byte_timeout_s": 1}) as running:
        gated(running, budget(), budget(id="b2", unit="usd", limit=10**9))
        calling = asyncio.create_task(post(running))
        await provider.until(lambda: provider.requests and provider.requests[0].complete)
        assert len(held_of(running)) == 1  # written down before it was sent
        assert (await calling).status_code == 504
        record = await running.record()
        assert record["outcome"] == "timeout" and "input_tokens" not in record and "total_tokens" not in record
        assert [record["charged_tokens"]] == held_of(running) and record["charged_cost_nusd"] > 40 * 2_000


@pytest.mark.parametrize("steps", [(RESET,), (stream_head(), RESET), (CLOSE,)])
async def test_an_upstream_that_cuts_before_any_text_is_charged(serve, provider, gated, redis, steps):
    provider.script(*steps)
    async with serve(provider) as running:
        gated(running, budget())
        with contextlib.suppress(httpx2.HTTPError):
            await post(running, body={**CHAT, "stream": True})
        record = await running.record()
        assert record["outcome"] == "upstream_cut"
        assert [record["charged_tokens"] + record.get("total_tokens", 0)] == held_of(running)


@pytest.mark.parametrize("head", [False, True])
async def test_a_stream_left_before_its_text_is_charged(serve, provider, gated, redis, head):
    provider.script(*((stream_head(),) if head else ()), STALL)
    async with serve(provider) as running:
        gated(running, budget())
        calling = asyncio.create_task(post(running, body={**CHAT, "stream": True}))
        await provider.until(lambda: provider.requests and provider.requests[0].complete)
        if head:
            await happens(lambda: running.exchanges[0].response_started)
        calling.cancel()
        record = await running.record()
        assert record["outcome"] == "client_left"
        assert [record["charged_tokens"] + record.get("total_tokens", 0)] == held_of(running)


@pytest.mark.parametrize(("status", "charged"), [(500, False), (429, False), (504, True), (502, True)])
async def test_an_error_of_the_provider_is_free_one_of_a_gateway_before_it_is_not(
    serve, provider, gated, redis, status, charged
):
    provider.script(response(b"{}", status, [("content-type", "application/json")]))
    async with serve(provider) as running:
        gated(running, budget())
        assert (await post(running)).status_code == status
        assert ("charged_tokens" in await running.record()) is charged


async def test_what_provably_never_left_is_free(serve, provider, gated, redis):
    async with serve(provider, upstream={"base_url": "http://127.0.0.1:1/v1"}) as running:
        gated(running, budget())
        assert (await post(running)).status_code == 502
        record = await running.record()
        assert record["outcome"] == "upstream_unreachable" and "charged_tokens" not in record
        assert len(held_of(running)) == 1


async def test_known_use_is_not_charged_twice(serve, provider, gated, redis):
    async with serve(provider) as running:
        gated(running, budget(), budget(id="b2", unit="usd", limit=10**9))
        assert (await post(running)).status_code == 200
        assert (await post(running, body={**CHAT, "stream": True})).status_code == 200
        await happens(lambda: len(running.records) == 2)
        assert all("charged_tokens" not in one and "charged_cost_nusd" not in one for one in running.records)


async def test_where_the_journal_must_not_be_outrun_a_hold_that_cannot_be_written_refuses(
    serve, provider, gated, redis, monkeypatch
):
    async with serve(provider, journal={"on_error": "refuse"}) as running:
        gated(running, budget())
        monkeypatch.setattr(running.journal, "tick", lambda file, tick: False)
        assert (await post(running)).headers["x-taximeter-error"] == "journal_unavailable"
        assert provider.requests == [] and "charged_tokens" not in await running.record()


async def test_a_redis_that_is_there_but_full_lets_nothing_pass(serve, provider, gated, redis):
    async with serve(provider) as running:
        gated(running, budget())
        assert (await post(running)).status_code == 200
        await redis.config_set("maxmemory", "1")
        try:
            assert (await post(running)).headers["x-taximeter-error"] == "budget_unavailable"
        finally:
            await redis.config_set("maxmemory", "0")
        assert (await post(running)).status_code == 200
        assert len(provider.requests) == 2


async def test_calls_that_come_while_redis_is_asked_are_none_of_that_look(serve, provider, gated, redis, monkeypatch):
    go_on = asyncio.Event()
    for _ in range(2):
        provider.script(go_on, response(b"{}", headers=[("content-type", "application/json")]))
    await known(redis, "beta")
    async with serve(provider) as running:
        gated(running, budget(), budget(id="b2", workspace="beta"))
        gate = running.gate.admission.budgets
        calls = [asyncio.create_task(post(running))]
        await provider.until(lambda: provider.requests and provider.requests[0].complete)
        changed = gate._holding.changed

        async def slow(workspaces):
            found = await changed(workspaces)
            calls.append(asyncio.create_task(post(running, path="/w/beta/v1/chat/completions")))
            await happens(lambda: len(provider.requests) == 2)
            return found

        monkeypatch.setattr(gate._holding, "changed", slow)
        await gate.look()
        go_on.set()
        assert [(await call).status_code for call in calls] == [200, 200]


@pytest.fixture
async def capped(serve, provider, gated, redis, valkey_url):
    """`async with capped(raises) as call`: `call(track, header, **more)` of workspace acme, where calls may cap."""

    @contextlib.asynccontextmanager
    async def running(*, raises=False, on=True, budgets=()):
        counted(valkey_url, [cap("acme", "usd"), cap("acme", "tokens")])
        async with serve(provider, budget={"by_header": on, "by_header_raises": raises}) as made:
            gated(made, *budgets)

            async def call(track, said=None, path="/w/acme", **more):
                headers = {"x-taximeter-budget": said} if said else {}
                where = f"{path}/t/{track}/v1/chat/completions" if track else f"{path}/v1/chat/completions"
                return await post(made, {**CHAT, **more}, where, headers=headers)

            yield call

    return running


async def test_a_run_is_capped_by_its_first_call_and_no_later_one_raises_it(capped, provider, redis):
    async with capped() as call:
        assert (await call("run", "400 tokens")).status_code == 200
        assert (
            await redis.get("tm:{acme}:cap:tokens:run") == "400" and await redis.ttl("tm:{acme}:cap:tokens:run") > 10**7
        )
        held = int(await redis.hget("tm:{acme}:held", "cap_tokens/run"))
        assert (await call("run", "100000 tokens")).status_code == 200
        assert await redis.hget("tm:{acme}:held", "cap_tokens/run") == str(2 * held)
        assert (await call("run", max_tokens=400)).status_code == 429  # says nothing, and is of the run all the same
        await redis.hset("tm:{acme}:tally:tokens:total:0:track=run", "used", 390)
        refused = await call("run", "100000 tokens")
        assert refused.headers["x-taximeter-error"] == "insufficient_quota"
        assert "Track 'run' of workspace 'acme' has used its budget of 400 tokens: 390 tokens are spent" in refused.text
        assert (await call("other")).status_code == (await call("other", "0.5 USD")).status_code == 200
        assert (await call("other", "100000 tokens")).status_code == 200  # a cap of another unit is another cap
        assert await redis.get("tm:{acme}:cap:usd:other") == "500000000"
        assert (await call(None)).status_code == 200
    assert all(b"x-taximeter-budget" not in dict(each.headers) for each in provider.requests)


async def test_where_the_operator_lets_it_a_later_call_raises_the_cap_and_none_lowers_it(capped, redis):
    async with capped(raises=True) as call:
        for said, kept in (("400 tokens", "400"), ("300 tokens", "400"), ("5000 tokens", "5000")):
            await call("run", said)
            assert await redis.get("tm:{acme}:cap:tokens:run") == kept


@pytest.mark.parametrize("said", ["much", "2.5", "2.5 eur", "-1 usd", "0 tokens", "1.5 tokens", "NaN usd", "1e99 usd"])
async def test_a_cap_that_cannot_be_meant_is_refused(capped, provider, said):
    async with capped() as call:
        answer = await call("run", said)
        assert answer.status_code == 400 and "x-taximeter-budget" in answer.json()["error"]["message"]
    assert provider.requests == []


async def test_a_cap_without_a_track_is_refused_and_where_calls_may_not_cap_it_says_nothing(capped, provider, redis):
    async with capped() as call:
        assert (await call(None, "1 usd")).status_code == 400
    async with capped(on=False) as call:
        assert (await call("run", "much")).status_code == 200
    assert await redis.keys("tm:{acme}:cap:*") == []
    assert [b"x-taximeter-budget" in dict(each.headers) for each in provider.requests] == [False]


async def test_a_budget_of_each_workspace_is_each_ones_own(serve, provider, gated, redis):
    every = budget(workspace="*", limit=500)
    for name in ("acme", "beta"):
        await known(redis, name, budgets=[Budgets([every]).of_workspace(name)[0]])
    async with serve(provider) as running:
        gated(running, every)
        for name in ("acme", "beta"):
            assert (await post(running, path=f"/w/{name}/v1/chat/completions")).status_code == 200
            assert 0 < int(await redis.hget(f"tm:{{{name}}}:held", "b1")) < 250
        refused = await post(running, {**CHAT, "max_tokens": 250})
        assert refused.headers["x-taximeter-error"] == "budget_reserved"
