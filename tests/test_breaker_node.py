"""The runaway breaker on a whole node: a loop is stopped, told, stays stopped over a restart, and is let go on."""

import asyncio
import json

import httpx2
import pytest
from click.testing import CliRunner

from faults.running import Node
from receiver import Receiver
from taximeter.cli import main
from waits import HANG_S, happens

pytestmark = pytest.mark.xdist_group("processes")

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 60}
BREAKER = """
[[breaker]]
name = "runaway"
scope = "track"
unit = "tokens"
floor = 100
ceiling = 200
"""


async def test_a_loop_is_stopped_on_every_worker_and_stays_so(tmp_path):
    async with Receiver() as backend:
        config = f'{BREAKER}\n[webhook]\nurl = "{backend.url}"\nformat = "cloudevents"\n'
        async with Node(tmp_path, config=config, workers=2) as node:
            url = f"http://127.0.0.1:{node.port}"

            async def call(track):
                async with httpx2.AsyncClient(base_url=url, timeout=HANG_S) as client:
                    return await client.post(f"/w/acme/t/{track}/v1/chat/completions", json=CHAT)

            async def stopped():
                return (await call("loop")).headers.get("x-taximeter-error") == "breaker_open"

            await node.until(stopped, "the loop to be stopped")
            for _ in range(8):  # whichever worker it is
                await node.until(stopped, "every worker to know")
            assert (await call("other")).status_code == 200

            def cli(*args):
                env = {"TAXIMETER_URL": f"http://127.0.0.1:{node.admin}"}
                return asyncio.to_thread(CliRunner(env=env).invoke, main, ["breaker", *args])

            (trip,) = json.loads((await cli("list", "--json")).stdout)
            assert (trip["track"], trip["usual"], trip["limit"], trip["armed_at"]) == ("loop", None, 200, None)
            assert trip["rate"] > 200
            assert await node.metric('taximeter_breaker_open{breaker="runaway"}') == 1
            assert await node.metric('taximeter_breaker_trips_total{breaker="runaway"}') == 1
            kind = "taximeter.breaker.tripped"
            await happens(lambda: any(got.json["type"] == kind for got in backend.accepted.values()))

            node.kill_everything()
            node.start()
            await node.until_ready()
            assert await stopped()
            shown = await cli("reset", "--all")
            assert shown.stdout == f"{trip['id']}: acme track loop may call again.\n"

            async def passes():
                return (await call("loop")).status_code == 200

            await node.until(passes, "the loop to go on")
            assert json.loads((await cli("list", "--json")).stdout) == []
            assert len(json.loads((await cli("list", "--all", "--json")).stdout)) == 1
            entries = [json.loads(line) for line in (node.data / "audit.jsonl").read_text().splitlines()]
            assert [each["target"] for each in entries if each["action"] == "breaker.reset"] == [trip["id"]]
            assert (await cli("reset", "trip_none")).exit_code == 1
            assert (await cli("reset")).exit_code == 2
