"""Calls that are billed later, on whole nodes: settled once, for who asked, whoever fetches and whatever dies."""

import asyncio
import json

import httpx2
import pytest

from faults.running import Node
from gateway.test_cost import script
from taximeter.core.deferred import TOLD
from upstream import Provider, response
from waits import HANG_S

pytestmark = pytest.mark.xdist_group("processes")

JSON = [("content-type", "application/json")]
CHAT = {
    "object": "chat.completion",
    "model": "gpt-4o-mini",
    "choices": [],
    "usage": {"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100},
}
BATCH = {"id": "batch_1", "object": "batch", "status": "completed", "output_file_id": "file-1"}
LINES = b"".join(
    json.dumps({"custom_id": f"line-{n}", "response": {"status_code": 200, "body": CHAT}}).encode() + b"\n"
    for n in range(300)
)
BACKGROUND = {"id": "resp_1", "object": "response", "model": "gpt-5", "background": True, "status": "queued"}
ENDED = {**BACKGROUND, "status": "completed", "usage": {"input_tokens": 40, "output_tokens": 2}}
ANSWERS = {
    "POST /v1/responses": json.dumps(BACKGROUND).encode(),
    "GET /v1/responses/resp_1": json.dumps(ENDED).encode(),
    "POST /v1/batches": json.dumps({"id": "batch_1", "object": "batch", "status": "validating"}).encode(),
    "GET /v1/batches/batch_1": json.dumps(BATCH).encode(),
    "GET /v1/files/file-1/content": LINES,
}


def answer(request):
    return script(response(ANSWERS[f"{request.method} {request.target}"], headers=JSON))


@pytest.fixture
async def provider():
    async with Provider() as running:
        running.handler = answer
        yield running


async def submit(node):
    async with httpx2.AsyncClient(base_url=node.url, timeout=HANG_S) as client:
        got = await client.post("/w/acme/t/run-1/k/nightly/v1/batches", json={"input_file_id": "f", "endpoint": "/v1"})
        assert got.json()["id"] == "batch_1"


async def fetch(node, workspace="acme"):
    """Both answers, whole or not: somebody may die in the middle."""
    for path in ("batches/batch_1", "files/file-1/content"):
        try:
            async with httpx2.AsyncClient(base_url=node.url, timeout=HANG_S) as client:
                await client.get(f"/w/{workspace}/t/other/v1/{path}")
        except httpx2.HTTPError:
            pass


async def tokens(node, query="workspace=acme&task=nightly&track=run-1"):
    found = await node.get(f"/usage?{query}")
    return None if found is None else found["usage"]["llm"]["input_tokens"]


async def settled(node):
    async def whole():
        return await tokens(node) == 300_000

    await node.until(whole, "settled")


OWN = '[[upstream]]\nname = "own"\nbase_url = "{}"\napi_key_env = "OWN_KEY"\ncollect = true\n'
"""An upstream of which Taximeter fetches itself what nobody fetches."""


async def test_a_batch_is_its_submitters_at_its_price_once_however_often_and_by_whom_it_is_fetched(tmp_path, provider):
    own = OWN.format(provider.base_url)
    async with Node(tmp_path, workers=1, provider=provider, upstreams=own, env={"OWN_KEY": "sk-own"}) as node:
        async with httpx2.AsyncClient(base_url=node.url, timeout=HANG_S) as asking:
            await asking.post("/w/gamma/u/own/v1/responses", json={"model": "gpt-5", "input": "x", "background": True})
        await submit(node)
        await fetch(node, "beta")
        for _ in range(3):
            await fetch(node)
        await settled(node)

        async def nothing_owed():
            return await node.get("/usage/owed") == {"data": []}

        await node.until(nothing_owed, "nothing owed")
        await node.settle()
        assert await tokens(node) == 300_000
        whole = await node.get("/usage?workspace=acme")
        # the batch, and six polls by whoever: no call more for its lines
        assert (whole["usage"]["requests"], whole["usage"]["total_tokens"]) == (7, 330_000)
        assert whole["usage"]["unknown_requests"] == 0
        client = node.redis()
        assert client.hget("tm:{acme}:total", "llm_input_tokens") == "300000"
        client.close()
        records = (await node.get("/usage/events?workspace=acme&limit=400"))["data"]
        lines = [each for each in records if each.get("line")]
        assert len(lines) == len({each["line"] for each in lines}) == 300
        assert {each["service_tier"] for each in lines} == {"batch"}
        # half of 0.15 and 0.60 USD a million
        assert {each["cost_nusd"] for each in lines} == {75_000 + 30_000}
        assert await tokens(node, "workspace=beta") == 0
        gamma = (await node.get("/usage?workspace=gamma"))["usage"]
        assert (gamma["requests"], gamma["total_tokens"]) == (1, 42)  # fetched by nobody but the node, which is no call
        fetched = [each for each in provider.requests if each.target.endswith("/resp_1")]
        assert {each.header("authorization") for each in fetched} == {"Bearer sk-own"}


def of_kind(node, *kinds):
    """Records of the journals that tell, or settle, a line."""
    return [each for each in node.records() if each.line and each.kind in kinds]


async def dies(node, whom, moment):
    """kill -9 once this has happened, which its journals tell; then everything is there again."""
    await node.until(moment, "at the moment")
    if whom == "everything":
        node.kill_everything()
        node.start()
    else:
        gone = node.kill(whom)
        await node.until_replaced(whom, gone)
    await node.until_ready()


@pytest.mark.parametrize(("while_told", "while_settled"), [("worker", "control"), ("everything", "everything")])
async def test_whoever_dies_while_it_is_told_or_settled_each_line_is_settled_once(
    tmp_path, provider, while_told, while_settled
):
    rest = asyncio.Event()
    half = LINES.index(b"line-150") - 15

    def slowly(request):
        if not request.target.endswith("/content") or rest.is_set():
            return answer(request)
        head, body = response(LINES, headers=JSON).split(b"\r\n\r\n", 1)
        return script(head + b"\r\n\r\n" + body[:half], rest, body[half:])

    provider.handler = slowly
    async with Node(tmp_path, workers=1, provider=provider) as node:
        await submit(node)
        polling = asyncio.create_task(fetch(node))
        await dies(node, while_told, lambda: len(of_kind(node, TOLD)) == 150)
        rest.set()
        await polling
        polling = asyncio.create_task(fetch(node))
        await dies(node, while_settled, lambda: of_kind(node, "usage"))
        await polling
        await fetch(node)
        await settled(node)
        await node.settle()
        assert sorted({each.line for each in of_kind(node, "usage")}) == sorted(f"line-{n}" for n in range(300))
        assert (len(of_kind(node, "usage")), await tokens(node)) == (300, 300_000)
        client = node.redis()
        assert client.hget("tm:{acme}:total", "llm_input_tokens") == "300000"
        client.close()
