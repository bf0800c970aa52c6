"""The page of how calls went: what failed, what was refused, and how long calls took, exact or from what is kept."""

import re
from html import unescape

from control_plane import HOUR_US, record
from dashboards import NOW_US, get, rows_of, text_of
from taximeter.core.record import Outcome

READ = "taximeter.sinks.history.read.latencies"
PAGE = "/dashboard/performance?period=today"


async def calls(start):
    """20 that ended well after 1 to 20 s, 4 that timed out, 6 that we refused."""
    control = await start(now_us=lambda: NOW_US)
    await control.add(
        *(
            record(n, ended_at=NOW_US - HOUR_US - n, duration_ms=1_000.0 * n, ttft_ms=10.0 * n, stream=True)
            for n in range(1, 21)
        ),
        *(
            record(
                100 + n,
                ended_at=NOW_US - 2 * HOUR_US,
                outcome=Outcome.TIMEOUT,
                error_code="upstream_timeout",
                status=504,
            )
            for n in range(4)
        ),
        *(
            record(200 + n, ended_at=NOW_US - 2, outcome=Outcome.REFUSED, error_code="insufficient_quota", status=429)
            for n in range(6)
        ),
    )
    return control


async def test_refusals_are_no_errors_anywhere(start):
    control = await calls(start)
    html = await get(control, PAGE)
    assert text_of(html, "sent") == "Calls sent 24 every attempt"
    assert text_of(html, "failed") == "Errors 4 16.7 % of the calls sent"
    assert text_of(html, "refused") == "Refused by us 6 never sent: no errors"
    html = await get(control, "/?period=today")
    assert text_of(html, "today-errors").startswith("Errors today 4 16.7 % of the calls sent, and 6 refused by us")
    assert [row[:3] for row in rows_of(html, "by-model")] == [["gpt-4o-mini", "30", "4"]]
    html = await get(control, "/dashboard/health")
    assert ("16.7 %" in html, "20 %" in html) == (True, True)
    known = dict(re.findall(r'<th scope="row">(.*?)</th><td class="num">(.*?)</td>', html))
    assert (known["Attempts that failed, of those sent"], known["Attempts that we refused"]) == ("4", "6")


async def test_percentiles_are_exact_of_few_calls_and_say_so(start):
    html = await get(await calls(start), PAGE)
    assert text_of(html, "duration") == "Time to the end 10.0 s p95 19.0 s, p99 20.0 s"
    assert text_of(html, "ttft") == "To the first token 100 ms p95 190 ms, p99 200 ms"
    assert "Percentiles are exact: of every single call" in html
    (row,) = rows_of(html, "groups")
    assert row == ["gpt-4o-mini", "30", "4", "16.7 %", "10,000", "19,000", "20,000", "190"]


async def test_percentiles_of_many_calls_come_from_what_is_kept_and_say_so(start, monkeypatch):
    monkeypatch.setattr(f"{READ}.FEW", 5)
    control = await calls(start)
    html = await get(control, PAGE)
    assert "counts that are kept of every call, by steps of 41 %" in html
    p50, p95, p99 = (float(each.removesuffix(" s")) for each in re.findall(r"[\d.]+ s", text_of(html, "duration")))
    assert 8.192 <= p50 <= 11.586 and 16.384 <= p95 <= p99 <= 23.171
    monkeypatch.setattr(f"{READ}.MOST", 5)
    html = await get(control, f"{PAGE}&end_user=")
    assert "Percentiles are not known: too many calls" in html and text_of(html, "duration").startswith(
        "Time to the end —"
    )


async def test_every_part_of_a_chart_leads_to_its_records(start):
    control = await calls(start)
    html = await get(control, PAGE)
    picture = html[html.index('id="requests"') : html.index('id="error-rate"')]
    told = dict(
        re.findall(r"<title>([\w: ,]+?)</title>", picture)
        and [
            (unescape(title), unescape(link))
            for link, title in re.findall(r'xlink:href="([^"]+)".*?<title>(.*?)</title>', picture, re.S)
        ]
    )
    assert set(told) == {"Sun 12:00: 20", "Sun 11:00: 4", "Sun 13:00: 6"}
    for title, outcome, number in (("Sun 11:00: 4", "timeout", 4), ("Sun 13:00: 6", "refused", 6)):
        shown = await get(control, told[title])
        assert len(set(re.findall(r"/dashboard/requests/(req-\d+)", shown))) == number, outcome


async def test_what_failed_is_told_by_code_and_a_click_away(start):
    control = await calls(start)
    html = await get(control, PAGE)
    assert rows_of(html, "failures") == [
        ["timeout", "upstream_timeout", "504", "4"], ["refused", "insufficient_quota", "429", "6"],
    ]  # fmt: skip
    (link,) = re.findall(r'href="([^"]+error_code=upstream_timeout)"', html)
    assert len(set(re.findall(r"/dashboard/requests/(req-\d+)", await get(control, unescape(link))))) == 4


async def test_before_the_upgrade_refusals_are_said_to_be_among_the_errors(start):
    control = await calls(start)

    async def since():
        return NOW_US - HOUR_US

    control.history.apart_since_us = since
    html = await get(control, PAGE)
    assert "Before 22 Nov 12:30:00 refusals are among the errors" in html
    assert "Before 22 Nov 12:30:00 refusals are among the errors" in await get(control, "/")
    assert "refusals are among" not in await get(control, "/dashboard/performance?from=2026-11-22T13:00:00Z")


async def test_groups_sort_by_every_column(start):
    control = await start(now_us=lambda: NOW_US)
    await control.add(
        record(1, request_model="a", duration_ms=5.0, ended_at=NOW_US - 1),
        record(2, request_model="b", duration_ms=50.0, ttft_ms=1.0, stream=True, ended_at=NOW_US - 1),
        record(3, request_model="c", outcome=Outcome.TIMEOUT, ended_at=NOW_US - 1),
    )
    order = {
        "name": "abc", "-name": "cba", "-p95": "bac", "p95": "abc", "-rate": "cab", "ttft": "bac", "-errors": "cab",
    }  # fmt: skip
    for sort, expected in order.items():
        html = await get(control, f"{PAGE}&sort={sort}")
        assert "".join(row[0] for row in rows_of(html, "groups")) == expected, sort


async def test_refusals_hide_no_failure_and_each_count_is_that_of_its_records(start, monkeypatch):
    control = await calls(start)
    error = {"outcome": Outcome.UPSTREAM_ERROR, "ended_at": NOW_US - 2 * HOUR_US - 1}
    await control.add(record(301, status=500, **error), record(302, status=429, **error))
    await control.add(record(303, status=503, error_code="overloaded", **error))
    monkeypatch.setattr("taximeter.control.dashboard.performance.LOOKED_AT", 7)
    html = await get(control, PAGE)
    assert rows_of(html, "failures") == [
        ["timeout", "upstream_timeout", "504", "4"], ["upstream_error", "—", "429, 500", "2"],
        ["upstream_error", "overloaded", "503", "1"], ["refused", "insufficient_quota", "429", "6"],
    ]  # fmt: skip
    table = html[html.index('id="failures"') :]
    for link, shown in re.findall(r'<td class="num"><a href="([^"]+)">(\d+)</a>', table):
        found = await get(control, unescape(link))
        assert len(set(re.findall(r"/dashboard/requests/(req-\d+)", found))) == int(shown)
