"""Keys and budgets managed in a browser: by the admin, by these pages' own forms alone, each change written down."""

import re
import secrets
from html import unescape
from typing import Any

import pytest

from browser import LOOKS, browsing, faults_of
from control_plane import record
from dashboards import ADMIN_TOKEN, NOW_US, get
from present import present
from taximeter.budgets.reservations import Reservations
from taximeter.budgets.service import BudgetService
from taximeter.budgets.store import BudgetStore
from taximeter.config import Settings
from taximeter.config.settings import AuthSettings
from taximeter.control.services.audit import AuditTrail
from taximeter.keys.rule import digest
from taximeter.node.audit import AuditLog
from taximeter.sinks.redis.client import RedisServer

SAME = {"sec-fetch-site": "same-origin"}


@pytest.fixture
async def managed(tmp_path, valkey_url, redis, start) -> Any:
    """A control plane with an audit log and budgets on a real Valkey, behind an admin token."""
    log = AuditLog(tmp_path, now_us=lambda: NOW_US)
    server = RedisServer(valkey_url)
    budgets = BudgetStore(tmp_path, audit=log, now_us=lambda: NOW_US, random=secrets.token_bytes)

    async def yes(*_):
        return True

    async def none(*_):
        return 0

    settings = Settings(auth=AuthSettings(mode="keys", admin_token_sha256=digest(ADMIN_TOKEN)))
    control = await start(settings, now_us=lambda: NOW_US)
    service = BudgetService(
        budgets, Reservations(server), control.history, rebuild=none, counted=lambda: True, drained=yes,
        now_us=lambda: NOW_US,
    )  # fmt: skip
    made = await start(
        settings, now_us=lambda: NOW_US, budgets=service, audit=log, trail=AuditTrail(log, control.history)
    )
    made.keys._audit = log
    yield made
    await server.close()


async def signed_in(control):
    """The cookie of a session of the admin's."""
    return await session(control, ADMIN_TOKEN)


async def session(control, token):
    answer = await control.client.post("/dashboard/login", data={"token": token})
    control.client.cookies.clear()
    return {"cookie": present(re.match(r"taximeter_session=[^;]+", answer.headers["set-cookie"]))[0]}


async def token_of(control, path, headers):
    return re.findall(r'name="form" value="([^"]+)"', await get(control, path, **headers))[0]


async def send(control, path, given, headers, page=None):
    """Fill a form in as a browser does."""
    form = await token_of(control, page or path, headers)
    return await control.client.post(path, data={"form": form, **given}, headers=headers | SAME)


async def test_a_key_is_made_shown_once_rotated_and_revoked(managed):
    mine = await signed_in(managed)
    answer = await send(
        managed, "/dashboard/keys", {"workspace": "acme", "name": "the bot", "models": "gpt-4o*, o3"}, mine
    )
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    secret = present(re.search(r'value="(tm-[0-9a-f]{64})"', answer.text))[1]
    (key,) = managed.keys.listing()
    assert (key.workspace, key.name, key.models, key.sha256) == ("acme", "the bot", ("gpt-4o*", "o3"), digest(secret))
    page = await get(managed, "/dashboard/keys", **mine)
    assert secret not in page and key.id in page and "key.create" in page and "session " in page

    path = f"/dashboard/keys/{key.id}/rotate"
    answer = await send(managed, path, {"overlap_s": "3600", "expires_at": ""}, mine, "/dashboard/keys")
    other = present(re.search(r'value="(tm-[0-9a-f]{64})"', answer.text))[1]
    assert other != secret and "The secret before it holds until" in answer.text
    in_force = managed.keys.in_force()
    assert in_force.find(secret).id == in_force.find(other).id == key.id

    answer = await send(managed, f"/dashboard/keys/{key.id}/revoke", {}, mine, "/dashboard/keys")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/keys")
    assert managed.keys.in_force().find(other) is None
    page = await get(managed, "/dashboard/keys", **mine)
    assert 'class="tag bad">revoked' in page and "/revoke" not in page and "old secret until" not in page
    entries = (await managed.client.get("/audit", headers={"authorization": f"Bearer {ADMIN_TOKEN}"})).json()["data"]
    done = {
        (each["action"], each["target"], each["actor"][:8]) for each in entries if each["action"].startswith("key.")
    }
    assert done == {(action, key.id, "session ") for action in ("key.revoke", "key.rotate", "key.create")}


async def test_without_its_database_keys_are_made_and_revoked_and_health_is_told(managed, tmp_path):
    mine = await signed_in(managed)
    await get(managed, "/dashboard/keys", **mine)
    (file,) = tmp_path.rglob("history.db")
    file.rename(file.with_suffix(".away"))
    assert (await managed.client.get("/dashboard/records", headers=mine)).status_code == 503
    answer = await send(managed, "/dashboard/keys", {"workspace": "acme"}, mine)
    (secret,) = re.findall(r'value="(tm-[0-9a-f]{64})"', answer.text)
    (key,) = managed.keys.listing()
    assert managed.keys.in_force().find(secret).id == key.id
    assert (await send(managed, f"/dashboard/keys/{key.id}/revoke", {}, mine, "/dashboard/keys")).status_code == 303
    page = await get(managed, "/dashboard/keys", **mine)
    assert f'key_id={key.id}">—</a>' in page and "Not known: the history database cannot be read now." in page
    assert "Make a budget" in await get(managed, "/dashboard/budgets", **mine)
    assert "Not known: the history database cannot be read now." in await get(managed, "/dashboard/health", **mine)


async def test_a_rotation_that_cannot_be_meant_is_said_at_its_key_and_nothing_typed_is_lost(managed):
    mine = await signed_in(managed)
    keys = [managed.keys.create("acme")[0] for _ in range(2)]
    given = {"overlap_s": "604800", "expires_at": "soon"}
    answer = await send(managed, f"/dashboard/keys/{keys[1].id}/rotate", given, mine, "/dashboard/keys")
    assert answer.status_code == 400 and answer.text.count('<details class="act" open>') == 1
    form = answer.text[answer.text.index(f"/dashboard/keys/{keys[1].id}/rotate") :]
    form = form[: form.index("</form>")]
    assert 'value="604800" selected' in form and 'value="soon"' in form
    assert "is no time" in present(re.search(rf'id="wrong-{keys[1].id}" role="alert">(.*?)</strong>', form))[1]


async def test_a_budget_is_made_shown_and_ended(managed):
    mine = await signed_in(managed)
    given = {"workspace": "acme", "limit": "12.50", "unit": "usd", "period": "month", "mode": "hard"}
    answer = await send(managed, "/dashboard/budgets", given, mine)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/budgets")
    (budget,) = managed.services.budgets.store.listing()
    assert (budget.workspace, budget.limit, budget.unit, budget.mode) == ("acme", 12_500_000_000, "usd", "hard")
    page = await get(managed, "/dashboard/budgets", **mine)
    assert "$12.50" in page and budget.id in page and "budget.create" in page
    managed.services.budgets.store.create("*", 10**9, unit="usd", period="day", mode="soft", end_user="*")
    assert "each workspace each end user" in await get(managed, "/dashboard/budgets?workspace=*", **mine)
    rolling = managed.services.budgets.store.create("acme", 10**9, unit="usd", period="rolling 30d", mode="soft")
    page = await get(managed, "/dashboard/budgets", **mine)
    row = page[page.index(rolling.id) :]
    assert '<td class="wide">—</td>' in row[: row.index("</tr>")]  # it never begins anew
    others = await get(managed, "/dashboard/budgets?workspace=beta", **mine)
    assert budget.id not in others[: others.index('id="changes"')]
    for each in managed.services.budgets.store.listing():
        await send(managed, f"/dashboard/budgets/{each.id}/end", {}, mine, "/dashboard/budgets")
    assert managed.services.budgets.store.listing() == []
    assert "nothing bounds what is used" in await get(managed, "/dashboard/budgets", **mine)


@pytest.mark.parametrize(
    ("path", "given", "field", "said"),
    [
        ("/dashboard/keys", {"workspace": "no blanks"}, "workspace", "1-128 characters"),
        ("/dashboard/keys", {"workspace": "acme", "expires_at": "soon"}, "expires_at", "is no time"),
        ("/dashboard/keys", {"workspace": "acme", "expires_at": "2020-01-01"}, "expires_at", "is past"),
        ("/dashboard/keys", {"workspace": "acme", "name": "n" * 201}, "name", "length &lt;= 200"),
        ("/dashboard/budgets", {"workspace": "acme", "limit": "much"}, "limit", "The limit is a number"),
        ("/dashboard/budgets", {"workspace": "acme", "limit": "-1"}, "limit", "more than 0"),
        ("/dashboard/budgets", {"workspace": "acme", "limit": "5", "unit": "shells"}, "unit", "shells"),
        ("/dashboard/budgets", {"workspace": "", "limit": "5"}, "workspace", "1-128 characters"),
        ("/dashboard/budgets", {"workspace": "acme", "limit": "5", "task": "<b>"}, "task", "&lt;b&gt;"),
    ],
)  # fmt: skip
async def test_what_cannot_be_meant_is_said_beside_its_field_and_nothing_typed_is_lost(
    managed, path, given, field, said
):
    mine = await signed_in(managed)
    answer = await send(managed, path, given, mine)
    assert answer.status_code == 400 and "<b>" not in answer.text
    assert said in present(re.search(rf'id="wrong-{field}" role="alert">(.*?)</strong>', answer.text))[1]
    for name, value in given.items():
        assert f'name="{name}" value="{value}"' in unescape(answer.text) or name in ("unit",) or not value
    assert managed.keys.listing() == [] and managed.services.budgets.store.listing() == []


async def test_only_the_admin_sees_or_changes_them(managed):
    _, secret = managed.keys.create("acme")
    theirs = await session(managed, secret)
    mine = await signed_in(managed)
    form = await token_of(managed, "/dashboard/keys", mine)
    for path in ("/dashboard/keys", "/dashboard/budgets"):
        assert (await managed.client.get(path, headers=theirs)).status_code == 403
        assert (await managed.client.get(path)).status_code == 303  # to the sign-in
        given = {"form": form, "workspace": "acme", "limit": "5"}
        assert (await managed.client.post(path, data=given, headers=theirs | SAME)).status_code == 403
        answer = await managed.client.post(path, data=given, headers=SAME)
        assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/login?next=%2F")
    assert "Keys" not in (await managed.client.get("/dashboard/records", headers=theirs)).text.split("<main")[0]
    assert len(managed.keys.listing()) == 1


@pytest.mark.parametrize(
    "sent_by",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},  # another port of this machine
        {"sec-fetch-site": "none"},
        {"origin": "http://127.0.0.1:3000"},
        {"origin": "null"},
        {},
    ],
)
async def test_no_other_page_can_send_a_form(managed, sent_by):
    mine = await signed_in(managed)
    form = await token_of(managed, "/dashboard/keys", mine)
    answer = await managed.client.post(
        "/dashboard/keys", data={"form": form, "workspace": "acme"}, headers=mine | sent_by
    )
    assert answer.status_code in (303, 400, 403) and managed.keys.listing() == []  # 303: to the sign-in
    bearer = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    form = await token_of(managed, "/dashboard/keys", bearer)
    answer = await managed.client.post(
        "/dashboard/keys", data={"form": form, "workspace": "a"}, headers=bearer | sent_by
    )
    assert answer.status_code in (400, 403) and managed.keys.listing() == []


async def test_a_form_from_a_strange_page_is_written_down(managed):
    for method in ("POST", "GET"):
        answer = await managed.client.request(method, "/dashboard/keys", headers={"origin": "http://evil.test"})
        assert answer.status_code == 403
    bearer = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    entries = (await managed.client.get("/audit", headers=bearer)).json()["data"]
    (refused,) = [each for each in entries if each["action"] == "request.refused"]
    assert refused["target"] == "POST /dashboard/keys" and "'http://evil.test' are refused" in refused["problem"]


async def test_a_form_is_good_for_its_session_and_once(managed):
    mine, other = await signed_in(managed), await signed_in(managed)
    form = await token_of(managed, "/dashboard/keys", mine)
    for bad in ("", "x", f"{form}0", form.partition(".")[0], await token_of(managed, "/dashboard/keys", other)):
        answer = await managed.client.post("/dashboard/keys", data={"form": bad, "workspace": "a"}, headers=mine | SAME)
        assert answer.status_code == 403 and managed.keys.listing() == [], bad
    answer = await managed.client.post("/dashboard/keys", data={"form": form, "workspace": "a"}, headers=mine | SAME)
    assert answer.status_code == 200
    answer = await managed.client.post("/dashboard/keys", data={"form": form, "workspace": "a"}, headers=mine | SAME)
    assert answer.status_code == 400 and "sent already" in answer.text and len(managed.keys.listing()) == 1
    entries = (await managed.client.get("/audit", headers={"authorization": f"Bearer {ADMIN_TOKEN}"})).json()["data"]
    refused = [each for each in entries if each["action"] == "request.refused"]
    assert len(refused) == 5 and all(each["target"] == "POST /dashboard/keys" for each in refused)


async def test_a_session_changes_nothing_but_through_these_forms(managed):
    mine = await signed_in(managed)
    for headers in (mine | SAME, mine | {"origin": managed.url}):
        answer = await managed.client.post("/keys", json={"workspace": "acme"}, headers=headers)
        assert answer.status_code == 401
        assert (await managed.client.delete("/keys/key_x", headers=headers)).status_code == 401
    assert managed.keys.listing() == []


async def test_who_is_the_admin_from_loopback_needs_the_forms_token_too(start):
    control = await start(now_us=lambda: NOW_US)
    answer = await control.client.post("/dashboard/keys", data={"workspace": "acme"}, headers=SAME)
    assert answer.status_code == 403 and control.keys.listing() == []
    assert (await send(control, "/dashboard/keys", {"workspace": "acme"}, {})).status_code == 200
    assert 'auth.mode is "open"' in unescape((await control.client.get("/dashboard/keys")).text)
    assert (await control.client.get("/dashboard/budgets")).status_code == 404  # keeps none


async def test_keys_are_listed_with_what_they_did_and_odd_names_are_text(managed):
    key, _ = managed.keys.create("acme", name='"><img src=x>')
    await managed.add(record(1, key_id=key.id, ended_at=NOW_US - 1, cost_nusd=2 * 10**9))
    page = await get(managed, "/dashboard/keys", **await signed_in(managed))
    assert "<img src=x>" not in page and "&lt;img src=x&gt;" in page
    row = present(re.search(rf"{key.id}.*?</tr>", page, re.S))[0]
    assert f'/dashboard/records?key_id={key.id}">1<' in row and "$2.00" in row
    page = await get(managed, f"/dashboard/budgets?workspace=acme&key_id={key.id}", **await signed_in(managed))
    assert f'name="key_id" value="{key.id}"' in page


async def test_in_a_browser_from_a_key_to_its_end(managed):
    async with browsing(managed.url) as (page, troubles):
        await page.goto("/dashboard/keys")
        await page.get_by_label("Token").fill(ADMIN_TOKEN)
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/dashboard/keys")
        await page.get_by_label("workspace (needed)").fill("acme")
        await page.get_by_role("button", name="Make the key").click()
        secret = await page.get_by_label("The secret").input_value()
        assert managed.keys.in_force().find(secret).workspace == "acme"
        await page.get_by_text("Change", exact=True).click()
        await page.get_by_role("link", name="Limit what it may use").click()
        await page.get_by_label("limit").fill("nothing")
        await page.get_by_role("button", name="Make the budget").click()
        assert "a number" in await page.get_by_role("alert").inner_text()
        await page.get_by_label("limit").fill("20")
        await page.get_by_role("button", name="Make the budget").click()
        await page.get_by_text("$20.00").wait_for()
        await page.goto("/dashboard/keys")
        await page.get_by_text("Change", exact=True).click()
        await page.get_by_role("button", name="Revoke for good").click()
        await page.get_by_text("revoked", exact=True).wait_for()
        assert managed.keys.in_force().find(secret) is None
        # Chromium tells the console of a page with status 400, which the wrong limit was answered with.
        assert [each for each in troubles if "status of 400" not in each] == []


@pytest.mark.parametrize("look", LOOKS)
async def test_these_pages_fit_and_read_well(managed, tmp_path, look):
    key, _ = managed.keys.create("acme", name="the assistant", models=["gpt-4o*", "text-embedding-3-small"])
    managed.keys.rotate(key.id, expires_at=NOW_US + 10**13)
    managed.keys.revoke(managed.keys.create("globex")[0].id)
    store = managed.services.budgets.store
    store.create("acme", 20 * 10**9, unit="usd", period="month", mode="hard")
    store.create("globex-with-a-long-name", 5_000_000, unit="tokens", period="day", mode="soft", task="ingest")
    async with browsing(managed.url, extra_http_headers={"authorization": f"Bearer {ADMIN_TOKEN}"}, **LOOKS[look]) as (
        page,
        troubles,
    ):
        for name in ("keys", "budgets"):
            await page.goto(f"/dashboard/{name}")
            for opened in (False, True):
                if opened:
                    await page.get_by_text("Change", exact=True).first.click()
                await page.screenshot(path=tmp_path / f"{name}-{opened}-{look}.png", full_page=True)
                assert await faults_of(page) == [], name
        assert troubles == []


async def test_a_page_of_another_port_of_this_machine_changes_nothing(managed, start):
    """A real browser, signed in, and a page next door that sends a form here: the browser itself says where from."""
    other = await start()
    async with browsing(managed.url) as (page, _):
        await page.goto("/dashboard/login")
        await page.get_by_label("Token").fill(ADMIN_TOKEN)
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{managed.url}/")
        await page.goto("/dashboard/keys")
        form = await page.locator('input[name="form"]').first.input_value()  # more than another page can read
        await page.goto(f"{other.url}/livez")
        async with page.expect_navigation():
            await page.evaluate(
                """([to, form]) => { const made = document.createElement("form");
                made.method = "post"; made.action = to + "/dashboard/keys";
                for (const [name, value] of [["form", form], ["workspace", "acme"]]) {
                  const field = document.createElement("input");
                  field.name = name; field.value = value; made.append(field); }
                document.body.append(made); made.submit(); }""",
                [managed.url, form],
            )
        assert managed.keys.listing() == []
