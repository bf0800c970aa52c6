"""Comparing on a whole node: by itself after the start, told in metrics and by the command; a reload takes others."""

import asyncio
import json
import time

import pytest
from click.testing import CliRunner

from faults.running import Node
from taximeter.cli import main

pytestmark = pytest.mark.xdist_group("processes")

SETTINGS = """
[[reconcile]]
name = "{name}"
kind = "file"
provider = "openai"
path = "{path}"
lag_h = 0
"""


async def test_a_bill_for_what_never_passed_is_told_by_itself(tmp_path):
    yesterday = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86_400))
    bill = tmp_path / "bill.csv"
    bill.write_text(f"date,model,input_tokens,cost_usd\n{yesterday},gpt-4o-mini,1000,0.5\n")
    async with Node(tmp_path / "n", config=SETTINGS.format(name="bill", path=bill), workers=1) as node:

        async def compared():
            return await node.metric('taximeter_reconcile_last_success_timestamp_seconds{reconcile="bill"}') > 0

        await node.until(compared, "the comparison to be done by itself")

        def cli(*args):
            env = {"TAXIMETER_URL": f"http://127.0.0.1:{node.admin}"}
            return asyncio.to_thread(CliRunner(env=env).invoke, main, ["reconcile", *args])

        done = await cli("bill", "--json")
        found = json.loads(done.stdout)
        assert (done.exit_code, found["state"], found["difference_ratio"]) == (1, "differs", 1.0)
        node.settings_file.write_text(node.settings_file.read_text().replace('name = "bill"', 'name = "invoice"'))
        assert await node.reload() == 0
        done = await cli("invoice", "--now")
        assert done.exit_code == 1 and done.stdout.startswith("invoice (file): differs, ")
        assert (await cli("bill")).exit_code == 4
