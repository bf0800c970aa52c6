import pytest

from control_plane import bearing, record
from taximeter.config import AuthSettings, ControlSettings, KeySettings, Settings
from taximeter.control.door.access import ADMIN, Caller, identify
from taximeter.keys.rule import Keys, ProxyKey, digest

ADMIN_TOKEN = "the-admin-token"
ACME, BETA = "tm-acme", "tm-beta"
SECURED = Settings(
    auth=AuthSettings(
        admin_token_sha256=digest(ADMIN_TOKEN),
        keys=[
            KeySettings(id="key_acme", sha256=digest(ACME), workspace="acme"),
            KeySettings(id="key_beta", sha256=digest(BETA), workspace="beta"),
        ],
    )
)
USAGE_PATHS = ("/usage", "/usage/events", "/usage/tracks/t", "/usage/export.csv", "/usage/export.jsonl", "/prices",
               "/usage/groups.csv?group_by=model",
               "/schema", "/v1/organization/usage/completions?start_time=1&end_time=90",
               "/v1/organization/costs?start_time=1&end_time=90")  # fmt: skip
ADMIN_PATHS = ("/keys", "/metrics")


KEYS = Keys([ProxyKey(id="k", sha256=digest(ACME), workspace="acme")])
HASH = digest(ADMIN_TOKEN)


@pytest.mark.parametrize(
    ("token", "local", "admin_hash", "admin", "workspace"),
    [
        (None, True, "", True, None),  # a laptop: loopback is trusted
        (None, False, "", False, None),
        (None, True, HASH, False, None),  # a token is configured: loopback alone is not enough
        (None, False, HASH, False, None),
        (b"the-admin-token", False, HASH, True, None),
        (b"the-admin-tokem", False, HASH, False, None),
        (b"anything", True, "", True, None),  # OpenAI's SDK always sends something
        (b"anything", False, "", False, None),
        (b"anything", True, HASH, False, None),
        (b"tm-acme", True, "", False, "acme"),
        (b"tm-acme", False, HASH, False, "acme"),
        (b"tm-revoked", True, "", False, None),  # a dead key opens nothing, not even on loopback
    ],
)
def test_who_a_token_stands_for(token, local, admin_hash, admin, workspace):
    caller = identify(token, local=local, admin_token_sha256=admin_hash, keys=KEYS)
    assert (caller.admin, caller.workspace) == (admin, workspace)
    assert bool(caller.problem) is not (admin or workspace is not None)


def test_the_admin_is_one_value():
    assert identify(None, local=True, admin_token_sha256="", keys=KEYS) == ADMIN == Caller(admin=True)


async def test_without_a_token_only_the_probes_answer_and_tell_nothing(start):
    control = await start(SECURED)
    control.node.troubles = ["Redis does not answer."]
    for path in (*USAGE_PATHS, *ADMIN_PATHS, "/usage/live"):
        answer = await control.client.get(path)
        assert answer.status_code == 401, path
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/healthz", "/livez"):
        assert (await control.client.get(path)).json() == {"status": "ok"}
    ready = await control.client.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"ready": False})


async def test_the_admin_token_opens_everything(start):
    control = await start(SECURED)
    control.node.troubles = ["Redis does not answer."]
    for path in (*USAGE_PATHS, *ADMIN_PATHS):
        answer = await control.client.get(path, headers=bearing(ADMIN_TOKEN))
        assert answer.status_code == 200, (path, answer.text)
    health = (await control.client.get("/healthz", headers=bearing(ADMIN_TOKEN))).json()
    assert health["version"] and health["node"] == "n1"
    ready = await control.client.get("/readyz", headers=bearing(ADMIN_TOKEN))
    assert ready.json() == {"ready": False, "problems": ["Redis does not answer."], "warnings": []}


async def test_a_workspaces_key_sees_its_own_usage_and_nothing_else(start):
    control = await start(SECURED)
    await control.add(record(1, track="t"), record(2, track="t", workspace="beta", input_tokens=7))
    mine, client = bearing(ACME), control.client
    for path in USAGE_PATHS:
        assert (await client.get(path, headers=mine)).status_code == 200, path
    for path in ADMIN_PATHS:
        answer = await client.get(path, headers=mine)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden"), path
    assert (await client.post("/keys", json={"workspace": "acme"}, headers=mine)).status_code == 403
    totals = (await client.get("/usage", headers=mine)).json()
    assert (totals["usage"]["requests"], totals["filters"]) == (1, {"workspace": "acme"})
    events = (await client.get("/usage/events", headers=mine)).json()["data"]
    assert [each["workspace"] for each in events] == ["acme"]
    track = (await client.get("/usage/tracks/t", headers=mine)).json()
    assert (track["workspace"], track["token_usage"]["llm_input_tokens"]) == ("acme", 100)
    export = (await client.get("/usage/export.jsonl", headers=mine)).text
    assert "req-1" in export and "req-2" not in export
    hour = {"start_time": 1_793_700_000, "end_time": 1_793_710_000}
    buckets = (await client.get("/v1/organization/usage/completions", params=hour, headers=mine)).json()["data"]
    assert sum(each["num_model_requests"] for bucket in buckets for each in bucket["results"]) == 1
    assert (await client.get("/healthz", headers=mine)).json() == {"status": "ok"}


OTHERS = (
    "/usage?workspace=acme", "/usage?workspace=beta,acme", "/usage/events?workspace=acme", "/usage/requests/req-1",
    "/usage/tracks/t?workspace=acme", "/usage/export.csv?workspace=acme", "/usage/live?workspace=acme",
    "/v1/organization/usage/completions?start_time=1&project_ids=acme",
    "/v1/organization/costs?start_time=1&project_ids[]=acme",
)  # fmt: skip


async def test_another_workspace_is_not_found_exactly_as_if_it_did_not_exist(start):
    control = await start(SECURED)
    await control.add(record(1, track="t"))
    for path in OTHERS:
        answer = await control.client.get(path, headers=bearing(BETA))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path
        absent = await control.client.get(
            path.replace("acme", "absent").replace("req-1", "none"), headers=bearing(BETA)
        )
        assert absent.text.replace("absent", "acme").replace("none", "req-1") == answer.text


@pytest.mark.parametrize("path", ["/usage?after=", "/usage/tracks/t?after="])
async def test_waiting_for_anothers_request_is_as_waiting_for_one_that_does_not_exist(start, monkeypatch, path):
    control = await start(SECURED)
    await control.add(record(1, track="t"))

    async def complete(request_id, token):
        return (await control.client.get(path + request_id, headers=bearing(token))).json()["complete"]

    assert (await complete("req-1", ACME), await complete("req-1", ADMIN_TOKEN)) == (True, True)
    monkeypatch.setattr("taximeter.control.services.querying.AFTER_S", 0.05)
    assert (await complete("req-1", BETA), await complete("none", BETA)) == (False, False)


async def test_a_workspaces_key_cannot_close_anothers_track(start):
    control = await start(SECURED)
    await control.add(record(1, track="t"))
    answer = await control.client.post("/usage/tracks/t/close?workspace=acme", headers=bearing(BETA))
    assert answer.status_code == 404
    own = await control.client.post("/usage/tracks/t/close", headers=bearing(ACME))
    assert own.json()["workspace"] == "acme"


async def test_an_unknown_or_revoked_key_is_refused_even_on_loopback(control):
    made = (await control.client.post("/keys", json={"workspace": "acme"})).json()
    assert (await control.client.get("/usage", headers=bearing(made["key"]))).status_code == 200
    assert (await control.client.delete(f"/keys/{made['id']}")).status_code == 200
    answer = await control.client.get("/usage", headers=bearing(made["key"]))
    assert answer.status_code == 401 and "revoked" in answer.json()["error"]["message"]


async def test_open_metrics_needs_no_token(start):
    control = await start(Settings(auth=SECURED.auth, control=ControlSettings(open_metrics=True)))
    answer = await control.client.get("/metrics")
    assert (answer.status_code, answer.text) == (200, "up 1\n")
    assert (await control.client.get("/usage")).status_code == 401


async def test_behind_a_reverse_proxy_loopback_is_not_trusted(control):
    for header in ("x-forwarded-for", "forwarded", "x-real-ip"):
        answer = await control.client.get("/usage", headers={header: "203.0.113.9"})
        assert answer.status_code == 401, header


async def test_a_rebound_name_and_a_foreign_page_are_refused(control):
    answer = await control.client.get("/usage", headers={"host": "evil.example"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (403, "host")
    answer = await control.client.post("/keys", json={"workspace": "acme"}, headers={"origin": "https://evil.example"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (403, "origin")
    answer = await control.client.get("/usage", headers={"host": "localhost:8001", "origin": "http://localhost:8001"})
    assert answer.status_code == 200


async def test_doubled_credentials_are_refused(control):
    answer = await control.client.get("/usage", headers=[("authorization", "Bearer a"), ("authorization", "Bearer b")])
    assert answer.status_code == 400
