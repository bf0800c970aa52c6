"""A month from the meter to the bill, on a whole node: what comes late, is priced again or was never ended is on a
statement or open, to the nano-dollar."""

import asyncio
import contextlib
import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx2
import pytest

from exports import validator
from exports.test_focus_validates import NO_INVOICE
from faults.running import Node
from gateway.test_cost import script
from journals import opening, record, written
from taximeter.core.lines import Line
from taximeter.core.record import Source
from upstream import Provider, response
from waits import HANG_S

pytestmark = pytest.mark.xdist_group("processes")

JSON = [("content-type", "application/json")]
WORKSPACES = ("acme", "beta", "gamma")
US, DAY_S = 1_000_000, 86_400
CHAT = {
    "object": "chat.completion",
    "model": "gpt-4o-mini",
    "choices": [],
    "usage": {"prompt_tokens": 1_001, "completion_tokens": 101, "total_tokens": 1_102},
}
LINES = b"".join(
    json.dumps({"custom_id": f"line-{n}", "response": {"status_code": 200, "body": CHAT}}).encode() + b"\n"
    for n in range(20)
)
ANSWERS = {
    "/v1/batches/batch_1": json.dumps(
        {"id": "batch_1", "object": "batch", "status": "completed", "output_file_id": "file-1"}
    ).encode(),
    "/v1/files/file-1/content": LINES,
}
PLANS = """
[[plan]]
name = "standard"
workspaces = ["acme"]
markup_percent = 17.5
[[plan.price]]
code = "rag_llm_input"
usd = 0.0015
tasks = ["index"]
included = 1000
tiers = [{ above = 5000, usd = 0.0011 }]
[[plan]]
name = "partners"
workspaces = ["beta"]
markup_percent = -3.3333
"""


def months():
    """The first days of the month before last, of the last one and of this one (UTC)."""
    this = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    last = (this - timedelta(days=1)).replace(day=1)
    return (last - timedelta(days=1)).replace(day=1), last, this


EARLIER, MONTH, NOW = months()


def price(usd):
    return (
        '[[price]]\nprovider = "openai"\nmodel = "gpt-4o-mini"\nfrom = 2020-01-01\n'
        f'input_usd_per_mtok = {usd}\noutput_usd_per_mtok = {usd}\nsource = "contract"\n'
    )


def calls(first, count):
    """A journal's lines: calls of the month; every tenth was not ended when its writer was killed."""
    found, seq, journal_id = [], 0, f"{first:032x}"
    for number in range(first, first + count):
        ended_at = int(MONTH.timestamp() * US) + number * 3_600 * US
        tags = {"workspace": WORKSPACES[number % 3], "task": ("query", "index", None)[number % 4 % 3]}
        told = {"started_at": ended_at - 9, "request_model": ("gpt-4o-mini", "home-made")[number % 7 == 0]}
        begun = opening(f"call-{number}")
        ended = record(f"call-{number}")
        for each in (begun, ended):
            for name, value in (tags | told).items():
                setattr(each, name, value)
        found.append(Line(open=begun))
        if number % 10 == 9:
            continue
        seq += 1
        ended.event_id, ended.ended_at = f"{journal_id}:{seq}", ended_at
        ended.input_tokens, ended.output_tokens = 999 + number, 7 * number
        ended.total_tokens = 999 + 8 * number
        ended.cost_nusd = None if number % 7 == 0 else 150 * ended.input_tokens + 600 * ended.output_tokens + 1
        if number == first:  # a batch that was asked for, of which nothing is known yet
            ended.input_source = ended.output_source = Source.DEFERRED
            ended.input_tokens = ended.output_tokens = ended.total_tokens = ended.cost_nusd = None
            ended.deferred, ended.unpriced_reason, ended.workspace = f"batch_{first}", "deferred", "acme"
            begun.workspace = "acme"
        found.append(Line(close=ended))
    return found, journal_id


def ledger(node):
    """What the journals say each workspace cost, and how many requests it made: reckoned by hand."""
    costs: Counter[str] = Counter()
    requests: Counter[str] = Counter()
    for each in node.records():
        costs[each.workspace] += each.cost_nusd or 0
        requests[each.workspace] += each.kind == "usage" and each.attempt == 1
    return {name: Decimal(costs[name]).scaleb(-9) for name in WORKSPACES}, requests


def counts(each):
    """Whether a record is of use: not one that only tells of another's, or changes its cost."""
    return each.kind not in ("told", "correction")


async def command(node, *args, code=0):
    argv = [sys.executable, "-m", "taximeter", *args]
    at = f"127.0.0.1:{node.admin}"
    env = {**os.environ, "TAXIMETER_DATA_DIR": str(node.data), "TAXIMETER_ADMIN_LISTEN": at}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, cwd=node.folder, env=env)
    assert done.returncode == code, done.stderr.decode()
    return done.stdout


async def standing(node, workspace):
    got = await asked(node, "GET", f"/billing/statements?workspace={workspace}")
    return got["data"][0]


async def asked(node, method, path, body=None):
    """An answer of the control port, its numbers exact."""
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.admin}", timeout=HANG_S) as client:
        got = await client.request(method, path, json=body)
        assert got.status_code < 300, got.text
        return json.loads(got.text, parse_float=Decimal, parse_int=Decimal)


async def close(node, workspace, month):
    return await asked(node, "POST", "/billing/statements", {"workspace": workspace, "month": f"{month:%Y-%m}"})


async def test_a_scripted_month_closes_into_statements_that_are_the_ledger(tmp_path, subtests):
    items, journal_id = calls(1, 60)
    written(tmp_path / "data/journal", items, journal_id)
    lost, lost_id = calls(100, 30)
    written(tmp_path / "lost/journal", lost, lost_id)
    prices = tmp_path / "prices.toml"
    prices.write_text(price(1))
    async with Provider() as provider:
        provider.handler = lambda request: script(response(ANSWERS[request.target], headers=JSON))
        config = f'prices_file = "{prices}"\n{PLANS}'
        async with Node(tmp_path, workers=1, provider=provider, config=config) as node:
            node.kill_everything()  # wherever delivery was
            node.start()
            await node.until_ready()
            await node.settle()
            closed = {name: await close(node, name, MONTH) for name in WORKSPACES}
            costs, requests = ledger(node)
            for name in WORKSPACES:
                total = closed[name]["total"]
                assert (closed[name]["number"], total["cost_usd"]) == (1, costs[name])
                assert total["quantities"]["requests"] == requests[name]
                assert (
                    total["unknown_requests"] > 0 and total["margin_usd"] is None
                )  # six writers' calls were not ended
                assert (total["charge_usd"] is None) == (name == "gamma")
            assert closed["acme"]["lines"][0]["prices"][0]["code"] == "rag_llm_input"

            assert closed["acme"]["notes"][-1].startswith("One call of this period will be billed later")

            # What comes late: a lost node's journals, other prices, a batch that has ended.
            await command(node, "adopt", str(tmp_path / "lost"))
            await node.until(lambda: _is_taken_up(node, 100), "the lost node's records in the journals")
            await node.settle()
            prices.write_text(price(3))
            repriced = await asked(node, "POST", "/reprice", {"from": f"{MONTH:%Y-%m-%d}", "to": f"{NOW:%Y-%m-%d}"})
            assert repriced["total"]["corrected"] > 50
            async with httpx2.AsyncClient(base_url=node.url, timeout=HANG_S) as client:
                for path in ANSWERS:
                    await client.get(f"/w/acme{path}")
            await node.until(lambda: sum(each.line is not None for each in node.records()) >= 40, "settled")
            await node.settle()

            costs, _ = ledger(node)
            for name in WORKSPACES:
                before = await standing(node, name)
                assert before["ledger_usd"] == costs[name] and before["open_usd"] != 0
                assert before["stated_usd"] == closed[name]["total"]["cost_usd"]
                assert await asked(node, "GET", f"/billing/statements/{name}/1") == closed[name]  # frozen
                second = await close(node, name, EARLIER)
                assert {line["corrects"] for line in second["lines"]} == {1} and len(second["notes"]) == (
                    name == "gamma"
                )
                after = await standing(node, name)
                lines = [line for one in (closed[name], second) for line in one["lines"]]
                assert sum(line["cost_usd"] or 0 for line in lines) == after["stated_usd"]
                assert after["stated_usd"] + after["open_usd"] == after["ledger_usd"] == costs[name]
                assert after["open_usd"] == 0
                assert after["open_requests"] == (len(ANSWERS) if name == "acme" else 0)  # who fetched the batch, now
                tokens = sum(
                    each.input_tokens or 0 for each in node.records() if each.workspace == name and counts(each)
                )
                assert sum(line["quantities"]["input_tokens"] for line in lines) == tokens

            # the same charges as FOCUS has them
            text = await asked_text(node, "/usage/export.focus.csv")
            billed = [Decimal(row["BilledCost"]) for row in csv.DictReader(io.StringIO(text))]
            assert sum(billed) == sum(costs.values())
            with subtests.test("the FOCUS project's own validator"):
                await is_valid_focus(tmp_path / "month.csv", text)
            await is_exactly_what_went_past_us(node)
            await is_evident(node)


async def is_valid_focus(file, text):
    if not validator.VALIDATOR.exists():
        pytest.skip(validator.BRINGS)
    file.write_text(text, newline="")
    failed, kept = await asyncio.to_thread(validator.failures, file)
    assert failed == NO_INVOICE and kept > 200


async def is_exactly_what_went_past_us(node):
    """A provider's export with one token in a hundred that never passed here: that is what reconciling reports."""
    used: dict[tuple[int, str], Counter[str]] = {}
    for each in node.records():
        if counts(each) and each.input_tokens:
            day = used.setdefault((each.ended_at // US // DAY_S * DAY_S, each.model), Counter())
            day.update(input_tokens=each.input_tokens, output_tokens=each.output_tokens or 0)
    last = max(used)
    past = sum(day["input_tokens"] for day in used.values()) // 100
    used[last]["input_tokens"] += past
    buckets = [
        {
            "start_time": start,
            "end_time": start + DAY_S,
            "results": [
                {"object": "organization.usage.completions.result", "model": model, "input_cached_tokens": 0, **figures}
                for (at, model), figures in used.items()
                if at == start
            ],
        }
        for start in sorted({start for start, _ in used})
    ]
    file = node.folder / "usage.json"
    file.write_text(json.dumps({"object": "page", "data": buckets}))
    told = json.loads(await command(node, "reconcile", str(file), "--operation", "llm", "--json", code=1))
    (difference,) = told["differences"]
    assert (difference["model"], difference["figure"], difference["difference"]) == (last[1], "input_tokens", -past)
    await command(node, "reconcile", str(file), "--operation", "llm", "--fail-over", "1.1%")


async def is_evident(node):
    """History is what the journals delivered, late ones, corrections and settlements too; a change of one is found."""
    assert b"As it was delivered" in await command(node, "verify")
    with contextlib.closing(sqlite3.connect(node.data / "history.db")) as database, database:
        database.execute("UPDATE usage_events SET cost_nusd = cost_nusd - 1 WHERE request_id = 'call-2'")
    told = await command(node, "verify", code=1)
    assert b"record changed" in told and b"call-2" in told


async def asked_text(node, path):
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.admin}", timeout=HANG_S) as client:
        return (await client.get(path)).text


def _is_taken_up(node, first):
    return any(each.request_id == f"call-{first + 9}" for each in node.records())
