"""`taximeter audit`: what entries say, for people."""

import asyncio

import pytest
from click.testing import CliRunner

from taximeter.budgets.store import BudgetStore
from taximeter.cli import main


@pytest.mark.parametrize(
    ("unit", "limit", "shown"),
    [
        ("usd", 12_500_000_000, "unit=usd, period=month, tz=UTC, limit=12.5,"),
        ("seconds", 1_500, "unit=seconds, period=month, tz=UTC, limit=1.5,"),
        ("tokens", 2_000_000, "unit=tokens, period=month, tz=UTC, limit=2000000,"),
    ],
)
async def test_a_budget_is_told_in_its_unit_and_with_its_key(control, tmp_path, unit, limit, shown):
    store = BudgetStore(tmp_path, audit=control.audit)
    store.create("acme", limit, unit=unit, period="month", mode="hard", key_id="key_1f2e3d4c5b6a")
    env = {"TAXIMETER_DATA_DIR": str(tmp_path), "COLUMNS": "300"}
    told = await asyncio.to_thread(CliRunner(env=env).invoke, main, ["audit", "--url", control.url])
    assert told.exit_code == 0, told.output
    assert "workspace=acme, key_id=key_1f2e3d4c5b6a, " in told.stdout and shown in told.stdout
