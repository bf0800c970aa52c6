import asyncio
import json

import pytest
from click.testing import CliRunner

from taximeter.cli import main


@pytest.fixture
def budgets(tmp_path, free_address, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = {"TAXIMETER_DATA_DIR": str(tmp_path), "TAXIMETER_ADMIN_LISTEN": free_address, "COLUMNS": "200"}

    async def run(*args):
        return await asyncio.to_thread(CliRunner(env=env).invoke, main, ["budgets", *args])

    return run


async def test_a_budget_is_made_listed_and_ended_while_no_proxy_runs(budgets):
    made = await budgets("create", "--workspace", "acme", "--usd", "12.50")
    assert made.exit_code == 0 and made.stdout.endswith(": acme may use $12.50 a month.\n")
    told = await budgets(
        "create", "--workspace", "acme", "--task", "query", "--tokens", "5000", "--period", "total", "--json"
    )
    task = json.loads(told.stdout)
    assert (task["task"], task["limit"], task["unit"], task["period"], task["spent"]) == (
        "query", 5000, "tokens", "total", None,
    )  # fmt: skip
    shown = (await budgets("list")).stdout
    assert "acme task query" in shown and "5,000 tokens" in shown and "$12.50 a month" in shown
    assert (await budgets("end", task["id"])).stdout == f"{task['id']} is ended.\n"
    assert len(json.loads((await budgets("list", "--json")).stdout)) == 1
    assert (await budgets("end", "bud_none")).exit_code == 1


@pytest.mark.parametrize(
    "wrong", [(), ("--usd", "1", "--tokens", "1"), ("--usd", "much"), ("--tokens", "1.5"), ("--usd", "-1")]
)
async def test_a_limit_that_cannot_be_meant_is_wrong_usage(budgets, wrong):
    assert (await budgets("create", "--workspace", "acme", *wrong)).exit_code == 2
