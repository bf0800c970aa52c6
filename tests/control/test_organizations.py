"""Anthropic's reports, read by its SDK's client; its own types of them came and went, so they are plain JSON here."""

from typing import Any

import pytest
from anthropic import AsyncAnthropic, BadRequestError

from control_plane import DAY_US, HOUR_US, NOON_US, embedding, record

DAY = {"starting_at": "2026-11-03T00:00:00Z", "ending_at": "2026-11-04T00:00:00Z"}


@pytest.fixture
async def report(control):
    async with AsyncAnthropic(base_url=control.url, auth_token="local", max_retries=0) as client:

        async def read(kind, **params: Any) -> Any:
            return await client.get(f"/v1/organizations/{kind}", cast_to=object, options={"params": params})

        yield read


async def test_usage_is_told_as_anthropic_tells_it(control, report):
    await control.add(
        record(1, key_id="key_1", service_tier="batch", end_user="u1"),
        record(2, workspace="beta", request_model="claude-sonnet-4", cache_write_input_tokens=30),
        embedding(3),
    )
    page = await report("usage_report/messages", **DAY)
    (bucket,) = page["data"]
    assert (page["has_more"], page["next_page"]) == (False, None)
    assert (bucket["starting_at"], bucket["ending_at"]) == (DAY["starting_at"], DAY["ending_at"])
    assert bucket["results"] == [
        {
            "uncached_input_tokens": 130, "cache_read_input_tokens": 40, "output_tokens": 60,
            "cache_creation": {"ephemeral_1h_input_tokens": None, "ephemeral_5m_input_tokens": None},
            "cache_creation_input_tokens": 30, "server_tool_use": {"web_search_requests": None},
            **dict.fromkeys((
                "context_window", "inference_geo", "service_account_id", "api_key_id", "workspace_id", "model",
                "service_tier", "account_id",
            )),
        }
    ]  # fmt: skip
    names = ["api_key_id", "workspace_id", "model", "service_tier", "account_id"]
    by = await report("usage_report/messages", **DAY, **{"group_by": names})
    assert {tuple(each[name] for name in names) for each in by["data"][0]["results"]} == {
        ("key_1", "acme", "gpt-4o-mini", "batch", "u1"), (None, "beta", "claude-sonnet-4", None, None),
    }  # fmt: skip
    (mine,) = (await report("usage_report/messages", **DAY, **{"models": ["claude-sonnet-4"]}))["data"][0]["results"]
    assert mine["cache_creation_input_tokens"] == 30


async def test_buckets_are_whole_ones_page_by_page(control, report):
    await control.add(record(1), record(2, ended_at=NOON_US + HOUR_US), record(3, ended_at=NOON_US + DAY_US))
    asked = {"starting_at": "2026-11-03T11:30:00Z", "ending_at": "2026-11-03T14:59:00Z", "bucket_width": "1h"}
    first = await report("usage_report/messages", **asked, limit=2)
    assert [bucket["starting_at"][11:16] for bucket in first["data"]] == ["11:00", "12:00"] and first["has_more"]
    rest = await report("usage_report/messages", **asked, limit=2, page=first["next_page"])
    assert [bucket["starting_at"][11:16] for bucket in rest["data"]] == ["13:00"] and not rest["has_more"]
    told = [len(bucket["results"]) for bucket in first["data"] + rest["data"]]
    assert told == [0, 1, 1]
    assert (await report("usage_report/messages", **asked | {"ending_at": asked["starting_at"]}))["data"] == []
    for wrong in (
        {"bucket_width": "1w"},
        {"group_by": ["speed"]},
        {"starting_at": "today"},
        {"inference_geos": ["us"]},
    ):
        with pytest.raises(BadRequestError):
            await report("usage_report/messages", **asked | wrong)


async def test_costs_are_in_cents_and_unknown_is_not_0(control, report):
    await control.add(
        record(1, cost_nusd=12_345_678_900), record(2, workspace="beta", cost_nusd=None, request_model="m-1")
    )
    ((told,),) = [bucket["results"] for bucket in (await report("cost_report", **DAY))["data"]]
    assert (told["amount"], told["currency"], told["description"]) == ("1234.56789", "USD", None)
    by = await report("cost_report", **DAY, **{"group_by": ["workspace_id", "description"]})
    rows = by["data"][0]["results"]
    assert [(row["workspace_id"], row["model"], row["description"], row["amount"]) for row in rows] == [
        ("acme", "gpt-4o-mini", "gpt-4o-mini usage", "1234.56789"), ("beta", "m-1", "m-1 usage", None),
    ]  # fmt: skip
