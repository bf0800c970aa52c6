"""A hard budget on a whole node against every way known to make a call cost more than it looks; three workers, at once.

The provider reads as leniently as any and bills in full. What it bills, at the list price, must stay within the budget,
and a usual call must still get through.
"""

import asyncio
import gzip
import json

import httpx2
import pytest

import lenient_provider
from faults.running import Node
from upstream import Provider

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("processes")]

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 400}
LIMIT_NUSD = 4_000_000
"""What about ten usual calls are held for."""
JSON = {"content-type": "application/json"}
CALLS = 100


def as_json(**more):
    return json.dumps({**CHAT, **more}).encode()


ATTACKS = {
    "a byte order mark": (b"\xef\xbb\xbf" + as_json(max_tokens=4_000), JSON, "chat/completions"),
    "UTF-16": (as_json(max_tokens=4_000).decode().encode("utf-16"), JSON, "chat/completions"),
    "NaN": (as_json(max_tokens=4_000, temperature=float("nan")), JSON, "chat/completions"),
    "half a character": (as_json(max_tokens=4_000, user="\ud83d"), JSON, "chat/completions"),
    "text/plain": (as_json(max_tokens=4_000), {"content-type": "text/plain"}, "chat/completions"),
    "gzip": (
        gzip.compress(as_json(max_tokens=4_000), mtime=0),
        {**JSON, "content-encoding": "gzip"},
        "chat/completions",
    ),
    "members twice": (as_json()[:-1] + b', "max_tokens": 4000}', JSON, "chat/completions"),
    "a path in another case": (as_json(), JSON, "Chat/Completions"),
    "an encoded path": (as_json(), JSON, "chat%2Fcompletions"),
    "members in another case": (as_json(MAX_TOKENS=4_000), JSON, "chat/completions"),
    "a bound of another API": (
        as_json(max_tokens=None, max_output_tokens=1, Max_Tokens=4_000),
        JSON,
        "chat/completions",
    ),
    "n as a string": (as_json(n="1000"), JSON, "chat/completions"),
    "an odd tier": (as_json(max_tokens=4_000, service_tier=1), JSON, "chat/completions"),
    "a huge answer": (as_json(max_tokens=2**41), JSON, "chat/completions"),
    "a kept context": (as_json(previous_response_id="r"), JSON, "responses"),
    "an image": (as_json(messages=[{"content": [{"image_url": {"url": "http://x"}}]}]), JSON, "chat/completions"),
    "web searches": (as_json(tools=[{"type": "web_search_20250305"}]), JSON, "messages"),
    "stated web searches": (as_json(tools=[{"type": "web_search", "max_uses": 20}]), JSON, "messages"),
}


@pytest.fixture
async def node(tmp_path):
    provider = Provider()
    async with provider:
        provider.answering = lenient_provider.answer
        async with Node(tmp_path, workers=3, provider=provider) as running:
            yield running


async def budget(node, workspace):
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.admin}") as control:
        asked = {"workspace": workspace, "limit": f"{LIMIT_NUSD / 10**9:.9f}", "unit": "usd", "period": "total"}
        answer = await control.post("/budgets", json=asked)
        assert answer.status_code == 201, answer.text


def bill_nusd(answer):
    """At gpt-4o-mini's list price: $0.15 and $0.60 a million tokens, $0.01 a search."""
    usage = answer.json().get("usage") or {}
    searches = (usage.get("server_tool_use") or {}).get("web_search_requests", 0)
    tokens_in, tokens_out = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    return tokens_in * 150 + tokens_out * 600 + searches * 10_000_000


async def until_in_force(client):
    """Workers look for budgets four times a second: until no call of many at once passes the last one made."""
    asking = {**CHAT, "tools": [{"type": "web_search"}]}
    rounds = 0
    while rounds < 5:
        answers = await asyncio.gather(*(client.post("/w/last/v1/responses", json=asking) for _ in range(CALLS)))
        refused = all(answer.headers.get("x-taximeter-error") == "unbounded_request" for answer in answers)
        rounds = rounds + 1 if refused else 0


async def test_no_call_costs_more_than_is_held_for_it(node):
    workspaces = {kind: f"w{number}" for number, kind in enumerate(ATTACKS)}
    for workspace in (*workspaces.values(), "last"):
        await budget(node, workspace)
    limits = httpx2.Limits(max_connections=CALLS)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.port}", limits=limits, timeout=60) as client:
        await until_in_force(client)
        over, shut = {}, []
        for kind, (body, headers, path) in ATTACKS.items():
            url = f"/w/{workspaces[kind]}/v1/"
            attack = [client.post(url + path, content=body, headers=headers) for _ in range(CALLS)]
            answers = await asyncio.gather(*attack)
            usual = await client.post(url + "chat/completions", json=CHAT)
            billed = sum(bill_nusd(answer) for answer in (*answers, usual) if answer.status_code == 200)
            if billed > LIMIT_NUSD:
                over[kind] = billed / LIMIT_NUSD
            if usual.status_code != 200 and not any(answer.status_code == 200 for answer in answers):
                shut.append((kind, usual.text))
    assert over == {} and shut == []
