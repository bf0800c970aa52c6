"""`taximeter reprice` on a whole node, running and stopped: every sink follows, and nothing is corrected twice."""

import asyncio
import json
import os
import subprocess
import sys

import httpx2
import pytest

from faults.running import Node
from waits import HANG_S

pytestmark = pytest.mark.xdist_group("processes")


def price(usd):
    return (
        '[[price]]\nprovider = "openai"\nmodel = "gpt-4o-mini"\nfrom = 2020-01-01\n'
        f'input_usd_per_mtok = {usd}\noutput_usd_per_mtok = {usd}\nsource = "contract"\n'
    )


@pytest.fixture
async def node(tmp_path):
    file = tmp_path / "prices.toml"
    file.write_text(price(1))
    async with Node(tmp_path, config=f'prices_file = "{file}"\n', workers=1) as running:
        yield running


async def reprice(node, *args):
    argv = [sys.executable, "-m", "taximeter", "reprice", "--from", "2020-01-01", "--json",
            "--config", str(node.folder / "taximeter.toml"), *args]  # fmt: skip
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, env=os.environ, cwd=node.folder)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)["total"]


async def books(node):
    """Cost by Redis and by SQL, of the workspace used here."""
    await node.settle()
    client = node.redis()
    counted = int(client.hget("tm:{acme}:total", "cost_nusd"))
    client.close()
    return counted, round((await node.get("/usage?workspace=acme"))["estimated_cost_usd"] * 10**9)


async def test_new_prices_reach_every_sink_once_whether_it_runs_or_not(node, tmp_path):
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.port}", timeout=HANG_S) as client:
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
        for _ in range(5):
            assert (await client.post("/w/acme/v1/chat/completions", json=body)).status_code == 200
    redis, sql = await books(node)
    assert redis == sql > 0
    (tmp_path / "prices.toml").write_text(price(3))
    assert (await reprice(node, "--dry-run"))["corrected"] == 5
    assert await books(node) == (redis, redis)
    assert (await reprice(node))["corrected"] == 5
    assert await books(node) == (3 * redis, 3 * redis)
    node.kill("control")
    await node.until_ready()
    assert (await reprice(node))["corrected"] == 0

    await node.stop()
    (tmp_path / "prices.toml").write_text(price(2))
    assert (await reprice(node))["corrected"] == 5
    assert (await reprice(node))["corrected"] == 0
    node.start()
    await node.until_ready()
    assert await books(node) == (2 * redis, 2 * redis)
    assert (await reprice(node))["corrected"] == 0
