"""Budgets on a whole node: made over HTTP, held under load, never overspent, let go when a worker is killed."""

import asyncio
import json
from collections import Counter
from typing import Any

import httpx2
import pytest

from faults.running import Node
from upstream import STALL, Script, chunk, response, stream_head
from waits import HANG_S

pytestmark = pytest.mark.xdist_group("processes")

CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 60}


@pytest.fixture
async def node(tmp_path):
    async with Node(tmp_path, workers=2, chunks=4, chunk_ms=20) as running:
        yield running


async def budget(node, **asked):
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.admin}", timeout=HANG_S) as control:
        answer = await control.post("/budgets", json=asked)
        assert answer.status_code == 201, answer.text
    return answer.json()


async def standing(node):
    return (await node.get("/budgets"))["data"][0]


async def until_it_holds(node, client, path):
    """Workers look for budgets four times a second: until a marked call is refused or held, none is in force."""
    seen = 0
    while seen < 8:  # both workers
        await client.post(path, json=CHAT)
        await node.settle()
        seen = sum("budgets" in record.tags for record in node.records())


async def test_a_hard_budget_is_never_overspent_and_a_killed_worker_holds_nothing(node):
    made = await budget(node, workspace="acme", limit="6000", unit="tokens", period="total")
    assert (made["limit"], made["spent"], made["held"], made["resets_at"]) == (6000, 0, 0, None)
    limits = httpx2.Limits(max_connections=40)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.port}", limits=limits, timeout=HANG_S) as client:
        await until_it_holds(node, client, "/w/acme/v1/chat/completions")
        answers = []

        async def call(number):
            body = {**CHAT, "stream": number % 2 == 0}
            try:
                answer = await client.post("/w/acme/v1/chat/completions", json=body)
            except httpx2.HTTPError:
                return
            answers.append((answer.status_code, answer.headers.get("x-taximeter-error")))

        async def held():
            return (await standing(node))["held"] > 0

        for wave in range(8):
            calls = [asyncio.ensure_future(call(n)) for n in range(40)]
            if wave == 1:
                await node.until(held, "held")
                node.kill("worker")
            await asyncio.gather(*calls)
            now = await standing(node)
            assert now["spent"] + now["held"] <= 6000
        kinds = set(answers)
        assert (200, None) in kinds and kinds <= {(200, None), (429, "budget_reserved"), (429, "insufficient_quota")}
        while answers[-1] != (429, "insufficient_quota"):
            await call(1)
    await node.settle()
    now = await standing(node)
    assert now["held"] == 0 and 0 < now["spent"] <= 6000
    assert now["spent"] == (await node.get("/usage?workspace=acme"))["usage"]["total_tokens"]

    async def shown():
        return await node.metric("taximeter_budget_spent_ratio") > 0.9

    await node.until(shown, "the ratio is shown")


async def test_a_task_budget_counts_what_was_used_before_it_was_made(node):
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.port}", timeout=HANG_S) as client:
        await client.post("/w/acme/k/query/v1/chat/completions", json=CHAT)
        await client.post("/w/acme/k/extract/v1/chat/completions", json=CHAT)
        await node.settle()
        (used,) = [record.total_tokens for record in node.records() if record.task == "query"]
        made = await budget(node, workspace="acme", task="query", limit=str(used), unit="tokens", period="month")
        assert made["spent"] == used and made["resets_at"] is not None
        refused = 0
        while not refused:
            refused += (await client.post("/w/acme/k/query/v1/chat/completions", json=CHAT)).status_code == 429
        assert (await client.post("/w/acme/k/extract/v1/chat/completions", json=CHAT)).status_code == 200
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.admin}", timeout=HANG_S) as control:
            ended = (await control.delete(f"/budgets/{made['id']}")).json()
            assert ended["id"] == made["id"] and await node.get("/budgets") == {"data": []}
        passed = 0
        while not passed:
            passed += (await client.post("/w/acme/k/query/v1/chat/completions", json=CHAT)).status_code == 200


async def test_calls_that_cost_nothing_do_not_stop_the_counters(node):
    await budget(node, workspace="acme", limit="600000", unit="tokens", period="total")
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.port}", timeout=HANG_S) as client:
        await until_it_holds(node, client, "/w/acme/v1/chat/completions")
        for _ in range(20):
            assert (await client.get("/w/acme/v1/models")).status_code == 200
            await client.post("/w/acme/v1/vector_stores", json={})
            assert (await client.post("/w/acme/v1/chat/completions", json=CHAT)).status_code == 200
    await node.settle()
    assert await node.problems() == [] and node.log.read_text().count("Rebuilt the Redis") == 1
    now = await standing(node)
    assert (now["held"], now["spent"]) == (0, (await node.get("/usage?workspace=acme"))["usage"]["total_tokens"])


RERANK = {"model": "rerank-v3.5", "query": "hello there", "documents": ["one", "two"]}


@pytest.fixture
async def lone(tmp_path):
    async with Node(tmp_path, workers=1) as running:
        yield running


async def test_of_a_thousand_calls_at_once_exactly_those_pass_that_the_budget_is_for(lone):
    gate = asyncio.Event()
    body = json.dumps({"id": "x", "results": [], "meta": {"billed_units": {"search_units": 1}}}).encode()
    lone.provider.handler = lambda request: Script(
        (gate, response(body, headers=[("content-type", "application/json")]))
    )
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{lone.port}", limits=limits, timeout=120) as client:
        one = await asyncio.create_task(held_by_one(lone, client))
        await budget(lone, workspace="acme", limit=str(10 * one), unit="tokens", period="total")
        await until_asked(lone, client, "acme")
        calls = [asyncio.ensure_future(client.post("/w/acme/v1/rerank", json=RERANK)) for _ in range(1_000)]

        async def all_decided():
            return sum(call.done() for call in calls) >= 990

        await lone.until(all_decided, "refused")
        gate.set()
        answers = await asyncio.gather(*calls)
    kinds = Counter((answer.status_code, answer.headers.get("x-taximeter-error")) for answer in answers)
    assert kinds == {(200, None): 10, (429, "budget_reserved"): 990}


async def held_by_one(node, client):
    """What a call of RERANK holds, in tokens."""
    await budget(node, workspace="probe", limit="1000000", unit="tokens", period="total")
    await until_asked(node, client, "probe")
    call = asyncio.ensure_future(client.post("/w/probe/v1/rerank", json=RERANK))

    async def held():
        return (await standing(node))["held"] > 0

    await node.until(held, "held")
    one = (await standing(node))["held"]
    node.provider.handler, before = None, node.provider.handler
    node.provider.drop_connections()
    await call
    node.provider.handler = before
    return one


async def until_asked(node, client, workspace):
    """Until workers know the budget: a call that cannot pass is marked."""

    async def known():
        await client.post(f"/w/{workspace}/v1/vector_stores", json={})
        return any(r.workspace == workspace and "budgets" in r.tags for r in node.records())

    node.provider.handler, before = None, node.provider.handler
    await node.until(known, "known to the workers")
    node.provider.handler = before


@pytest.fixture
async def strict(tmp_path):
    async with Node(tmp_path, workers=2, config='[budget]\non_unavailable = "refuse"\n') as running:
        yield running


async def test_a_redis_that_is_emptied_does_not_open_a_spent_budget(strict):
    await budget(strict, workspace="acme", limit="300", unit="tokens", period="total")
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{strict.port}", timeout=30) as client:
        await until_it_holds(strict, client, "/w/acme/v1/chat/completions")

        async def ask():
            answer = await client.post("/w/acme/v1/chat/completions", json=CHAT)
            return answer.headers.get("x-taximeter-error")

        async def spent():
            return await ask() == "insufficient_quota"

        await strict.until(spent, "spent")
        await strict.settle()
        for _ in range(3):
            with strict.redis() as redis:
                redis.flushall()
            answers = await asyncio.gather(*(ask() for _ in range(100)))
            assert set(answers) <= {"insufficient_quota", "budget_unavailable"}
            await strict.until(spent, "spent again")
        assert sum(bill.usage["total_tokens"] for bill in strict.provider.ledger) <= 300


async def test_what_may_have_been_billed_stays_charged_until_somebody_knows_better(strict):
    """Streams left before their head: the provider bills them, nobody told us how much."""
    await budget(strict, workspace="acme", limit="2000", unit="tokens", period="total")
    body = {**CHAT, "stream": True}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{strict.port}", timeout=30) as client:
        await until_asked(strict, client, "acme")
        strict.provider.delay_ms = 60_000
        refused, reached = None, len(strict.provider.requests)
        while refused is None:
            wave = [asyncio.ensure_future(client.post("/w/acme/v1/chat/completions", json=body)) for _ in range(40)]

            def on_their_way(wave=wave, reached=reached):
                there = len(strict.provider.requests) - reached
                return there + sum(call.done() for call in wave) >= len(wave)

            await strict.until(on_their_way, "at the provider or refused")
            reached = len(strict.provider.requests)
            for call in wave:
                call.cancel()
            ended = [call for call in await asyncio.gather(*wave, return_exceptions=True) if hasattr(call, "headers")]
            kinds = {answer.headers.get("x-taximeter-error") for answer in ended}
            assert kinds <= {"budget_reserved", "insufficient_quota"}
            await strict.settle()
            refused = "insufficient_quota" if kinds == {"insufficient_quota"} and len(ended) == 40 else None
        now = await standing(strict)
        assert (now["spent"], now["held"]) == (0, 0) and 0 < now["charged"] <= 2000
        billed = sum(bill.usage["total_tokens"] for bill in strict.provider.ledger)
        assert 0 < billed <= 2000
        with strict.redis() as redis:
            redis.flushall()

        async def there_again():
            return (await standing(strict))["charged"] == now["charged"]

        await strict.until(there_again, "charged again after a rebuild from history")
        listed = (await strict.get("/budgets/charges?workspace=acme"))["data"]
        assert sum(each["charged_tokens"] for each in listed) == now["charged"]
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{strict.admin}", timeout=60) as control:
            for each in listed[:-1]:
                settled = await control.post(f"/budgets/charges/{each['request_id']}", json={"tokens": 5, "usd": "0"})
                assert settled.json()["data"] == [each]
            again = await control.post(f"/budgets/charges/{listed[-1]['request_id']}", json={})
            assert again.status_code == 200
        await strict.settle()
        assert (await standing(strict))["charged"] == 5 * (len(listed) - 1)
        strict.provider.delay_ms = 0

        async def passes():
            return (await client.post("/w/acme/v1/chat/completions", json=CHAT)).status_code == 200

        await strict.until(passes, "passing again")


async def test_streams_left_in_the_middle_stay_charged_at_their_bound(strict):
    """A client that reads a little and leaves, again and again: the provider may go on and bill the whole answer."""
    limit = 1000
    await budget(strict, workspace="acme", limit=str(limit), unit="tokens", period="total")
    event = b'data: {"model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{strict.port}", timeout=HANG_S) as client:
        await until_asked(strict, client, "acme")
        strict.provider.handler = lambda _request: Script((stream_head(), chunk(event), STALL))
        statuses: list[int] = []
        while 200 in statuses[-1:] or not statuses:
            body = {**CHAT, "stream": True}
            async with client.stream("POST", "/w/acme/v1/chat/completions", json=body) as answer:
                statuses.append(answer.status_code)
                if answer.status_code == 200:
                    await anext(answer.aiter_bytes())
            await strict.settle()
            assert len(statuses) < 20, "left for nearly nothing"
        assert statuses[-1] == 429
        now = await standing(strict)
    left = statuses.count(200)
    assert left >= 2
    assert now["charged"] > 0 and now["held"] == 0
    assert left * CHAT["max_tokens"] <= now["spent"] + now["charged"] <= limit


async def test_a_killed_workers_calls_stay_charged(strict):
    await budget(strict, workspace="acme", limit="3000", unit="tokens", period="total")
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{strict.port}", timeout=60) as client:
        await until_asked(strict, client, "acme")
        strict.provider.delay_ms = 60_000
        for _ in range(2):
            reached = len(strict.provider.requests)
            wave = [asyncio.ensure_future(client.post("/w/acme/v1/chat/completions", json=CHAT)) for _ in range(60)]

            def on_their_way(wave=wave, reached=reached):
                return len(strict.provider.requests) - reached + sum(call.done() for call in wave) >= len(wave)

            await strict.until(on_their_way, "at the provider or refused")
            gone = strict.kill("worker")
            await asyncio.gather(*wave, return_exceptions=True)
            await strict.until_replaced("worker", gone)
            await strict.settle()
        now = await standing(strict)
        billed = sum(bill.usage["total_tokens"] for bill in strict.provider.ledger)
        assert now["held"] == 0 and 0 < billed <= now["spent"] + now["charged"] <= 3000


async def test_runs_are_capped_and_each_workspace_has_its_budget_from_its_first_call_on(tmp_path):
    config = '[budget]\nby_header = true\non_unavailable = "refuse"\n'
    async with Node(tmp_path, workers=2, config=config, chunks=4, chunk_ms=5) as node:
        await budget(node, workspace="*", limit="1000", unit="output_tokens", period="day", tz="Europe/Berlin")
        said = {"x-taximeter-budget": "600 tokens"}
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.port}", timeout=HANG_S) as client:
            await until_it_holds(node, client, "/w/before/t/any/v1/chat/completions")

            async def calls(path, **more):
                answers = await asyncio.gather(*(client.post(path, json=CHAT, **more) for _ in range(30)))
                return Counter(answer.headers.get("x-taximeter-error") for answer in answers)

            for workspace in ("new", "newer"):  # nobody has heard of it
                first = await client.post(f"/w/{workspace}/t/run/v1/chat/completions", json=CHAT, headers=said)
                assert first.status_code == 200, first.text
                told = Counter[str | None]()
                while not told["insufficient_quota"]:
                    told += await calls(f"/w/{workspace}/t/run/v1/chat/completions")
                    assert set(told) <= {None, "budget_reserved", "insufficient_quota"}
                    await node.settle()
                of_run = [each for each in node.records() if (each.workspace, each.track) == (workspace, "run")]
                assert 300 < sum((each.total_tokens or 0) + (each.charged_tokens or 0) for each in of_run) <= 600
            told = Counter[str | None]()
            while not told["insufficient_quota"]:
                told += await calls("/w/new/t/other/v1/chat/completions")
                assert set(told) <= {None, "budget_reserved", "insufficient_quota"}
                await node.settle()
        for workspace in ("new", "newer"):
            mine = [each for each in node.records() if each.workspace == workspace]
            assert sum((each.output_tokens or 0) + (each.charged_output_tokens or 0) for each in mine) <= 1_000
