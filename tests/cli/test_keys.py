import asyncio
import json

import pytest
from click.testing import CliRunner

from taximeter.cli import main
from taximeter.keys.rule import digest
from taximeter.node.audit import AuditLog


@pytest.fixture
def keys(control, tmp_path, free_address, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = {"TAXIMETER_DATA_DIR": str(tmp_path), "TAXIMETER_ADMIN_LISTEN": free_address, "COLUMNS": "200"}

    async def run(where, *args):
        place = ("--url", control.url) if where == "proxy" else ()
        return await asyncio.to_thread(CliRunner(env=env).invoke, main, ["keys", *args, *place])

    return run


@pytest.mark.parametrize("where", ["proxy", "file"])
async def test_a_key_is_made_listed_and_revoked(keys, where, control, tmp_path):
    made = await keys(where, "create", "--workspace", "acme", "--name", "ingest", "--model", "gpt-*")
    secret = made.stdout.strip()
    assert made.exit_code == 0 and control.keys.in_force().find(secret).workspace == "acme"
    (shown,) = json.loads((await keys(where, "list", "--json")).stdout)
    assert (shown["workspace"], shown["name"], shown["models"], shown["revoked_at"]) == (
        "acme",
        "ingest",
        ["gpt-*"],
        None,
    )
    assert shown["id"] == f"key_{digest(secret)[:12]}" and secret not in (await keys(where, "list")).stdout
    assert (await keys(where, "revoke", shown["id"])).stdout == f"{shown['id']} is revoked.\n"
    assert control.keys.in_force().find(secret) is None
    assert "revoked 20" in (await keys(where, "list", "--workspace", "acme")).stdout
    told = [(each.action, each.actor, each.target) for each in AuditLog(tmp_path).waiting()]
    actor = {"proxy": "loopback", "file": "command"}[where]
    assert told == [("key.create", actor, shown["id"]), ("key.revoke", actor, shown["id"])]


@pytest.mark.parametrize("where", ["proxy", "file"])
async def test_a_key_that_expires_is_rotated(keys, where, control):
    made = await keys(where, "create", "--workspace", "acme", "--expires", "9999w", "--json")
    first = json.loads(made.stdout)
    assert first["expires_at"].startswith("22")  # in two hundred years
    turned = await keys(where, "rotate", first["id"], "--overlap", "0s", "--expires", "2199-01-01")
    assert turned.exit_code == 0, turned.output
    assert "has another secret until 2199-01-01T00:00:00Z" in turned.stderr and "is ended" in turned.stderr
    found = control.keys.in_force()
    assert found.find(first["key"]) is None and found.find(turned.stdout.strip()).id == first["id"]
    for args in (("--expires", "soon"), ("--overlap", "soon")):
        wrong = await keys(where, "rotate", first["id"], *args)
        assert wrong.exit_code == 2 and "soon" in wrong.stderr


@pytest.mark.parametrize(("where", "code"), [("proxy", 2), ("file", 2)])
async def test_a_bad_workspace_is_told(keys, where, code):
    result = await keys(where, "create", "--workspace", "two words")
    assert result.exit_code == code and "1-128 characters" in result.stderr


@pytest.mark.parametrize("where", ["proxy", "file"])
async def test_an_unknown_key_cannot_be_revoked(keys, where):
    result = await keys(where, "revoke", "key_none")
    assert result.exit_code == 1 and "No key" in result.stderr
