import pytest

from dashboards import ADMIN_TOKEN
from taximeter.control.dashboard.sign_in import _own_path
from taximeter.control.door.sessions import COOKIE, LASTS_S, MOST, MOST_OF_ONE, Sessions
from taximeter.sinks.query import Filters


async def sign_in(control, token, **more):
    return await control.client.post("/dashboard/login", data={"token": token, **more}, follow_redirects=False)


async def test_a_good_token_opens_a_session_and_leads_back(guarded):
    answer = await sign_in(guarded, ADMIN_TOKEN, next="/dashboard/health?x=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/health?x=1")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and ADMIN_TOKEN not in cookie
    assert "Secure" not in cookie  # over plain HTTP it would never come back
    page = await guarded.client.get("/dashboard/health")
    assert page.status_code == 200 and "Sign out" in page.text


async def test_behind_tls_the_cookie_stays_there(guarded):
    answer = await guarded.client.post(
        "/dashboard/login", data={"token": ADMIN_TOKEN}, headers={"x-forwarded-proto": "https"}, follow_redirects=False
    )
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("token", ["", "wrong", "tm-wrong", "x" * 5_000])
async def test_a_wrong_token_opens_nothing(guarded, token):
    answer = await sign_in(guarded, token)
    assert answer.status_code == 401 and "set-cookie" not in answer.headers and "Sign in" in answer.text
    assert (await guarded.client.get("/", follow_redirects=False)).status_code == 303


async def test_a_session_reads_and_changes_nothing(guarded):
    await sign_in(guarded, ADMIN_TOKEN)
    assert (await guarded.client.get("/keys")).status_code == 200
    assert (await guarded.client.post("/keys", json={"workspace": "acme"})).status_code == 401


async def test_signing_out_ends_the_session(guarded):
    await sign_in(guarded, ADMIN_TOKEN)
    old = guarded.client.cookies[COOKIE]
    answer = await guarded.client.post("/dashboard/logout", follow_redirects=False)
    assert answer.status_code == 303
    answer = await guarded.client.get("/", headers={"cookie": f"{COOKIE}={old}"}, follow_redirects=False)
    assert answer.status_code == 303


async def test_a_workspace_s_key_sees_its_own_workspace_until_revoked(guarded):
    key, secret = guarded.keys.create("acme")
    await sign_in(guarded, secret)
    page = await guarded.client.get("/?by=workspace")
    assert page.status_code == 200 and "globex" not in page.text and "Meter health" not in page.text
    assert (await guarded.client.get("/dashboard/workspaces/acme")).status_code == 200
    assert (await guarded.client.get("/dashboard/health")).status_code == 403
    assert "globex" not in (await guarded.client.get("/dashboard/records?period=365d")).text
    for path in ("/dashboard/workspaces/globex", "/?workspace=globex", "/dashboard/workspaces/globex/tracks/t"):
        assert (await guarded.client.get(path)).status_code == 404, path
    everyones = await guarded.history.events(Filters(workspace="globex"), 1)
    hidden = everyones[0][0].request_id
    assert (await guarded.client.get(f"/dashboard/requests/{hidden}")).status_code == 404
    guarded.keys.revoke(key.id)
    assert (await guarded.client.get("/", follow_redirects=False)).status_code == 303


async def test_another_site_s_form_is_refused(guarded):
    answer = await guarded.client.post(
        "/dashboard/login", data={"token": ADMIN_TOKEN}, headers={"origin": "https://evil.example"}
    )
    assert answer.status_code == 403 and "set-cookie" not in answer.headers


@pytest.mark.parametrize("where", ["//evil.example", "https://evil.example", "/\\evil.example", "x", "", "/a\r\nb: c"])
def test_after_signing_in_nobody_is_led_elsewhere(where):
    assert _own_path(where) == "/"


def test_sessions_end_by_themselves_and_are_bounded():
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    first = sessions.open(b"token")
    cookie = f"other=1; {COOKIE}={first}".encode()
    assert sessions.token(cookie) == b"token"
    now[0] = LASTS_S
    assert sessions.token(cookie) is None
    names = [sessions.open(b"t%d" % (number // MOST_OF_ONE)) for number in range(MOST + 1)]
    assert sessions.token(f"{COOKIE}={names[0]}".encode()) is None
    assert sessions.token(f"{COOKIE}={names[-1]}".encode()) == b"t%d" % (MOST // MOST_OF_ONE)


def test_one_token_s_sessions_end_no_other_s():
    sessions = Sessions()
    admin = f"{COOKIE}={sessions.open(b'admin')}".encode()
    names = [f"{COOKIE}={sessions.open(b'a tenant')}".encode() for _ in range(3 * MOST)]
    assert sessions.token(admin) == b"admin"
    assert [sessions.token(name) for name in names[-MOST_OF_ONE:]] == [b"a tenant"] * MOST_OF_ONE
    assert [name for name in names[:-MOST_OF_ONE] if sessions.token(name)] == []
    assert sessions.close(names[-1]) and not sessions.close(names[-1]) and not sessions.close(names[0])
    assert sessions.token(names[-2]) and sessions.token(admin)


@pytest.mark.parametrize("cookies", [None, b"", b"a=b", b"taximeter_session", b"taximeter_session=\xff;;=", b"=;;,"])
def test_cookies_of_any_kind_name_no_session(cookies):
    assert Sessions().token(cookies) is None
