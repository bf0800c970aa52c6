"""Cost and charge beside each other in `GET /usage` and in the terminal: what a statement of the same range says."""

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner

from control_plane import DAY_US, HOUR_US, NOON_US, bearing, embedding, record
from taximeter.billing import charging
from taximeter.billing.rule import Plan
from taximeter.cli import main
from taximeter.config import load
from taximeter.control.answers import queries
from taximeter.sinks.query import Filters

SETTINGS = """
[[plan]]
name = "standard"
workspaces = ["acme", "beta"]
markup_percent = 20

[[plan.price]]
code = "rag_embedding"
usd = 0.0002

[[plan]]
name = "dear"
workspaces = ["acme"]
valid_from = "2026-11-03T12:15:00Z"
markup_percent = 100

[[plan]]
name = "by volume"
workspaces = ["volume"]

[[plan.price]]
code = "output"
usd = 1
included = 10
"""
NOVEMBER = {"from": "2026-11-01", "to": "2026-12-01"}
CALLS = [
    record(1, task="query"),
    embedding(2, task="index"),
    record(3, task="query", ended_at=NOON_US + HOUR_US // 2, cost_nusd=7),
    record(4, task="query", ended_at=NOON_US + DAY_US, cost_nusd=None, unpriced_reason="model_without_price"),
    record(5, workspace="beta", cost_nusd=3),
    record(6, workspace="nobody"),
    record(7, workspace="volume"),
]


@pytest.fixture
async def charged(start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("taximeter.toml").write_text(SETTINGS)
    control = await start(load(None))
    await control.add(*CALLS)
    return control


async def test_each_group_and_window_has_its_charge_and_they_add_up_to_the_statements(charged):
    usage = await charged.get("/usage", **NOVEMBER, group_by="workspace", window="hour")
    told = {each["workspace"]: (each["charge_usd"], each["uncharged_requests"]) for each in usage["groups"]}
    assert told == {
        "acme": (0.000042814, 1),  # 39,600 + 3,200 + 14 nano-dollars
        "beta": (0.000000004, 0),
        "nobody": (None, 1),
        "volume": (None, 1),
    }
    assert (usage["charge_usd"], usage["uncharged_requests"], usage["charge_note"]) == (
        0.000042818, 3, charging.VOLUME,
    )  # fmt: skip
    acme = {each["start"]: each["charge_usd"] for each in usage["series"] if each["workspace"] == "acme"}
    assert acme == {"2026-11-03T12:00:00Z": 0.000042814, "2026-11-04T12:00:00Z": None}  # a plan began at 12:15
    margins = (await charged.get("/billing/margins", **NOVEMBER))["data"]
    assert [(each["charge_usd"], each["uncharged_requests"]) for each in margins if each["workspace"] != "volume"] == [
        told[name] for name in ("acme", "beta", "nobody")
    ]


async def test_a_tag_or_a_filter_changes_no_charge(charged):
    by_user = await charged.get("/usage", group_by="end_user,track", model="gpt-4o-mini", workspace="acme")
    assert [(each["end_user"], each["charge_usd"]) for each in by_user["groups"]] == [(None, 0.000039614)]


async def test_a_workspaces_key_sees_no_charge_and_without_plans_there_is_none(charged, start):
    _, secret = charged.keys.create("acme")
    own = (await charged.client.get("/usage", params={"group_by": "model"}, headers=bearing(secret))).json()
    assert "charge_usd" not in own and "charge_usd" not in own["groups"][0]
    Path("taximeter.toml").write_text("")
    without = await start(load(None))
    assert "charge_usd" not in await without.get("/usage")


async def test_the_terminal_shows_both_columns(charged):
    async def run(*args):
        argv = [*args, "--url", charged.url]
        return (await asyncio.to_thread(CliRunner(env={"COLUMNS": "200"}).invoke, main, argv)).output

    shown = await run("by-workspace")
    assert "Charge (USD)" in shown and "3 calls without a charge" in shown and charging.VOLUME in shown
    (volume,) = (line for line in shown.splitlines() if line.startswith("volume"))
    assert volume.split()[-1] == "—"
    assert "Charge: $0.000043 USD" in await run("stats", "--workspace", "acme")
    for verb in (("costs", "--from", "2026-11-01"), ("range", "--start", "2026-11-01", "--end", "2026-12-01")):
        assert "Charge (USD)" in await run(*verb)


async def test_a_history_that_no_proxy_serves_is_charged_by_the_settings_it_is_found_by(charged, tmp_path):
    Path("taximeter.toml").write_text(
        f'admin_listen = "127.0.0.1:1"\n{SETTINGS}\n[history]\nurl = "sqlite:///{tmp_path / "history.db"}"\n'
    )
    argv = ["by-workspace", "--config", "taximeter.toml", "--json"]
    found = await asyncio.to_thread(CliRunner().invoke, main, argv)
    assert '"charge_usd":0.000042818' in found.stdout, found.output


PLANS = [Plan(name="double", factor_ppm=2_000_000)]


async def test_what_cannot_be_reckoned_is_null_and_costs_no_answer(charged, monkeypatch):
    monkeypatch.setattr("taximeter.control.services.querying.MOST_ROWS", 2)
    usage = await charged.get("/usage")
    assert (usage["usage"]["requests"], usage["charge_usd"], usage["uncharged_requests"]) == (7, None, 7)
    assert usage["charge_note"] == charging.BETWEEN


class Moving:
    """A history to which calls come between two questions."""

    def __init__(self, reader):
        self.reader, self.asked = reader, []

    def usage(self, *asked):
        self.asked.append(asked[1])
        found = self.reader.usage(*asked)
        return [] if len(self.asked) == 1 else found  # the first knew of none yet


async def test_calls_that_come_between_two_questions_are_asked_for_again(charged):
    moving = Moving(charged.history.reader)
    answer = queries.read(moving, queries.usage(Filters(workspace="acme"), ("task",), None, "UTC", PLANS))
    assert answer.usage.requests == 4 and answer.charge_usd == 2 * (answer.estimated_cost_usd or 0)
    assert answer.charge_note is None and len(moving.asked) == 4


async def test_the_pages_have_cost_and_charge_beside_each_other(charged):
    asked = {"from": "2026-11-01", "to": "2026-12-01"}
    page = (await charged.client.get("/", params=asked)).text
    assert '<dd id="range-charge">$0.000043</dd>' in page and charging.VOLUME in page
    assert page.count('<th scope="col" class="num">Charge</th>') == 4 and "Without a charge: 3 calls." in page
    assert ">Share<" not in page  # there is room for one of both
    one = (await charged.client.get("/dashboard/workspaces/beta", params=asked)).text
    assert "&lt;$0.000001" in one and "Without a charge" not in one
    _, secret = charged.keys.create("acme")
    theirs = await charged.client.get("/dashboard/workspaces/acme", params=asked, headers=bearing(secret))
    assert theirs.status_code == 200 and "Charge" not in theirs.text
