"""`GET /audit`: what is changed on the control port, and who is refused there, leaves an entry; no secret does."""

import logging
import re
from pathlib import Path

import pytest

from control_plane import bearing
from taximeter.config import AuthSettings, Settings
from taximeter.control.door import attempts
from taximeter.control.door.attempts import OF_ADDRESS
from taximeter.core.audit import ACTIONS
from taximeter.keys.rule import digest

TOKEN = "the-admin-token"
SECURED = Settings(auth=AuthSettings(admin_token_sha256=digest(TOKEN)))


@pytest.fixture
async def audited(start, monkeypatch):
    """However slow the machine is, no try comes back while a test runs."""
    monkeypatch.setattr(attempts, "OF_ADDRESS_S", 10_000.0)
    return await start(SECURED)


async def entries(control, **asked):
    answer = await control.client.get("/audit", headers=bearing(TOKEN), params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def test_a_key_leaves_who_made_rotated_and_ended_it(audited):
    head = bearing(TOKEN) | {"x-taximeter-user": "alice"}
    made = (await audited.client.post("/keys", json={"workspace": "acme", "name": "ingest"}, headers=head)).json()
    turned = (await audited.client.post(f"/keys/{made['id']}/rotate", json={}, headers=head)).json()
    await audited.client.delete(f"/keys/{made['id']}", headers=head)
    await audited.client.delete("/keys/key_none", headers=head)
    none, ended, rotated, created = await entries(audited)
    assert [each["action"] for each in (created, rotated, ended, none)] == [
        "key.create", "key.rotate", "key.revoke", "key.revoke",
    ]  # fmt: skip
    assert {(each["actor"], each["user"], each["address"], each["node"]) for each in (created, none)} == {
        ("admin token", "alice", "127.0.0.1", "n1")
    }
    assert created["target"] == made["id"] and created["before"] is None
    assert (created["after"]["workspace"], created["after"]["name"]) == ("acme", "ingest")
    assert (rotated["before"]["rotated_at"], rotated["after"]["rotated_at"]) == (None, turned["rotated_at"])
    assert (ended["before"]["state"], ended["after"]["state"]) == ("active", "revoked")
    assert (none["outcome"], none["problem"]) == ("failed", "No key 'key_none'.")
    everything = str(await entries(audited)) + "".join(
        file.read_text(errors="replace") for file in audited.keys.path.parent.iterdir() if file.is_file()
    )
    for secret in (made["key"], turned["key"], TOKEN):
        assert secret not in everything
    assert made["key"][3:] not in everything and digest(made["key"]) not in str(await entries(audited))


async def test_twelve_wrong_tokens_leave_a_trace_and_are_limited(audited, caplog):
    caplog.set_level(logging.WARNING)
    for _ in range(OF_ADDRESS + 2):
        await audited.client.post("/dashboard/login", data={"token": "a-guess"}, follow_redirects=False)
    again = await audited.client.post("/dashboard/login", data={"token": TOKEN}, follow_redirects=False)
    assert again.status_code == 429
    _, secret = audited.keys.create("acme")  # the address waits, and reads with a key of another's: by the store
    assert (await audited.client.get("/usage", headers=bearing(secret))).status_code == 200
    found = [each for each in audited.audit.waiting() if each.action == "sign_in"]
    assert len(found) == OF_ADDRESS
    assert {(each.actor, each.outcome, each.address) for each in found} == {("nobody", "refused", "127.0.0.1")}
    assert "further tries are refused" in found[-1].problem
    assert "a-guess" not in str(found)


async def test_sessions_wrong_headers_and_wrong_keys_leave_entries(audited):
    await audited.client.post("/dashboard/login", data={"token": TOKEN}, follow_redirects=False)
    await audited.client.post("/dashboard/logout", follow_redirects=False)
    await audited.client.get("/usage", headers=bearing("a-wrong-one"))
    for _ in range(OF_ADDRESS + 5):  # a script with an old key fills nothing
        await audited.client.get("/usage", headers=bearing("tm-gone"))
    _, secret = audited.keys.create("acme")
    refused = await audited.client.post("/keys", json={"workspace": "acme"}, headers=bearing(secret))
    assert refused.status_code == 403
    found = await entries(audited)
    actions = [each["action"] for each in reversed(found)]
    assert actions[:3] == ["sign_in", "sign_out", "token.refused"]
    assert 0 < actions.count("key.refused") <= OF_ADDRESS
    signed_in, signed_out = found[-1], found[-2]
    assert signed_in["actor"] == "admin token" and signed_out["actor"].startswith("session ")
    (own,) = await entries(audited, action="request.refused")
    assert (own["target"], own["outcome"]) == ("POST /keys", "refused") and own["actor"].startswith("key key_")
    assert (await entries(audited, outcome="refused", limit=1))[0]["outcome"] == "refused"


async def test_only_an_admin_reads_it_and_a_misspelt_action_is_told(audited):
    _, secret = audited.keys.create("acme")
    assert (await audited.client.get("/audit", headers=bearing(secret))).status_code == 403
    answer = await audited.client.get("/audit", headers=bearing(TOKEN), params={"action": "key.made"})
    assert answer.status_code == 400 and "key.create" in answer.json()["error"]["message"]


def test_every_action_can_be_asked_for_and_is_documented():
    sources = (Path(__file__).parents[2] / "proxy/taximeter").rglob("*.py")
    noted = {name for path in sources for name in re.findall(r"\.(?:act|note)\(\s*\"([a-z_.]+)\"", path.read_text())}
    assert len(noted) > 15 and noted <= set(ACTIONS)
    page = (Path(__file__).parents[2] / "docs/day-2.md").read_text()
    assert [name for name in ACTIONS if f"`{name}`" not in page] == []
