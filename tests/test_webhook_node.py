"""The billing webhook of a whole node: processes killed, receiver down, and a bill that agrees to the token."""

import httpx2
import msgspec
import pytest

from faults.running import Node
from receiver import Receiver
from waits import HANG_S

pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture
async def backend():
    async with Receiver() as running:
        yield running


@pytest.fixture
async def node(tmp_path, backend, monkeypatch):
    monkeypatch.setenv("BIZNDER_API_BASE_URL", backend.url)
    monkeypatch.setenv("BIZNDER_SERVICE_TOKEN", "billing-token")
    monkeypatch.setenv("BILLING_SECRET", "s3cret")
    config = '[webhook]\nsecret_env = "BILLING_SECRET"\nidle_s = 1.0\ntimeout_s = 2.0\n'
    async with Node(tmp_path, config=config, workers=1) as running:
        yield running


def sums(backend):
    found: dict[str, list[int]] = {}
    for got in backend.accepted.values():
        known = found.setdefault(got.json["track_id"], [0, 0, 0])
        metrics = got.json["metrics"]
        for at, name in enumerate(("prompt_tokens", "completion_tokens", "call_count")):
            known[at] += metrics[name]
    return found


async def test_what_the_backend_books_is_what_was_used_whatever_dies_in_between(node, backend):
    await backend.down()
    async with node.load(clients=3, seed=11):
        await node.until(lambda: node.sent >= 30, "30 calls")
        node.kill("control")
        await node.until(lambda: node.sent >= 60, "60 calls")
    await node.settle()
    node.kill_everything()
    node.start()
    await node.until_ready()
    backend.script = [500, "lose", "close", 503]
    await backend.up()
    records = node.records()
    used: dict[str, list[int]] = {}
    for record in records:
        if record.track:
            known = used.setdefault(record.track, [0, 0, 0])
            if record.operation == "llm":
                known[0] += record.input_tokens or 0
                known[1] += record.output_tokens or 0
                known[2] += 1
    await node.until(lambda: len(sums(backend)) == len(used), "everything sent")

    async def emptied():
        return await node.get("/webhook") == {"data": []}

    await node.until(emptied, "the outbox is empty")
    assert sums(backend) == used
    (got, *_) = backend.accepted.values()
    assert got.path == "/api/v1/webhooks/knowledge/metrics"
    assert got.headers["authorization"] == "Bearer billing-token" and "x-taximeter-signature" in got.headers
    assert "taximeter_webhook_dead_letters 0.0" in await node.get("/metrics")


async def test_closing_a_track_sends_it_at_once(node, backend):
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.port}", timeout=HANG_S) as client:
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
        await client.post("/w/acme/t/upload-7/v1/chat/completions", json=body)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.admin}", timeout=HANG_S) as control:
        closed = await control.post("/usage/tracks/upload-7/close")
        assert closed.json() == {"track": "upload-7", "workspace": "acme", "webhook": "queued"}
        shown = (await control.get("/usage/tracks/upload-7")).json()
        await node.until(lambda: backend.accepted, "sent")
        (got,) = backend.accepted.values()
        assert msgspec.json.decode(got.body)["metrics"] == shown["metrics"]
        again = await control.post("/usage/tracks/upload-7/close")
        assert again.json()["webhook"] == "nothing"
