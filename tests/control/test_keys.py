import pytest

from taximeter.config import AuthSettings, KeySettings, Settings
from taximeter.core.errors import BadRequest, DataDirError, Forbidden, NotFound
from taximeter.keys.rule import digest
from taximeter.keys.store import KeyStore

DECLARED = AuthSettings(keys=[KeySettings(id="conf", sha256=digest("tm-conf"), workspace="beta")])


@pytest.fixture
def ring(tmp_path):
    return KeyStore(tmp_path, DECLARED, now_us=lambda: 1_793_707_200_000_000, random=lambda n: bytes(range(n)))


def test_a_created_key_opens_its_workspace_until_revoked(ring):
    key, secret = ring.create("acme", name="ingest", models=["gpt-*"])
    assert secret.startswith("tm-") and len(secret) == 67
    assert ring.in_force().find(secret) == key
    revoked = ring.revoke(key.id)
    assert revoked.revoked_at and ring.in_force().find(secret) is None
    assert ring.revoke(key.id) == revoked
    assert [each.id for each in ring.listing()] == ["conf", key.id]


def test_the_secret_is_not_in_the_file(ring, tmp_path):
    _, secret = ring.create("acme")
    assert secret not in (tmp_path / "keys.json").read_text()


def test_a_key_made_by_another_process_is_seen(ring, tmp_path):
    other = KeyStore(tmp_path, DECLARED, now_us=lambda: 2, random=bytes)
    _, secret = other.create("gamma")
    assert ring.in_force().find(secret).workspace == "gamma"
    ring.create("acme")  # and is not lost when this one writes
    assert {each.workspace for each in other.listing()} == {"beta", "gamma", "acme"}


def test_a_file_that_got_broken_leaves_the_known_keys_in_force(ring, tmp_path, caplog):
    _, secret = ring.create("acme")
    (tmp_path / "keys.json").write_text("{ broken")
    assert ring.in_force().find(secret).workspace == "acme" and "keys.json: cannot be read" in caplog.text
    with pytest.raises(DataDirError):
        ring.create("beta")  # and nothing is written over what may still be saved


def test_what_cannot_be_done_says_why(ring):
    with pytest.raises(BadRequest, match="1-128 characters"):
        ring.create("two words")
    with pytest.raises(Forbidden, match="declared in the configuration"):
        ring.revoke("conf")
    with pytest.raises(NotFound, match="No key 'nope'"):
        ring.revoke("nope")


ENDLESS: dict[str, object] = {"expires_at": None, "rotated_at": None, "old_secret_until": None, "state": "active"}


async def test_over_http_a_key_is_created_listed_and_revoked(start):
    control = await start(Settings(auth=DECLARED))
    answer = await control.client.post("/keys", json={"workspace": "acme", "name": "n", "models": ["gpt-*"]})
    made = answer.json()
    assert answer.status_code == 201 and made.pop("key").startswith("tm-")
    assert made == {
        "id": made["id"], "workspace": "acme", "name": "n", "models": ["gpt-*"], "declared": False,
        "created_at": "2026-11-03T12:00:00Z", "revoked_at": None, **ENDLESS,
    }  # fmt: skip
    conf: dict[str, object] = ENDLESS | {
        "id": "conf", "workspace": "beta", "name": "", "models": [], "declared": True, "created_at": None,
        "revoked_at": None,
    }  # fmt: skip
    assert (await control.get("/keys")) == {"data": [conf, made]}
    assert (await control.get("/keys", workspace="acme")) == {"data": [made]}
    assert (await control.client.delete(f"/keys/{made['id']}")).json()["revoked_at"] == "2026-11-03T12:00:00Z"
    assert (await control.client.delete("/keys/conf")).status_code == 403
    assert (await control.client.delete("/keys/nope")).status_code == 404


BAD_BODIES = {
    b'{"workspace":"two words"}': 400, b'{"workspac":"a"}': 400, b"{": 400, b"[]": 400, b"\xff": 400, b"": 400,
    b'{"workspace":"a","name":"' + b"x" * 70_000 + b'"}': 413,
}  # fmt: skip


async def test_a_bad_body_is_told_in_the_one_error_shape(control):
    for body, status in BAD_BODIES.items():
        answer = await control.client.post("/keys", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status, (body[:30], answer.text)
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


HOUR_US = 3_600_000_000
START_US = 1_793_707_200_000_000


@pytest.fixture
def clock():
    return [START_US]


@pytest.fixture
def dated(tmp_path, clock):
    return KeyStore(tmp_path, DECLARED, now_us=lambda: clock[0])


def test_a_key_ends_when_it_expires_without_anybody_touching_it(dated, clock):
    key, secret = dated.create("acme", expires_at=START_US + HOUR_US)
    assert dated.in_force().find(secret) == key and dated.info(key).state == "active"
    clock[0] += HOUR_US
    assert dated.in_force().find(secret) is None and dated.info(key).state == "expired"
    assert "expired at 2026-11-03T13:00:00Z" in dated.in_force().why_not(secret)
    with pytest.raises(BadRequest, match="is past"):
        dated.create("acme", expires_at=START_US)


def test_rotating_keeps_the_key_and_lets_the_old_secret_hold_for_the_overlap(dated, clock):
    key, first = dated.create("acme", models=["gpt-*"], expires_at=START_US + 48 * HOUR_US)
    clock[0] += 12 * HOUR_US
    rotated, second = dated.rotate(key.id, overlap_s=3_600)
    assert (rotated.id, rotated.workspace, rotated.models) == (key.id, "acme", ("gpt-*",))
    assert rotated.expires_at == START_US + 60 * HOUR_US  # as long again as it was made for
    assert {dated.in_force().find(secret) for secret in (first, second)} == {rotated}
    clock[0] += HOUR_US
    assert dated.in_force().find(first) is None and dated.in_force().find(second) == rotated
    again, third = dated.rotate(key.id, overlap_s=0, expires_at=0)
    assert dated.in_force().find(second) is None and dated.in_force().find(third) == again and again.expires_at == 0
    dated.revoke(key.id)
    assert dated.in_force().find(third) is None
    with pytest.raises(BadRequest, match="was revoked"):
        dated.rotate(key.id)
    with pytest.raises(Forbidden, match="declare another key"):
        dated.rotate("conf")


def test_rotating_again_keeps_what_was_promised_to_the_secret_before(dated, clock):
    key, first = dated.create("acme")
    _, second = dated.rotate(key.id, overlap_s=7_200)
    clock[0] += HOUR_US // 2
    rotated, third = dated.rotate(key.id, overlap_s=600)
    assert {dated.in_force().find(secret) for secret in (first, second, third)} == {rotated}
    assert dated.info(rotated).old_secret_until == "2026-11-03T14:00:00Z"
    clock[0] += HOUR_US
    assert [dated.in_force().find(secret) for secret in (first, second, third)] == [rotated, None, rotated]
    _, fourth = dated.rotate(key.id, overlap_s=0)
    assert [bool(dated.in_force().find(secret)) for secret in (first, second, third, fourth)] == [False] * 3 + [True]


def test_an_expired_key_rotated_gets_a_new_life_and_its_old_secret_none(dated, clock):
    key, first = dated.create("acme", expires_at=START_US + HOUR_US)
    clock[0] += 2 * HOUR_US
    rotated, second = dated.rotate(key.id)
    assert dated.in_force().find(second) == rotated and rotated.expires_at == START_US + 3 * HOUR_US
    assert dated.in_force().find(first) is None


def test_a_declared_key_can_expire(tmp_path, clock):
    auth = AuthSettings(keys=[KeySettings(id="c", sha256=digest("tm-c"), workspace="w", expires="2026-11-04")])
    ring = KeyStore(tmp_path, auth, now_us=lambda: clock[0])
    assert ring.in_force().find("tm-c") is not None
    clock[0] += 12 * HOUR_US
    assert ring.in_force().find("tm-c") is None


async def test_over_http_a_key_expires_and_is_rotated(control):
    refused = await control.client.post("/keys", json={"workspace": "acme", "expires_at": "2020-01-01"})
    assert refused.status_code == 400 and "is past" in refused.json()["error"]["message"]
    body = {"workspace": "acme", "expires_at": "2026-12-03T12:00:00Z"}
    made = (await control.client.post("/keys", json=body)).json()
    assert made["expires_at"] == "2026-12-03T12:00:00Z"
    turned = (await control.client.post(f"/keys/{made['id']}/rotate", json={"overlap_s": 60})).json()
    assert turned["id"] == made["id"] and turned["key"] != made["key"]
    assert turned["old_secret_until"] == "2026-11-03T12:01:00Z"
    usage = [await control.client.get("/usage", headers={"authorization": f"Bearer {key}"})
             for key in (made["key"], turned["key"])]  # fmt: skip
    assert [answer.status_code for answer in usage] == [200, 200]
