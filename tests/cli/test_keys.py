import asyncio
import json

import pytest
from click.testing import CliRunner

from taximeter.cli import main
from taximeter.keys.rule import digest


@pytest.fixture
def keys(control, tmp_path, free_address, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = {"TAXIMETER_DATA_DIR": str(tmp_path), "TAXIMETER_ADMIN_LISTEN": free_address, "COLUMNS": "200"}

    async def run(where, *args):
        place = ("--url", control.url) if where == "proxy" else ()
        return await asyncio.to_thread(CliRunner(env=env).invoke, main, ["keys", *args, *place])

    return run


@pytest.mark.parametrize("where", ["proxy", "file"])
async def test_a_key_is_made_listed_and_revoked(keys, where, control):
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


@pytest.mark.parametrize(("where", "code"), [("proxy", 2), ("file", 2)])
async def test_a_bad_workspace_is_told(keys, where, code):
    result = await keys(where, "create", "--workspace", "two words")
    assert result.exit_code == code and "1-128 characters" in result.stderr


@pytest.mark.parametrize("where", ["proxy", "file"])
async def test_an_unknown_key_cannot_be_revoked(keys, where):
    result = await keys(where, "revoke", "key_none")
    assert result.exit_code == 1 and "No key" in result.stderr
