import asyncio
import json

import pytest
from click.testing import CliRunner

from ledger import T0, batch, call
from taximeter.cli import main
from taximeter.config import JournalSettings
from taximeter.delivery import Delivery
from taximeter.delivery.aside import Aside, Letter
from taximeter.sinks.batch import Batch


@pytest.fixture
def run(tmp_path, free_address, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = {"TAXIMETER_DATA_DIR": str(tmp_path), "TAXIMETER_ADMIN_LISTEN": free_address, "COLUMNS": "200"}

    async def run(*args):
        return await asyncio.to_thread(CliRunner(env=env).invoke, main, ["deadletters", *args])

    return run


@pytest.fixture
def aside(tmp_path):
    """One record that history did not take, one that the webhook did not."""
    (tmp_path / "journal").mkdir()
    made = Aside(tmp_path / "journal")
    first, second = batch([call(request_id="r1"), call(request_id="r2")]).records
    made.put(Letter(sink="history", problem="DataError: odd", set_aside_at=T0, record=first))
    made.put(Letter(sink="webhook", problem="KeyError: 'x'", set_aside_at=T0 + 1, record=second))
    return made


async def test_they_are_shown_while_no_proxy_runs(run, aside):
    shown = (await run("list")).stdout
    assert "history/j1:1" in shown and "DataError: odd" in shown and "webhook/j1:2" in shown
    (one,) = json.loads((await run("list", "--sink", "webhook", "--json")).stdout)
    assert (one["key"], one["request_id"], one["workspace"]) == ("webhook/j1:2", "r2", "acme")


async def test_without_a_proxy_nothing_can_be_taken_and_nothing_is_lost(run, aside):
    result = await run("replay", "--all")
    assert result.exit_code == 3 and "taximeter serve" in result.stderr
    assert len(aside.letters()) == 2


async def test_replay_wants_keys_or_all(run, aside):
    for args in ((), ("--all", "history/j1:1")):
        result = await run("replay", *args)
        assert result.exit_code == 2 and "--all" in result.stderr


async def test_a_running_proxy_takes_them_and_says_which_stay(run, aside, start, tmp_path):
    first = await start()
    await first.history.deliver([Batch(journal_id="j1", after=0, upto=1, records=[])])
    delivery = Delivery(tmp_path / "journal", [first.history], settings=JournalSettings(), node="n1", now_us=lambda: T0)
    control = await start(deadletters=delivery)
    result = await run("replay", "--all", "--url", control.url)
    assert result.exit_code == 1
    assert result.stdout == "1 taken.\nwebhook/j1:2 stays: NotFound: no sink webhook is configured that could take it\n"
    assert [letter.key for letter in delivery.aside.letters()] == ["webhook/j1:2"]
    assert (await control.get("/usage"))["usage"]["requests"] == 1
    assert [each["key"] for each in (await control.get("/deadletters"))["data"]] == ["webhook/j1:2"]
    assert (await control.get("/deadletters", sink="history"))["data"] == []


async def test_a_control_plane_that_delivers_nothing_has_none(start):
    assert (await (await start()).client.get("/deadletters")).status_code == 404
