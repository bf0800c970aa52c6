"""Any number of groups, sent as they are read."""

import asyncio
import csv
import io
import json
from decimal import Decimal

import httpx2
import pytest

from control_plane import embedding, record
from taximeter.config import AuthSettings, Settings
from taximeter.keys.rule import digest
from taximeter.sinks.history.database import HistoryUnavailable
from taximeter.sinks.history.read import stretches
from taximeter.sinks.query import Filters
from waits import happens


@pytest.fixture
async def used(control, monkeypatch):
    monkeypatch.setattr(stretches, "FIRST_ROWS", 2)
    monkeypatch.setattr(stretches, "ROWS", 4)
    await control.add(
        *(record(n, end_user=f"u-{n % 20:02}", workspace="beta" if n % 3 else "acme") for n in range(60)),
        record(61, cost_nusd=None, end_user="=1+1"),
        embedding(62),
    )
    return control


async def test_the_rows_and_totals_are_those_of_usage(used):
    asked = {"group_by": "end_user,workspace", "window": "day", "tz": "Europe/Berlin"}
    shown = await used.get("/usage", **asked)
    answer = await used.client.get("/usage/groups.json", params=asked)
    found = answer.json()
    assert sorted(found["groups"], key=repr) == sorted(shown["series"], key=repr)
    for name in (
        "from",
        "to",
        "filters",
        "complete",
        "lag_seconds",
        "usage",
        "estimated_cost_usd",
        "unpriced_requests",
    ):
        assert found[name] == shown[name], name
    assert found["rows"] == len(found["groups"]) == 42
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["transfer-encoding"] == "chunked"
    lines = (await used.client.get("/usage/groups.jsonl", params=asked)).text.splitlines()
    assert [json.loads(line) for line in lines] == found["groups"]


async def test_csv_has_a_column_for_each_name_and_figure(used):
    answer = await used.client.get("/usage/groups.csv", params={"group_by": "end_user", "workspace": "acme"})
    rows = {row["end_user"]: row for row in csv.DictReader(io.StringIO(answer.text))}
    groups = (await used.get("/usage", group_by="end_user", workspace="acme"))["groups"]
    assert len(rows) == len(groups)
    for group in groups:
        usage, row = group["usage"], rows[("'" if group["end_user"] == "=1+1" else "") + (group["end_user"] or "")]
        assert int(row["llm_input_tokens"]) == usage["llm"]["input_tokens"]
        assert int(row["embedding_requests"]) == usage["embedding"]["requests"]
        assert int(row["total_tokens"]) == usage["total_tokens"]
        cost_usd = group["estimated_cost_usd"]
        assert row["estimated_cost_usd"] == ("" if cost_usd is None else f"{Decimal(str(cost_usd)):f}")
    assert rows["'=1+1"]["unpriced_requests"] == "1"


async def test_nothing_is_an_empty_list_with_totals_of_zero(control):
    found = (await control.client.get("/usage/groups.json?group_by=model")).json()
    assert (found["groups"], found["rows"], found["usage"]["requests"]) == ([], 0, 0)
    assert (await control.client.get("/usage/groups.csv?group_by=model")).text.count("\n") == 1
    assert (await control.client.get("/usage/groups.jsonl?group_by=model")).text == ""


@pytest.mark.parametrize("query", ["", "?group_by=upstream", "?group_by=model&window=year", "?group_by=model&tz=Mars"])
async def test_what_cannot_be_asked_is_an_error_before_any_row(control, query):
    await control.add(record(1))
    answer = await control.client.get(f"/usage/groups.json{query}")
    assert answer.status_code == 400 and answer.json()["error"]["param"] in ("group_by", "window", "tz")


async def test_a_key_sees_its_workspace_only(start):
    control = await start(Settings(auth=AuthSettings(admin_token_sha256=digest("the-admin-token"))))
    await control.add(record(1, workspace="acme"), record(2, workspace="beta"))
    acme = {"authorization": f"Bearer {control.keys.create('acme')[1]}"}
    found = await control.client.get("/usage/groups.jsonl?group_by=workspace", headers=acme)
    assert [json.loads(line)["workspace"] for line in found.text.splitlines()] == ["acme"]


async def test_what_fails_midway_is_no_whole_body(used, monkeypatch):
    history = used.services.history
    parts = history.parts

    async def failing(*asked):
        async for groups in parts(*asked):
            yield groups
            raise HistoryUnavailable("gone")

    monkeypatch.setattr(history, "parts", failing)
    for kind in ("json", "csv", "jsonl"):
        with pytest.raises(httpx2.RemoteProtocolError):
            await used.client.get(f"/usage/groups.{kind}?group_by=end_user")

    async def failed(*asked):
        raise HistoryUnavailable("gone")
        yield

    monkeypatch.setattr(history, "parts", failed)
    answer = await used.client.get("/usage/groups.json?group_by=end_user")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "history_unavailable")


async def test_a_client_that_leaves_ends_it(used, monkeypatch):
    history = used.services.history
    groups = await history.usage(Filters(), ["end_user"])
    ended = asyncio.Event()

    async def endless(*asked):
        try:
            while True:
                yield groups
        finally:
            ended.set()

    monkeypatch.setattr(history, "parts", endless)
    async with used.client.stream("GET", "/usage/groups.csv?group_by=end_user") as answer:
        async for _ in answer.aiter_bytes():
            break
    await happens(ended.is_set)
