"""Calls that are billed later, on whole nodes: settled once, for who asked, whoever fetches and whatever dies."""

import asyncio
import json

import httpx2
import pytest

from faults.running import Node
from gateway.test_cost import script
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
ANSWERS = {
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


async def test_a_batch_is_its_submitters_at_its_price_once_however_often_its_file_is_fetched(tmp_path, provider):
    async with Node(tmp_path, workers=1, provider=provider) as node:
        await submit(node)
        await fetch(node, "beta")
        for _ in range(3):
            await fetch(node)
        await settled(node)
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


@pytest.mark.parametrize("whom", ["control", "worker", "everything"])
async def test_whoever_dies_while_it_is_settled_each_line_is_settled_once(tmp_path, provider, whom):
    async with Node(tmp_path, workers=2, provider=provider) as node:
        await submit(node)
        for pause_s in (0.0, 0.3, 0.9, 1.5):
            polling = asyncio.create_task(fetch(node))
            await asyncio.sleep(pause_s)  # a different moment of it each time
            if whom == "everything":
                node.kill_everything()
                await polling
                node.start()
            else:
                gone = node.kill(whom)
                await polling
                await node.until_replaced(whom, gone)
            await node.until_ready()
        await fetch(node)
        await settled(node)
        await node.settle()
        assert await tokens(node) == 300_000
        client = node.redis()
        assert client.hget("tm:{acme}:total", "llm_input_tokens") == "300000"
        client.close()
