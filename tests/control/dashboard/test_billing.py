"""Statements in a browser: for a month, and closed ones; cost and charge in two columns."""

from control_plane import record
from taximeter.config import Settings
from taximeter.config.settings import PlanSettings


async def test_a_month_drawn_up_and_a_closed_statement(start):
    control = await start(Settings(plan=[PlanSettings(name="standard", markup_percent=20)]))
    await control.add(record(1, task="<b>"), record(2, cost_nusd=None))
    page = (await control.client.get("/dashboard/billing", params={"workspace": "acme"})).text
    assert "Draft statement of acme" in page and "gpt-4o-mini, &lt;b&gt;" in page and "Plan: standard" in page
    assert "0.000033" in page and "0.0000396" in page and "1 request without a price" in page
    assert '/billing/statement?workspace=acme&amp;month=2026-11&amp;format=html&amp;for=customer"' in page
    closing = await control.client.post("/billing/statements", json={"workspace": "acme", "month": "2026-11"})
    assert closing.json()["number"] == 1
    closed = (await control.client.get("/dashboard/billing/acme/1")).text
    assert "Statement 1 of acme" in closed and "Closed at" in closed
    listed = (await control.client.get("/dashboard/billing")).text
    assert 'href="/dashboard/billing/acme/1">1</a>' in listed
    assert '<a href="/dashboard/billing?workspace=acme&amp;month=2026-11">acme</a>' in listed and "unknown" in listed
    assert "is none" in (await control.client.get("/dashboard/billing", params={"month": "2026-13"})).text
    assert "Ledger 0.000033 USD = 0.000033 stated + 0 open (0 calls)." in listed
    again = (await control.client.get("/dashboard/billing", params={"workspace": "acme", "month": "2026-11"})).text
    assert "Statement 1 of acme has 2026-11-01" in again
    assert (await control.client.get("/dashboard/billing/acme/2")).status_code == 404
