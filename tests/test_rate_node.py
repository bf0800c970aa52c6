"""Rates on whole nodes: exact for many calls at once on several workers of two nodes; a killed worker's calls are
freed; a Redis that is killed or emptied opens no window twice."""

import asyncio
import json
from collections import Counter

import httpx2
import pytest
import redis

from faults.running import Node
from upstream import STALL, Script, response
from valkeys import Server, free_ports, running
from waits import HANG_S

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("processes")]

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 60}
ANSWER = json.dumps({"model": "gpt-4o-mini", "choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": 2}})
RATES = """
[[rate]]
name = "requests"
workspace = "requests"
requests_per_minute = 70
[[rate]]
name = "tokens"
workspace = "tokens"
tokens_per_minute = 10000
[[rate]]
name = "calls"
workspace = "calls"
concurrent = 50
[[rate]]
name = "users"
workspace = "users"
end_user = "*"
concurrent = 1
"""


def answer():
    return response(ANSWER.encode(), headers=[("content-type", "application/json")])


async def call(client, workspace, **headers):
    return await client.post(f"/w/{workspace}/v1/chat/completions", json=CHAT, headers=headers)


def client_of(node):
    limits = httpx2.Limits(max_connections=None)
    return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.port}", limits=limits, timeout=HANG_S)


def kinds(answers):
    return Counter((each.status_code, each.headers.get("x-taximeter-error")) for each in answers)


async def test_exact_for_200_calls_at_once_on_three_workers_of_each_of_two_nodes(tmp_path, postgres_server):
    [port] = free_ports(1)
    server = Server(tmp_path / "redis", port)
    postgres_url = postgres_server.database()
    config = f'[redis]\nurl = "{server.url}"\n[history]\nurl = "{postgres_url}"\n{RATES}'
    more = {"config": config, "history_url": postgres_url, "redis_client": lambda: redis.Redis(port=port)}
    async with (
        running(server),
        Node(tmp_path / "a", workers=3, **more) as one,
        Node(tmp_path / "b", workers=3, provider=one.provider, **more) as other,
        client_of(one) as here,
        client_of(other) as there,
    ):
        gate = asyncio.Event()
        one.provider.handler = lambda _: Script((gate, answer()))

        async def at_once(workspace, allowed):
            calls = [asyncio.ensure_future(call((here, there)[n % 2], workspace)) for n in range(200)]

            async def decided():
                return sum(each.done() for each in calls) >= 200 - allowed

            await one.until(decided, "decided")
            gate.set()
            answers = await asyncio.gather(*calls)
            gate.clear()
            assert kinds(answers) == {(200, None): allowed, (429, "rate_limit_exceeded"): 200 - allowed}
            return [each for each in answers if each.status_code == 200]

        passed = await at_once("requests", 70)
        left = sorted(int(each.headers["x-ratelimit-remaining-requests"]) for each in passed)
        assert left == list(range(70))
        await at_once("calls", 50)
        await at_once("calls", 50)  # all of them were freed
        gate.set()
        first = await call(here, "tokens")
        held = 10_000 - int(first.headers["x-ratelimit-remaining-tokens"])
        gate.clear()

        async def counted():
            return sum(map(int, await server.client.hvals("tm:{tokens}:rate:tokens:tokens"))) == 10

        await one.until(counted, "counted as what it used")
        await at_once("tokens", (10_000 - 10) // held)


async def test_a_killed_workers_calls_no_longer_count(tmp_path):
    async with Node(tmp_path, workers=1, config=RATES) as node, client_of(node) as client:
        node.provider.script(STALL)
        stuck = asyncio.ensure_future(call(client, "users", **{"x-end-user": "alice"}))
        await node.provider.until(lambda: node.provider.requests and node.provider.requests[0].complete)
        assert (await call(client, "users", **{"x-end-user": "alice"})).status_code == 429
        assert (await call(client, "users", **{"x-end-user": "bob"})).status_code == 200
        gone = node.kill("worker")
        with pytest.raises(httpx2.HTTPError):
            await stuck
        await node.until_replaced("worker", gone)

        async def freed():
            async with client_of(node) as fresh:
                return (await call(fresh, "users", **{"x-end-user": "alice"})).status_code == 200

        await asyncio.wait_for(node.until(freed, "freed"), 30)  # a lease alone would take a minute


async def test_a_redis_that_is_killed_or_emptied_opens_no_window_twice(tmp_path):
    config = f'[budget]\non_unavailable = "refuse"\n{RATES}'
    async with Node(tmp_path, workers=2, config=config) as node, client_of(node) as client:
        passed = 0

        async def until_full():
            nonlocal passed
            kind = None
            while kind != "rate_limit_exceeded":
                answers = await asyncio.gather(*(call(client, "requests") for _ in range(10)))
                passed += sum(each.status_code == 200 for each in answers)
                kind = answers[0].headers.get("x-taximeter-error")
                assert {status for status, _ in kinds(answers)} <= {200, 429, 503}

        await until_full()
        assert passed == 70
        gone = node.kill("valkey")
        await node.until_replaced("valkey", gone)
        await until_full()
        with node.redis() as emptied:
            emptied.flushall()
        await until_full()
        assert passed == 70
