"""A row that somebody spoilt in the history database hides no other, in no answer, download, page or verb."""

import csv
import io
import json
import sqlite3

import pytest

from control_plane import NOON_US, record
from taximeter.core.bounds import FOREVER_US
from taximeter.core.record import Outcome
from taximeter.core.times import shown

SPOIL = {
    "detail that is no JSON": "UPDATE usage_events SET detail = '{\"x' WHERE request_id = 'req-2'",
    "detail of another shape": "UPDATE usage_events SET detail = '[1]' WHERE request_id = 'req-2'",
    "detail that is null": "UPDATE usage_events SET detail = x'ff00' WHERE request_id = 'req-2'",
    "an unknown outcome": "UPDATE usage_classes SET outcome = 'exploded' WHERE outcome = 'timeout'",
    "an unknown operation": "UPDATE usage_series SET operation = 'video' WHERE model = 'odd'",
    "figures beyond belief": "UPDATE usage_events SET input_tokens = 9223372036854775807, duration_us = 9.3e18,"
    " cost_nusd = 9223372036854775807 WHERE request_id IN ('req-2', 'req-3')",
    "a year without a calendar": "UPDATE usage_events SET started_at = 9223372036854775807 WHERE request_id = 'req-2'",
    "sums beyond 64 bits": "UPDATE usage_rollup_month SET cost_nusd = 9.3e18, llm_input_tokens = 9223372036854775807",
}


@pytest.fixture(params=SPOIL)
async def spoilt(request, control, tmp_path):
    await control.add(
        record(1), record(2, outcome=Outcome.TIMEOUT, request_model="odd", response_model="odd", track="t"), record(3),
        record(4, workspace="beta"),
    )  # fmt: skip
    (path,) = tmp_path.glob("**/history.db")
    with sqlite3.connect(path) as connection:
        assert connection.execute(SPOIL[request.param]).rowcount
    connection.close()
    return control


async def test_every_other_record_is_still_shown(spoilt):
    page = await spoilt.get("/usage/events")
    assert [each["request_id"] for each in page["data"]] == ["req-4", "req-3", "req-2", "req-1"]
    (one,) = (await spoilt.get("/usage/requests/req-2"))["data"]
    assert one["request_id"] == "req-2"
    assert (await spoilt.get("/usage", workspace="beta"))["usage"]["requests"] == 1


async def test_downloads_hold_every_record(spoilt):
    text = (await spoilt.client.get("/usage/export.csv")).text
    assert [row["request_id"] for row in csv.DictReader(io.StringIO(text))] == ["req-1", "req-2", "req-3", "req-4"]
    lines = (await spoilt.client.get("/usage/export.jsonl")).text.splitlines()
    assert [json.loads(line)["request_id"] for line in lines] == ["req-1", "req-2", "req-3", "req-4"]
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(io.BytesIO((await spoilt.client.get("/usage/export.parquet")).content))
    assert table["request_id"].to_pylist() == ["req-1", "req-2", "req-3", "req-4"]


async def test_sums_of_every_kind_are_answered(spoilt):
    for asked in (
        {},
        {"group_by": "model"},
        {"group_by": "track"},
        {"window": "day"},
        {"track": "t"},
        {"window": "hour"},
    ):
        assert (await spoilt.get("/usage", **asked))["usage"]["requests"] >= 1
    assert (await spoilt.get("/usage/tracks/t", workspace="acme"))["usage"]["requests"] == 1
    for path in ("/usage/trends", "/usage/peaks", "/usage/forecast", "/usage/alternatives"):
        await spoilt.get(path)
    for path in ("/v1/organization/costs", "/v1/organization/usage/completions"):
        await spoilt.get(path, start_time=NOON_US // 1_000_000 - 86_400, bucket_width="1d")


@pytest.mark.parametrize(
    "path",
    ["/", "/dashboard/analytics", "/dashboard/records", "/dashboard/requests/req-2", "/dashboard/workspaces/acme",
     "/dashboard/workspaces/acme/tracks/t"],
)  # fmt: skip
async def test_pages_are_shown(spoilt, path):
    answer = await spoilt.client.get(path)
    assert answer.status_code == 200, answer.text


def test_the_last_moment_there_is() -> None:
    assert shown(2**63) == "9999-12-31T23:59:59.999999Z"
    assert shown(-(2**63)) == "0001-01-01T00:00:00Z"
    assert shown(FOREVER_US) == "9999-01-01T00:00:00Z"
