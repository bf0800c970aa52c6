"""Keys that end, and who made them, on a whole node: workers refuse in time, and the history has the audit log."""

import time

import httpx2
import pytest

from faults.running import Node
from waits import HANG_S

pytestmark = pytest.mark.xdist_group("processes")

BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}


async def test_a_key_ends_by_itself_and_a_rotated_one_opens_with_both_secrets(tmp_path):
    async with (
        Node(tmp_path, config='[auth]\nmode = "keys"\n', workers=1) as node,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.port}", timeout=HANG_S) as client,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.admin}", timeout=HANG_S) as control,
    ):

        async def called(secret):
            head = {"authorization": f"Bearer {secret}"}
            return await client.post("/v1/chat/completions", json=BODY, headers=head)

        async def opens(secret):
            return (await called(secret)).status_code == 200

        lasting = (await control.post("/keys", json={"workspace": "acme"})).json()
        await node.until(lambda: opens(lasting["key"]), "the key opens")
        turned = (await control.post(f"/keys/{lasting['id']}/rotate", json={})).json()
        await node.until(lambda: opens(turned["key"]), "the new secret opens")
        assert await opens(lasting["key"])
        at_s = time.time() + 2
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s + 1))
        short = (await control.post("/keys", json={"workspace": "acme", "expires_at": ends})).json()

        async def refused():
            answer = await called(short["key"])
            return answer.status_code == 401 and f"expired at {ends}" in answer.text

        await node.until(refused, "the key has ended")
        found = (await control.get("/audit")).json()["data"]
        assert [each["action"] for each in found] == ["key.create", "key.rotate", "key.create"]
        assert {each["actor"] for each in found} == {"loopback"}
        assert not (node.data / "audit.filing.jsonl").exists()
