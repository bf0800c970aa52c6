"""The dashboard as people use it: in a real Chromium, over a real socket. Screenshots stay in pytest's tmp folder."""

import re
from decimal import Decimal

import pytest

from browser import LOOKS, browsing, faults_of
from control_plane import record
from dashboards import ADMIN_TOKEN, NOW_US
from present import present
from taximeter.core.figures import count, money

PAGES = {
    "overview": "/",
    "today": "/?period=today&by=model",
    "workspace": "/dashboard/workspaces/acme?period=7d",
    "track": "",
    "analytics": "/dashboard/analytics",
    "performance": "/dashboard/performance?period=7d",
    "records": "/dashboard/records",
    "errors": "/dashboard/records?outcome=timeout&outcome=upstream_error&sort=-took&period=7d",
    "search": "/dashboard/search?q=u",
    "request": "/dashboard/requests/req-000100",
    "live": "/dashboard/live",
    "keys": "/dashboard/keys",
    "health": "/dashboard/health",
    "login": "/dashboard/login",
}


async def track_of(control):
    groups = (await control.get("/usage", group_by=["workspace", "track"], **{"from": "2026-11-08"}))["groups"]
    busiest = max((each for each in groups if each["track"]), key=lambda each: each["usage"]["requests"])
    return f"/dashboard/workspaces/{busiest['workspace']}/tracks/{busiest['track']}"


@pytest.mark.parametrize("look", LOOKS)
async def test_every_page_fits_reads_well_and_asks_nobody_else(house, tmp_path, look):
    async with browsing(house.url, **LOOKS[look]) as (page, troubles):
        for name, path in (PAGES | {"track": await track_of(house)}).items():
            answer = await page.goto(path)
            assert answer.status == 200, name
            await page.screenshot(path=tmp_path / f"{name}-{look}.png", full_page=True)
            assert await faults_of(page) == [], name
        assert troubles == []


@pytest.mark.parametrize("look", LOOKS)
async def test_a_new_installation_and_a_page_that_is_not_there_read_well(start, tmp_path, look):
    control = await start(now_us=lambda: NOW_US)
    async with browsing(control.url, **LOOKS[look]) as (page, _):
        for name, path in (("empty", "/"), ("404", "/nowhere"), ("stranger", "/dashboard/workspaces/nobody")):
            await page.goto(path)
            await page.screenshot(path=tmp_path / f"{name}-{look}.png", full_page=True)
            assert await faults_of(page) == [], name


async def test_the_numbers_a_person_reads_are_the_api_s(house):
    answer = await house.get("/usage", group_by="model", **{"from": "2026-10-24", "to": "2026-11-23"})
    async with browsing(house.url) as (page, _):
        await page.goto("/")
        assert await page.inner_text("#range-cost") == money(Decimal(str(answer["estimated_cost_usd"])))
        assert await page.inner_text("#range-tokens") == count(answer["usage"]["total_tokens"])
        shown = {}
        for row in await page.locator("#by-model tbody tr").all():
            name, calls, _, tokens, *_ = await row.locator("td").all_inner_texts()
            shown[name.strip()] = (calls, tokens)
    assert shown == {
        part["model"]: (count(part["usage"]["requests"]), count(part["usage"]["total_tokens"]))
        for part in answer["groups"]
    }


async def test_with_a_keyboard_alone_one_gets_down_to_a_record(house):
    async with browsing(house.url) as (page, troubles):
        await page.goto("/")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "Skip to the content"
        await page.keyboard.press("Enter")
        await tab_to(page, "summary", "The same as a table")
        await page.keyboard.press("Enter")
        await tab_to(page, "#over-time tbody a", "")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**from=**")
        await tab_to(page, "#by-model td.num a", "")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/dashboard/records**")
        await tab_to(page, "tbody a[href^='/dashboard/requests/']", "")
        ring = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring == "solid"  # one sees where one is
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/dashboard/requests/**")
        assert "Everything that is known" in await page.inner_text("main")
        assert troubles == []


async def tab_to(page, selector, text):
    """Press Tab until an element of this selector and text has the focus."""
    for _ in range(150):
        await page.keyboard.press("Tab")
        here = "([s, t]) => document.activeElement.matches(s) && document.activeElement.textContent.includes(t)"
        if await page.evaluate(here, [selector, text]):
            return
    raise AssertionError(f"{selector} {text!r} is not reached with Tab")


async def test_a_bar_leads_to_what_it_is_made_of(house):
    async with browsing(house.url) as (page, _):
        await page.goto("/dashboard/workspaces/acme?period=7d")
        bar = page.locator("#over-time svg a", has=page.locator("rect")).first
        told = await bar.locator("title").text_content()
        day, model, cost = present(re.fullmatch(r"(.*), (.*): (.*)", told)).groups()
        await bar.click()
        await page.wait_for_url("**from=**")
        assert (await page.inner_text("#range-cost"), model in page.url) == (cost, True), (day, page.url)


async def test_calls_appear_as_they_end(house):
    async with browsing(house.url) as (page, troubles):
        await page.goto("/dashboard/live?workspace=acme")
        await page.get_by_text("Live", exact=True).nth(1).wait_for()
        before = await page.locator("#live tbody tr").count()
        hidden = record(9_001, workspace="globex", ended_at=NOW_US)
        live = record(
            9_002,
            track="t-1",
            task='<b>"query"',
            response_model="odd-\x9b2J\x07\u202e\u2066\U000e0041\u2028\n",
            ended_at=NOW_US,
            input_tokens=12_345,
            cost_nusd=1_234_567_890,
        )
        await house.add(hidden, live)
        row = page.locator("#live tbody tr.new")
        await row.wait_for()
        cells = [" ".join(text.split()) for text in await row.locator("td").all_inner_texts()]
        assert cells == [
            "22 Nov 13:30:00",
            "acme",
            '<b>"query" t-1',
            r"odd-\x9b2J\x07\u202e\u2066\U000e0041\u2028\n",
            "12,345 → 30",
            "$1.234568",
            "250",
            "ok",
        ]
        assert await page.locator("#live tbody tr").count() == before + 1
        assert await row.locator("a").first.get_attribute("href") == "/dashboard/requests/req-9002"
        await page.reload()  # the server writes the row as the script did
        first = page.locator("#live tbody tr").first.locator("td")
        assert [" ".join(text.split()) for text in await first.all_inner_texts()] == cells
        assert troubles == []


async def test_a_page_asks_for_itself_anew_and_nothing_unfolded_folds(house):
    async with browsing(house.url) as (page, troubles):
        await page.clock.install()
        await page.goto("/dashboard/records?refresh=10")
        await page.get_by_text("Filter by any field").click()
        await house.add(record(9_003, ended_at=NOW_US - 1, task="just-now"))
        await page.clock.run_for(10_000)
        await page.get_by_role("cell", name="just-now").wait_for()
        assert await page.locator("#pickers").get_attribute("open") is not None
        await page.locator("#pickers input").first.focus()  # who types is left alone
        await page.clock.run_for(30_000)
        assert await page.locator("#main").get_attribute("data-renewed") == "1"
        assert troubles == []


async def test_signing_in_and_out(guarded):
    async with browsing(guarded.url) as (page, _):
        await page.goto("/?period=7d")
        assert "/dashboard/login" in page.url
        await page.keyboard.type("not the token")  # the field has the focus
        await page.keyboard.press("Enter")
        assert "not the admin token" in await page.get_by_role("alert").inner_text()
        await page.get_by_label("Token").fill(ADMIN_TOKEN)
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url("**/?period=7d")
        assert await page.evaluate("document.cookie") == ""  # no script can read it
        places = [
            await page.get_by_role("button", name="Sign out").bounding_box(),
            await page.locator("nav").bounding_box(),
        ]
        out, nav = map(present, places)
        assert out["y"] < nav["y"] + nav["height"]  # beside the pages' names, on one line
        await page.get_by_role("button", name="Sign out").click()
        await page.wait_for_url("**/dashboard/login")
        await page.goto("/dashboard/records")
        assert "/dashboard/login" in page.url


async def test_without_javascript_everything_but_the_live_updates_is_there(house):
    async with browsing(house.url, java_script_enabled=False) as (page, _):
        for path in ("/", "/dashboard/live"):
            await page.goto(path)
            assert await page.locator("main table tbody tr").count() > 5


@pytest.mark.parametrize("look", LOOKS)
async def test_the_longest_names_break_no_page(start, tmp_path, look):
    control = await start(now_us=lambda: NOW_US)
    names = dict.fromkeys(("track", "document", "task", "end_user", "workspace"), "n" * 128)
    await control.add(
        *(
            record(n, ended_at=NOW_US - n, request_model=f"{n}" + "m" * 127, cost_nusd=None, **names)
            for n in range(1, 9)
        ),
        record(9, ended_at=NOW_US - 9, **names),
    )
    workspace = f"/dashboard/workspaces/{names['workspace']}"
    pages = {"overview": "/?by=model", "workspace": workspace, "track": f"{workspace}/tracks/{names['track']}"}
    pages |= {"records": f"/dashboard/records?task={names['task']}", "search": "/dashboard/search?q=nnn"}
    pages |= {name: f"/dashboard/{name}" for name in ("analytics", "performance", "live", "requests/req-1")}
    async with browsing(control.url, **LOOKS[look]) as (page, troubles):
        for name, path in pages.items():
            await page.goto(path)
            await page.screenshot(path=tmp_path / f"long-{name.replace('/', '-')}-{look}.png", full_page=True)
            assert await faults_of(page) == [], name
        assert troubles == []
