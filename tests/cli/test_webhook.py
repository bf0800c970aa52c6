import asyncio
import json

import pytest
from click.testing import CliRunner

from ledger import batch, call
from taximeter.cli import main
from taximeter.sinks.history.database import Database
from taximeter.sinks.webhook.store import LetterResult, Store


@pytest.fixture
def run(tmp_path, free_address, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = {"TAXIMETER_DATA_DIR": str(tmp_path), "TAXIMETER_ADMIN_LISTEN": free_address, "COLUMNS": "200"}

    async def run(*args):
        return await asyncio.to_thread(CliRunner(env=env).invoke, main, ["webhook", *args])

    return run


@pytest.fixture
def outbox(tmp_path):
    """A dead letter and one still tried, in the history of a proxy that does not run."""
    with Database(f"sqlite:///{tmp_path / 'history.db'}") as database:
        store = Store(database, "n1", events=False, now_us=lambda: 1_795_348_800_000_000)
        store.prepare()
        store.apply([batch([call(track="dead"), call(track="waiting")], "j1")])
        store.cut("acme", "dead")
        store.claim(1_795_348_800_000_000, 1, 8)
        store.finish([LetterResult(key="n1:acme:dead:1", problem="answered 500", dead=True)])
        store.cut("acme", "waiting")
        yield store


async def test_letters_are_shown_and_resent_while_no_proxy_runs(run, outbox):
    shown = (await run("list")).stdout
    assert "n1:acme:dead:1" in shown and "answered 500" in shown and "n1:acme:waiting:1" in shown
    (dead,) = json.loads((await run("list", "--dead", "--json")).stdout)
    assert (dead["key"], dead["state"], json.loads(dead["body"])["track_id"]) == ("n1:acme:dead:1", "dead", "dead")
    assert (await run("resend", "n1:acme:dead:1")).stdout == "1 sent again.\n"
    assert outbox.letters(dead=True) == []
    assert (await run("resend", "--all", "--json")).stdout == '{"resent":0}\n'


async def test_resend_wants_keys_or_all(run, outbox):
    for args in ((), ("--all", "n1:acme:dead:1")):
        result = await run("resend", *args)
        assert result.exit_code == 2 and "--all" in result.stderr


async def test_a_history_without_a_webhook_has_an_empty_outbox(run, tmp_path):
    assert json.loads((await run("list", "--json")).stdout) == []
