"""`/billing`: statements over HTTP, as JSON and as files, for operator and customer; closed once, and written down."""

import csv
import io
from pathlib import Path

from control_plane import DAY_US, NOON_US, bearing, embedding, record
from taximeter.config import load

NOVEMBER = {"workspace": "acme", "month": "2026-11"}


async def test_a_month_drawn_up_closed_listed_and_shown_again(billing):
    await billing.add(record(1, task="query"), embedding(2, task="index"), record(3, workspace="beta"))
    made = await billing.get("/billing/statement", **NOVEMBER, chunks=2, by="operation")
    assert {line["key"]["operation"]: (line["cost"], line["charge"], line["charge_usd"]) for line in made["lines"]} == {
        "llm": (0.000016, 0.00002, 0.0000396),  # 0.0000165 and 0.0000198: half to even
        "embedding": (0, 0.000002, 0.0000032),
        None: (0, 0.001, 0.002),
    }
    assert made["number"] is None and made["total"]["margin_usd"] == 0.00200948
    closed = (await billing.client.post("/billing/statements", json=NOVEMBER)).json()
    assert (closed["number"], closed["closed_by"], closed["by"]) == (1, "loopback", ["model", "task"])
    assert await billing.get("/billing/statements/acme/1") == closed
    (standing,) = (await billing.get("/billing/statements"))["data"]
    assert (standing["ledger_usd"], standing["stated_usd"], standing["open_usd"]) == (0.00003332, 0.00003332, 0)
    assert [each["number"] for each in standing["statements"]] == [1]
    again = await billing.client.post("/billing/statements", json=NOVEMBER)
    assert again.status_code == 409 and again.json()["error"]["code"] == "conflict"
    done, refused = (await billing.get("/audit", action="statement.close"))["data"][::-1]
    assert (done["target"], done["after"]["cost_usd"], refused["outcome"]) == ("acme 1", "0.00003332", "failed")


async def test_a_customer_sees_no_cost(billing):
    await billing.add(record(1, request_model="=cmd()", task="query"))
    whole = await billing.client.get("/billing/statement", params=NOVEMBER | {"format": "csv"})
    (row,) = csv.DictReader(io.StringIO(whole.text))
    assert (row["model"], row["cost_usd"], row["charge_usd"], row["input_tokens"]) == (
        "'=cmd()", "0.000033", "0.0000396", "100",
    )  # fmt: skip
    for kind in ("json", "csv", "html"):
        answer = await billing.client.get("/billing/statement", params=NOVEMBER | {"format": kind, "for": "customer"})
        assert answer.status_code == 200 and "cost" not in answer.text.lower().replace("costs nothing", "")
        assert "margin" not in answer.text.replace("margin:", "") and "=cmd()" in answer.text
    page = await billing.client.get("/billing/statement", params=NOVEMBER | {"format": "html"})
    assert page.headers["content-type"].startswith("text/html") and "Draft statement of acme" in page.text
    assert "0.000020" in page.text and "<script" not in page.text


async def test_a_pdf_has_the_statement(billing):
    await billing.add(record(1, request_model="módel-名"))
    answer = await billing.client.get("/billing/statement", params=NOVEMBER | {"format": "pdf"})
    assert answer.headers["content-type"] == "application/pdf" and answer.content.startswith(b"%PDF-")
    await billing.client.post("/billing/statements", json=NOVEMBER)
    twice = [await billing.client.get("/billing/statements/acme/1", params={"format": "pdf"}) for _ in range(2)]
    assert twice[0].content == twice[1].content and len(twice[0].content) > 1_000


async def test_what_is_wrong_with_a_question_is_said(billing):
    await billing.add(record(1))
    for given, problem in (
        ({"month": "2026-13"}, "month: '2026-13' is none"),
        ({}, "Say which period"),
        ({"from": "2026-11-01"}, "both ends"),
        ({"from": "2026-11-02T00:01:00Z", "to": "2026-11-03"}, "full quarters of an hour"),
        ({"from": "2026-11-03", "to": "2026-11-03"}, "not before"),
        ({"month": "2026-11", "currency": "GBP"}, "no rate of 'GBP'"),
        ({"month": "2026-11", "tz": "Mars"}, "No time zone"),
        ({"month": "2026-11", "by": "workspace"}, "Cannot group"),
    ):
        answer = await billing.client.get("/billing/statement", params={"workspace": "acme"} | given)
        assert answer.status_code == 400 and problem in answer.json()["error"]["message"], given
    assert (await billing.client.get("/billing/statements/acme/1")).status_code == 404
    early = await billing.client.post("/billing/statements", json={"workspace": "acme", "month": "2027-01"})
    assert early.status_code == 400 and "is over at 2027-02-01" in early.json()["error"]["message"]


async def test_nothing_is_closed_while_history_is_behind_unless_it_is_forced(billing):
    await billing.add(record(1))
    billing.waits.complete, billing.waits.lag_seconds = False, 7.0
    behind = await billing.client.post("/billing/statements", json=NOVEMBER)
    assert behind.status_code == 503 and "7 s behind" in behind.json()["error"]["message"]
    forced = await billing.client.post("/billing/statements", json=NOVEMBER | {"force": True})
    assert forced.json()["number"] == 1
    await billing.add(record(2))
    december = {"workspace": "acme", "from": "2026-12-01", "to": "2026-12-02", "force": True}
    (late,) = (await billing.client.post("/billing/statements", json=december)).json()["lines"]
    assert (late["corrects"], late["cost_usd"]) == (1, 0.000033)


async def test_statements_are_the_admins(start, billing):
    key, secret = billing.keys.create("acme")
    for path in ("/billing/statements", "/billing/statement", "/billing/statements/acme/1"):
        assert (await billing.client.get(path, headers=bearing(secret), params=NOVEMBER)).status_code in (400, 403)
    answer = await billing.client.post("/billing/statements", json=NOVEMBER, headers=bearing(secret))
    assert answer.status_code == 403 and key.workspace == "acme"


async def test_a_month_of_another_zone(billing):
    await billing.add(record(1, ended_at=NOON_US - 2 * DAY_US - 12 * 3_600_000_000 - 1_800_000_000))  # 31 Oct 23:30 UTC
    made = await billing.get("/billing/statement", **NOVEMBER, tz="Europe/Berlin")
    assert made["from"] == "2026-10-31T23:00:00Z" and made["total"]["quantities"]["requests"] == 1
    assert (await billing.get("/billing/statement", **NOVEMBER))["lines"] == []


async def test_a_line_of_more_than_a_page_is_in_the_pdf(start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prices = "".join(
        f'[[plan.price]]\ncode = "output"\nusd = 1\nincluded = 7\nmodels = ["model-{n}"]\n' for n in range(60)
    )
    Path("taximeter.toml").write_text(f'[[plan]]\nname = "many"\n{prices}')
    control = await start(load(None))
    await control.add(*(record(n, request_model=f"model-{n}", task="W" * 200) for n in range(60)))
    answer = await control.client.get("/billing/statement", params=NOVEMBER | {"format": "pdf", "by": "task,operation"})
    assert answer.status_code == 200 and answer.content.count(b"/Type /Page\n") > 1
