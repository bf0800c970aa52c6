import re
from decimal import Decimal
from html import unescape

import msgspec
import pytest

from control_plane import DAY_US, NOON_US, embedding, record
from dashboards import ADMIN_TOKEN, NOW_US, get, rows_of, text_of, told
from present import present
from taximeter.config import Settings
from taximeter.config.settings import AuthSettings, UpstreamSettings
from taximeter.core.figures import count, money, places
from taximeter.core.record import Outcome
from taximeter.keys.rule import digest

PATHS = (
    "/",
    "/dashboard/analytics",
    "/dashboard/performance",
    "/dashboard/workspaces/acme",
    "/dashboard/records",
    "/dashboard/live",
    "/dashboard/health",
)


def usd(answer):
    cost = answer["estimated_cost_usd"]
    return None if cost is None else Decimal(str(cost))


async def test_today_beside_yesterday_is_what_the_api_says(house):
    html = await get(house, "/")
    ranges = {
        "today": ("2026-11-22", "2026-11-23"),
        "by now": ("2026-11-21", "2026-11-21T13:30:00Z"),
        "in all": ("2026-11-21", "2026-11-22"),
    }
    asked = {name: await house.get("/usage", **{"from": start, "to": end}) for name, (start, end) in ranges.items()}
    shown = text_of(html, "today-cost")
    assert shown.startswith(f"Cost today {money(usd(asked['today']))} ")
    assert f"against {money(usd(asked['by now']))} yesterday by now" in shown
    assert shown.endswith(f"Yesterday in all {money(usd(asked['in all']))}")
    assert f"Calls today {count(asked['today']['usage']['requests'])} " in text_of(html, "today-calls")
    assert f"Tokens today {count(asked['today']['usage']['total_tokens'])} " in text_of(html, "today-tokens")


@pytest.mark.parametrize("name", ["workspace", "model", "provider", "task"])
async def test_every_breakdown_is_what_the_api_says(house, name):
    html = await get(house, "/?period=7d")
    answer = await house.get("/usage", group_by=name, **{"from": "2026-11-16", "to": "2026-11-23"})
    digits = places(usd(part) for part in answer["groups"])
    expected = {
        str(part[name]): [
            *(count(part["usage"][figure]) for figure in ("requests", "errors", "total_tokens")),
            money(usd(part), digits),
        ]
        for part in answer["groups"]
    }
    assert {row[0]: row[1:5] for row in rows_of(html, f"by-{name}")} == expected
    assert text_of(html, "range-cost") == money(usd(answer))
    assert text_of(html, "range-calls") == count(answer["usage"]["requests"])


async def test_the_table_behind_the_chart_is_the_api_s_series(house):
    html = await get(house, "/dashboard/workspaces/acme?period=7d&tz=Europe/Berlin")
    answer = await house.get(
        "/usage", workspace="acme", window="day", tz="Europe/Berlin", **{"from": "2026-11-16", "to": "2026-11-23"}
    )
    digits = places(usd(each) for each in answer["series"])
    expected = [[count(each["usage"]["requests"]), money(usd(each), digits)] for each in answer["series"]]
    assert [[row[1], row[-1]] for row in rows_of(html, "over-time")] == expected


@pytest.mark.parametrize(("models", "last"), [(7, "model-6: 130 tokens"), (9, "3 more: 390 tokens")])
async def test_what_is_left_of_many_groups_is_one_bar(start, models, last):
    control = await start(now_us=lambda: NOW_US)
    await control.add(
        *[record(n, request_model=f"model-{n}", cost_nusd=10**9 - n, ended_at=NOW_US - 1) for n in range(models)]
    )
    html = await get(control, "/?period=7d&by=model")
    told = re.findall(r"<title>22 Nov, (.*? tokens)</title>", html)
    assert told == [*(f"model-{n}: 130 tokens" for n in range(6)), last]


async def test_many_days_are_weeks_and_lose_nothing(house):
    html = await get(house, "/?period=90d")
    answer = await house.get("/usage", **{"from": "2026-08-25", "to": "2026-11-23"})
    assert "USD a week" in html
    calls = [int(row[1].replace(",", "")) for row in rows_of(html, "over-time")]
    assert sum(calls) == answer["usage"]["requests"] and len(calls) in (2, 3)  # two weeks of calls
    week = next(link for link in links(html, "over-time"))
    assert text_of(await get(house, f"/{week}"), "range-calls") in map(str, calls) or "workspace=" in week


async def test_every_number_leads_down_to_a_record(house):
    """Overview -> a day's bar -> an hour's bar -> its records -> one record, each showing the same calls."""
    html = await get(house, "/?period=7d")
    day = next(link for link in links(html, "over-time") if "2026-11-18" in link)
    html = await get(house, f"/{day}")
    hour = next(link for link in links(html, "over-time") if link.startswith("/dashboard/records"))
    html = await get(house, hour)
    shown = re.findall(r'href="(/dashboard/requests/[^"]+)"', html)
    calls = int(present(re.search(r">([\d,]+) calls?\b", html))[1].replace(",", ""))
    assert len(shown) == calls > 0
    html = await get(house, shown[0])
    told = await house.get(shown[0].replace("/dashboard", "/usage"))
    for value in (told["data"][0]["event_id"], told["data"][0]["workspace"], str(told["data"][0]["cost_nusd"])):
        assert value in html


def links(html, element):
    part = html[html.index(f'id="{element}"') :]
    return [unescape(link) for link in re.findall(r'xlink:href="([^"]+)"', part)]


async def test_a_track_shows_its_calls_documents_and_sums(start):
    control = await start(now_us=lambda: NOW_US)
    upload = {"track": "upload-7", "ended_at": NOW_US - DAY_US}
    await control.add(record(1, document="doc-1", **upload), embedding(2, document="doc-2", **upload))
    html = await get(control, "/dashboard/workspaces/acme/tracks/upload-7")
    answer = await control.get("/usage/tracks/upload-7")
    assert text_of(html, "track-cost").startswith(f"Cost {money(usd(answer))}")
    assert text_of(html, "track-llm") == "LLM tokens 100 → 30 gpt-4o-mini"
    assert "doc-1" in html and "doc-2" in html
    assert {"/dashboard/requests/req-1", "/dashboard/requests/req-2"} <= set(re.findall(r'href="([^"]+)"', html))
    records = unescape(present(re.search(r'href="([^"]+)">All as records', html))[1])
    assert len(set(re.findall(r"/dashboard/requests/req-\d", await get(control, records)))) == 2


async def test_a_new_installation_is_told_what_to_do(start):
    control = await start()
    html = await get(control, "/")
    assert "No calls in this range" in html and "OPENAI_BASE_URL=http://127.0.0.1:8000/v1" in html
    assert "http://127.0.0.1:8000/w/WORKSPACE/v1" in html and "the one of openai, as before: it is passed on" in html
    assert "$0.00" in text_of(html, "today-cost") and "No calls today yet" in text_of(html, "today-errors")
    for path in ("/dashboard/records", "/dashboard/live", "/dashboard/health"):
        await get(control, path)


async def test_a_new_installation_that_asks_for_keys_says_which(start):
    settings = Settings(
        listen="0.0.0.0:8000",
        auth=AuthSettings(mode="keys", admin_token_sha256=digest(ADMIN_TOKEN)),
        upstream=[UpstreamSettings(name="local", base_url="http://127.0.0.1:9/v1", models=["llama-3*", "qwen"])],
    )
    control = await start(settings)
    bearer = {"authorization": f"Bearer {ADMIN_TOKEN}", "host": "meter.localhost:8001"}
    html = await get(control, "/", **bearer)
    assert "OPENAI_BASE_URL=http://meter.localhost:8000/v1" in html and "a proxy key (tm-…)" in html
    assert "taximeter keys create WORKSPACE" in html and '"model": "qwen"' in html
    await control.add(record(1, ended_at=NOON_US))
    assert "Point a client here" not in await get(control, "/", **bearer)
    assert "Point a client here" not in await get(control, "/?model=none", **bearer)  # filtered away, not missing


async def test_what_is_not_here_is_a_page_for_people_and_json_for_programs(house):
    for path in ("/nowhere", "/dashboard/nowhere", "/usage/nowhere/at/all", "/dashboard/workspaces/nobody"):
        answer = await house.client.get(path, headers={"accept": "text/html,*/*"})
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8"), path
        assert (
            "Back to the overview" in answer.text and "default-src 'none'" in answer.headers["content-security-policy"]
        )
    answer = await house.client.get("/nowhere<b>", headers={"accept": "text/html"})
    assert "<b>" not in answer.text and "/nowhere&lt;b&gt;" in answer.text
    answer = await house.client.get("/nowhere")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert "No workspace" in (await house.client.get("/dashboard/workspaces/nobody")).text


async def test_a_workspace_that_has_a_key_and_no_calls_yet_is_no_mistake(house):
    house.keys.create("newcomer")
    html = await get(house, "/dashboard/workspaces/newcomer")
    assert "No calls in this range" in html and "/w/newcomer/v1" in html


async def test_of_a_stranger_an_unknown_page_tells_nothing(guarded):
    answer = await guarded.client.get("/nowhere", headers={"accept": "text/html"})
    assert answer.status_code == 404 and "Records" not in answer.text


async def test_what_is_not_known_is_never_shown_as_nothing(start):
    control = await start(now_us=lambda: NOW_US)
    unknown = {"input_tokens": None, "output_tokens": None, "total_tokens": None, "cost_nusd": None}
    await control.add(record(1, ended_at=NOW_US - 1, outcome=Outcome.TIMEOUT, **unknown))
    html = await get(control, "/")
    assert text_of(html, "today-cost").startswith("Cost today — ")
    assert "Of 1 call no usage is known" in html
    html = await get(control, "/dashboard/requests/req-1")
    assert text_of(html, "in-1").startswith("Tokens in —") and "Not known:" in html


async def test_names_are_text_whatever_they_hold(start):
    control = await start(now_us=lambda: NOW_US)
    evil = '<img src=x onerror="alert(1)">'
    await control.add(record(1, request_model=evil, ended_at=NOW_US - 1))
    for path in ("/", "/?by=model", "/dashboard/records", "/dashboard/requests/req-1"):
        assert evil not in await get(control, path)


async def test_pages_older_than_the_newest(start):
    control = await start(now_us=lambda: NOW_US)
    await control.add(*(record(number, ended_at=NOW_US - 1_000 + number) for number in range(150)))
    html = await get(control, "/dashboard/records")
    older = unescape(present(re.search(r'rel="next" href="([^"]+)"', html))[1])
    seen = re.findall(r"/dashboard/requests/(req-\d+)\"", html)
    seen += re.findall(r"/dashboard/requests/(req-\d+)\"", await get(control, f"/dashboard/records{older}"))
    assert seen == [f"req-{number}" for number in reversed(range(150))]


async def test_mistakes_are_answered_with_a_page(house):
    for path, status, said in (
        ("/?perod=7d", 400, "Unknown parameter"),
        ("/?period=never", 400, "No period"),
        ("/?by=colour", 400, "Cannot group by"),
        ("/?tz=Mars", 400, "No time zone"),
        ("/dashboard/requests/none", 404, "No request"),
        ("/dashboard/workspaces/acme/tracks/none", 404, "No call of a track"),
        ("/dashboard/static/pages.py", 404, "No file"),
    ):
        answer = await house.client.get(path)
        assert (answer.status_code, said in answer.text) == (status, True), path
        assert answer.headers["content-type"].startswith("text/html")


async def test_the_analytics_are_what_the_api_says(house):
    html = await get(house, "/dashboard/analytics?period=7d&by=task")
    forecast = await house.get("/usage/forecast")
    assert money(Decimal(str(forecast["month_end_usd"]))) in html and "tried on 1 days" not in html
    trends = await house.get("/usage/trends", group_by="task", **{"from": "2026-11-16"})
    expected = [[count(each["now"]["requests"]), count(each["before"]["requests"])] for each in trends["groups"]]
    assert [row[1:3] for row in rows_of(html, "trends")] == expected
    peaks = await house.get("/usage/peaks", **{"from": "2026-11-16"})
    assert [row[1] for row in rows_of(html, "peaks")] == [count(each["usage"]["requests"]) for each in peaks["hours"]]


async def test_the_forecast_says_how_much_of_the_month_is_left(house):
    assert "8 of 30 days" in await get(house, "/dashboard/analytics")


async def test_a_change_against_a_range_that_is_not_whole_says_so(start):
    control = await start(now_us=lambda: NOW_US)
    await control.add(
        record(1, ended_at=NOW_US - 9 * DAY_US, cost_nusd=10**9), record(2, ended_at=NOW_US - 1, cost_nusd=2 * 10**9)
    )
    html = await get(control, "/dashboard/analytics?period=7d")
    assert "+100 %" in html and "* Nothing is recorded before 2026-11-13" in html
    trends = await control.get("/usage/trends", **{"from": "2026-11-16"})
    assert trends["before_recorded_from"] == "2026-11-13T00:00:00Z"
    await control.add(record(3, ended_at=NOW_US - 20 * DAY_US))
    html = await get(control, "/dashboard/analytics?period=7d")
    assert "+100 %" in html and "is not whole" not in html
    assert (await control.get("/usage/trends", **{"from": "2026-11-16"}))["before_recorded_from"] is None


async def test_today_against_the_first_day_of_all_says_so(start):
    control = await start(now_us=lambda: NOW_US)
    await control.add(record(1, ended_at=NOW_US - DAY_US - 1), record(2, ended_at=NOW_US - 1))
    assert "Nothing is recorded before yesterday" in await get(control, "/")
    await control.add(record(3, ended_at=NOW_US - 3 * DAY_US))
    assert "Nothing is recorded before yesterday" not in await get(control, "/")


async def test_trends_sort_by_every_column(start):
    control = await start(now_us=lambda: NOW_US)
    await control.add(
        record(1, request_model="a", cost_nusd=3 * 10**9, ended_at=NOW_US - 1),
        record(2, request_model="b", cost_nusd=2 * 10**9, ended_at=NOW_US - 1),
        record(3, request_model="b", cost_nusd=9 * 10**9, ended_at=NOW_US - 9 * DAY_US),
    )
    for sort, expected in (("", "ba"), ("name", "ab"), ("-cost", "ab"), ("-before", "ba"), ("moved", "ab")):
        html = await get(control, "/dashboard/analytics?period=7d" + (f"&sort={sort}" if sort else ""))
        assert "".join(row[0] for row in rows_of(html, "trends")) == expected, sort


async def test_health_tells_what_a_sink_lacks(start):
    lacking = told()
    lacking.sinks["history"] = msgspec.structs.replace(lacking.sinks["history"], set_aside_records=1_234)
    html = await get(await start(delivering=lambda: lacking), "/dashboard/health")
    assert "1,234 set aside: taximeter deadletters list" in html


async def test_health_tells_what_is_wrong(house):
    assert "not ready" not in await get(house, "/dashboard/health")
    house.node.troubles = ["sink counters: Redis does not answer"]
    html = await get(house, "/dashboard/health")
    assert "not ready" in html and "Redis does not answer" in html


async def test_a_late_delivery_is_said_on_the_page(house):
    house.waits.complete, house.waits.lag_seconds = False, 12.3
    assert "12.3 s behind" in await get(house, "/")


@pytest.mark.parametrize("path", PATHS)
async def test_pages_may_load_only_from_their_own_port(house, path):
    answer = await house.client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert not re.findall(r"""(?:src|href)="(?:https?:)?//""", answer.text)
    assert "style=" not in answer.text and "<script>" not in answer.text


async def test_pages_files_are_for_ever(house):
    answer = await house.client.get("/dashboard/static/dashboard.css")
    assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
    assert (await house.client.get("/")).headers["cache-control"] == "no-store"


async def test_an_unknown_visitor_is_led_to_the_sign_in(guarded):
    for path in (*PATHS, "/dashboard/requests/req-000001"):
        answer = await guarded.client.get(path, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"][:21]) == (303, "/dashboard/login?next"), path
    assert (await guarded.client.get("/dashboard/login")).status_code == 200


async def test_the_admin_token_opens_every_page(guarded):
    for path in PATHS:
        await get(guarded, path, authorization=f"Bearer {ADMIN_TOKEN}")
