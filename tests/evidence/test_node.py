"""Evidence on a whole node, while it runs: history, journals, a receipt and an export hold."""

import asyncio
import json

import httpx2
import pytest
from click.testing import CliRunner

from faults.running import Node
from taximeter.cli import main
from waits import HANG_S, happens

pytestmark = pytest.mark.xdist_group("processes")

BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}


async def test_a_running_node_is_proven(tmp_path):
    key = tmp_path / "key.pem"
    async with (
        Node(tmp_path, workers=1, config=f'[evidence]\nkey_file = "{key}"\n') as node,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.port}", timeout=HANG_S) as client,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.admin}", timeout=HANG_S) as control,
    ):

        async def run(*args):
            env = {"TAXIMETER_DATA_DIR": str(node.data), "TAXIMETER_EVIDENCE__KEY_FILE": str(key)}
            result = await asyncio.to_thread(CliRunner(env=env).invoke, main, [*args])
            assert result.exit_code == 0, result.output
            return result.output

        async def warned():
            return "evidence.key_file" in (await control.get("/readyz")).text

        assert await happens(warned), "a key that is not there is told before the day is over"
        await run("evidence", "keygen", str(key))
        answers = [await client.post("/v1/chat/completions", json=BODY) for _ in range(3)]
        last = answers[-1].headers["x-taximeter-request-id"]
        assert len((await control.get(f"/usage/requests/{last}")).json()["data"]) == 1
        report = json.loads(await run("verify", "--json"))
        assert (report["faults"], report["records"], report["lines"], report["unsealed"]) == ([], 3, 3, 3)
        assert "There is no root yet" in await run("evidence", "roots")
        assert await run("evidence", "keys") == "No root has been signed.\n"
        await run("evidence", "seal")
        env = {"TAXIMETER_DATA_DIR": str(node.data), "COLUMNS": "80"}
        narrow = await asyncio.to_thread(CliRunner(env=env).invoke, main, ["evidence", "roots"])
        assert len(narrow.output.splitlines()) == 2 and len(narrow.output.splitlines()[1]) == 64
        receipt = (await control.get(f"/evidence/receipts/{last}")).text
        (tmp_path / "receipt.json").write_text(receipt)
        assert "As it was delivered: 1 record," in await run("receipt", "--check", str(tmp_path / "receipt.json"))
        env = {"TAXIMETER_DATA_DIR": str(node.data)}
        never = await asyncio.to_thread(CliRunner(env=env).invoke, main, ["receipt", "never"])
        assert (never.exit_code, "Nothing is recorded of the request 'never'." in never.stderr) == (4, True)
        exported = await control.get("/evidence/export")
        (tmp_path / "all.evidence").write_bytes(exported.content)
        report = json.loads(await run("verify", str(tmp_path / "all.evidence"), "--json"))
        assert (report["faults"], report["records"], report["roots"]) == ([], 3, 1)
        assert len((await control.get("/evidence/roots")).json()["data"]) == 1
