"""The records' page: every filter a chip and a field, any order, pages both ways, a search, errors a click away."""

import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import msgspec

from control_plane import DAY_US, record
from dashboards import NOW_US, get, text_of
from present import present
from taximeter.core.record import Outcome
from taximeter.keys.rule import digest


def requests_of(html):
    return list(dict.fromkeys(re.findall(r'href="/dashboard/requests/([^"]+)"', html)))


def hrefs(html, pattern):
    return [unescape(link) for link in re.findall(rf'href="([^"]+)"[^>]*>{pattern}', html)]


async def several(start):
    control = await start(now_us=lambda: NOW_US)
    await control.add(
        record(1, ended_at=NOW_US - 4, cost_nusd=5_000, duration_ms=90.0, task="query"),
        record(2, ended_at=NOW_US - 3, cost_nusd=9_000_000_000, duration_ms=12_345.0, workspace="beta"),
        record(3, ended_at=NOW_US - 2, outcome=Outcome.TIMEOUT, error_code="upstream_timeout", cost_nusd=None),
        record(4, ended_at=NOW_US - 1, outcome=Outcome.REFUSED, error_code="insufficient_quota", cost_nusd=None),
    )
    return control


async def test_errors_are_a_click_away_and_refusals_are_not_among_them(start):
    control = await several(start)
    html = await get(control, "/")
    for link in (present(re.search(r'id="today-errors".*?href="([^"]+)"', html, re.S))[1],):
        shown = await get(control, unescape(link))
        assert requests_of(shown) == ["req-3"]
        assert "timeout" in text_of(shown, "ends") or "upstream_timeout" in shown
    (code,) = hrefs(shown, "upstream_timeout")
    assert parse_qs(urlsplit(code).query)["error_code"] == ["upstream_timeout"]
    assert requests_of(await get(control, code)) == ["req-3"]


async def test_every_filter_is_a_chip_that_can_be_taken_away(start):
    control = await several(start)
    path = "/dashboard/records?outcome=timeout&outcome=refused&error_code=insufficient_quota&workspace=acme&task="
    html = await get(control, path)
    chips = re.findall(r'<a class="chip" href="([^"]+)"[^>]*><span>(\w+)</span> (\S+) ✕', html)
    assert [(name, value) for _, name, value in chips] == [
        ("workspace", "acme"), ("task", "(none)"), ("outcome", "timeout"), ("outcome", "refused"),
        ("error_code", "insufficient_quota"),
    ]  # fmt: skip
    assert requests_of(html) == ["req-4"]
    without = dict(
        zip(((name, value) for _, name, value in chips), (unescape(link) for link, *_ in chips), strict=True)
    )
    html = await get(control, f"/dashboard/records{without['error_code', 'insufficient_quota']}")
    assert requests_of(html) == ["req-4", "req-3"]


async def test_a_field_for_every_filter_offers_what_there_is(start):
    control = await several(start)
    html = await get(control, "/dashboard/records?outcome=refused&sort=cost")
    fields = re.findall(r'<(?:select|input) name="(\w+)"', html[html.index('id="pickers"') :])
    assert fields == [
        "workspace", "provider", "model", "task", "operation", "track", "document", "key_id", "end_user",
        "service_tier", "outcome", "error_code",
    ]  # fmt: skip
    assert '<option value="beta">' in html and '<option value="refused" selected>' in html
    filled = {
        "workspace": "",
        "task": "(none)",
        "outcome": "timeout, refused",
        "model": " gpt-4o-mini ",
        "sort": "cost",
    }
    answer = await control.client.get("/dashboard/filter", params=filled)
    assert answer.status_code == 303
    asked = parse_qs(urlsplit(answer.headers["location"]).query, keep_blank_values=True)
    assert asked == {"task": [""], "outcome": ["timeout, refused"], "model": ["gpt-4o-mini"], "sort": ["cost"]}
    assert requests_of(await get(control, answer.headers["location"])) == ["req-3", "req-4"]
    answer = await control.client.get("/dashboard/filter", params={"task": "query, (none)"})
    assert requests_of(await get(control, answer.headers["location"])) == ["req-4", "req-3", "req-2", "req-1"]


async def test_columns_sort_and_the_address_says_how(start):
    control = await several(start)
    html = await get(control, "/dashboard/records")
    assert requests_of(html) == ["req-4", "req-3", "req-2", "req-1"] and 'aria-sort="descending"' in html
    (by_cost,) = hrefs(html, "Cost")
    html = await get(control, f"/dashboard/records{by_cost}")
    assert requests_of(html)[:2] == ["req-2", "req-1"]  # no price is below any
    (up,) = hrefs(html, "Cost")
    assert requests_of(await get(control, f"/dashboard/records{up}"))[-2:] == ["req-1", "req-2"]
    assert [hrefs(html, "Ended"), hrefs(html, "Took, ms")] == [["?sort=-ended"], ["?sort=-took"]]
    assert requests_of(await get(control, "/dashboard/records?sort=-took"))[0] == "req-2"
    answer = await control.client.get("/dashboard/records?sort=colour")
    assert answer.status_code == 400 and "Cannot sort by" in answer.text


async def test_costs_of_a_column_have_one_number_of_decimals(start):
    html = await get(await several(start), "/dashboard/records")
    assert re.findall(r'class="num">(\$[\d.,]+|—)<', html) == ["—", "—", "$9.000000", "$0.000005"]


async def test_pages_go_forth_and_back(start):
    control = await start(now_us=lambda: NOW_US)
    await control.add(*(record(number, ended_at=NOW_US - 1_000 + number) for number in range(250)))
    first = await get(control, "/dashboard/records")
    second = await get(
        control, "/dashboard/records" + unescape(present(re.search(r'rel="next" href="([^"]+)"', first))[1])
    )
    third = await get(
        control, "/dashboard/records" + unescape(present(re.search(r'rel="next" href="([^"]+)"', second))[1])
    )
    assert 'rel="prev"' not in first and 'rel="next"' not in third
    back = await get(
        control, "/dashboard/records" + unescape(present(re.search(r'rel="prev" href="([^"]+)"', third))[1])
    )
    assert requests_of(back) == requests_of(second)
    back = await get(
        control, "/dashboard/records" + unescape(present(re.search(r'rel="prev" href="([^"]+)"', back))[1])
    )
    assert requests_of(back) == requests_of(first) and 'rel="prev"' not in back


async def test_too_many_records_are_not_sorted_by_cost_and_the_page_says_so(start, monkeypatch):
    monkeypatch.setattr("taximeter.control.dashboard.records.MOST_READ", 3)
    control = await several(start)
    html = await get(control, "/dashboard/records?sort=-cost&outcome=timeout,refused")
    assert "More than 3 records are in this range" in html and "too many records to add up" in html
    assert requests_of(html) == ["req-4", "req-3"]


async def test_a_search_leads_to_a_request_a_track_or_the_names_it_finds(start):
    control = await start(now_us=lambda: NOW_US)
    await control.add(
        record(1, ended_at=NOW_US - DAY_US, track="upload-7"),
        record(2, ended_at=NOW_US - 1, request_model="gpt-4o"),
        record(3, ended_at=NOW_US - 1, workspace="beta", track="upload-8"),
    )
    for text, leads_to in (
        ("req-2", "/dashboard/requests/req-2"),
        ("upload-7", "/dashboard/workspaces/acme/tracks/upload-7"),
        ("bet", "/dashboard/workspaces/beta"),
    ):
        answer = await control.client.get("/dashboard/search", params={"q": text})
        assert (answer.status_code, answer.headers["location"]) == (303, leads_to), text
    html = await get(control, "/dashboard/search?q=GPT-4o")
    assert hrefs(html, "gpt-4o") == [
        "/dashboard/records?period=365d&model=gpt-4o",
        "/dashboard/records?period=365d&model=gpt-4o-mini",
    ]
    answer = await control.client.get("/dashboard/search", params={"q": "<script>"})
    assert answer.status_code == 404 and "&lt;script&gt;" in answer.text and "<script>" not in answer.text
    assert "A request's id" in await get(control, "/dashboard/search?q=")


async def test_a_workspaces_key_finds_and_is_offered_nothing_of_another(start):
    control = await start(now_us=lambda: NOW_US)
    await control.add(
        record(1, ended_at=NOW_US - 1, track="mine"), record(2, ended_at=NOW_US - 1, workspace="beta", track="theirs")
    )
    _, secret = control.keys.create("acme")
    bearer = {"authorization": f"Bearer {secret}"}
    assert digest(secret)  # a real one
    for text in ("theirs", "beta", "req-2"):
        answer = await control.client.get("/dashboard/search", params={"q": text}, headers=bearer)
        assert answer.status_code == 404, text
    assert "beta" not in await get(control, "/dashboard/records", **bearer)


async def test_a_records_fields_lead_to_those_that_share_them(start):
    control = await several(start)
    html = await get(control, "/dashboard/requests/req-3")
    (link,) = hrefs(html, "upstream_timeout")
    assert requests_of(await get(control, link)) == ["req-3"]
    (link,) = hrefs(html, "acme")
    assert link == "/dashboard/workspaces/acme"


async def test_a_record_is_shown_in_figures_and_lines_as_people_write_them(start):
    control = await start(now_us=lambda: NOW_US)
    odd = msgspec.Raw('{"prompt_tokens":100,"note":"<b>\u202e</b>"}'.encode())
    await control.add(record(1, ended_at=NOW_US - 1, cost_nusd=840, usage=odd))
    html = await get(control, "/dashboard/requests/req-1")
    assert ">0.00000084<" in html and "E-7" not in html
    shown = present(re.search(r"<pre[^>]*>(.*?)</pre>", html, re.S))[1]
    assert unescape(shown) == '{\n  "prompt_tokens": 100,\n  "note": "<b>\\u202e</b>"\n}' and "<b>" not in shown


async def test_odd_names_stay_text_in_fields_chips_and_links(start):
    control = await start(now_us=lambda: NOW_US)
    evil = '"><img src=x onerror=alert(1)>'
    await control.add(record(1, ended_at=NOW_US - 1, request_model=evil, error_code=evil, outcome=Outcome.TIMEOUT))
    for path in ("/dashboard/records", "/dashboard/search", "/dashboard/requests/req-1"):
        params = {"model": evil} if path.endswith("records") else {"q": "img"} if path.endswith("search") else {}
        answer = await control.client.get(path, params=params, follow_redirects=True)
        assert answer.status_code == 200 and "<img src=x" not in answer.text
        assert "onerror" in answer.text


async def test_the_address_holds_all_of_a_view(start):
    control = await several(start)
    html = await get(control, "/dashboard/records?period=7d&sort=-cost&refresh=30&workspace=acme&tz=Europe/Berlin")
    for link in (*hrefs(html, "Errors"), *hrefs(html, "Ended")):
        asked = parse_qs(urlsplit(link).query)
        assert {"period", "refresh", "workspace", "tz", "sort"} <= asked.keys(), link
    (still,) = hrefs(html, "The same with its dates")
    asked = parse_qs(urlsplit(still).query)
    assert asked["from"] == ["2026-11-15T23:00:00Z"] and asked["to"] == ["2026-11-22T23:00:00Z"]
    assert requests_of(await get(control, f"/dashboard/records{still}")) == requests_of(html)
    assert 'http-equiv="refresh" content="30"' in html
    answer = await control.client.get("/dashboard/records?refresh=1")
    assert answer.status_code == 400 and "10, 30, 60, 300" in answer.text


async def test_a_model_with_a_comma_in_its_name_is_a_click_away(start):
    control = await start(now_us=lambda: NOW_US)
    odd = ("a,b", " lead", "back\\slash")
    await control.add(*(record(n, request_model=name, ended_at=NOW_US - 1) for n, name in enumerate([*odd, "a", "b"])))
    html = await get(control, "/dashboard/performance")
    for n, name in enumerate(odd):
        (link,) = {unescape(each) for each in re.findall(rf'<a href="([^"]+)">{re.escape(name)}</a>', html)}
        found = await get(control, link)
        assert set(re.findall(r"/dashboard/requests/(req-\d+)", found)) == {f"req-{n}"}, name
        assert f"<span>model</span> {name} ✕" in found


async def test_a_search_says_that_there_may_be_more(start):
    control = await start(now_us=lambda: NOW_US)
    await control.add(*(record(n, request_model=f"model-{n:02}", task=f"task-{n % 2}") for n in range(25)))
    assert "of each kind the first 20: type more" in await get(control, "/dashboard/search?q=model-")
    assert "of each kind" not in await get(control, "/dashboard/search?q=task-")
