"""`GET /usage/latency`: what the dashboard's page of performance shows."""

import pytest

from control_plane import HOUR_US, NOON_US, record


async def test_percentiles_of_all_of_groups_and_of_windows(control):
    await control.add(
        *(
            record(n, ended_at=NOON_US - HOUR_US - n, duration_ms=10.0 * n, ttft_ms=1.0 * n, stream=True)
            for n in range(1, 101)
        ),
        record(200, request_model="slow", ended_at=NOON_US, duration_ms=90_000.0),
    )
    told = await control.get("/usage/latency", window="hour")
    assert (told["basis"], told["kept_from"], told["complete"]) == ("records", None, True)
    assert told["from"] == "2026-10-27T13:00:00Z" and told["to"] == "2026-11-03T13:00:00Z"
    assert told["total"]["duration"] == {"count": 101, "p50_ms": 510.0, "p95_ms": 960.0, "p99_ms": 1000.0}
    assert told["total"]["ttft"] == {"count": 100, "p50_ms": 50.0, "p95_ms": 95.0, "p99_ms": 99.0}
    assert [(each["model"], each["duration"]["count"]) for each in told["groups"]] == [
        ("gpt-4o-mini", 100),
        ("slow", 1),
    ]
    assert [(each["start"], each["end"], each["duration"]["p50_ms"]) for each in told["series"]] == [
        ("2026-11-03T10:00:00Z", "2026-11-03T11:00:00Z", 500.0),
        ("2026-11-03T12:00:00Z", "2026-11-03T13:00:00Z", 90_000.0),
    ]
    assert (await control.get("/usage/latency", workspace="nobody"))["total"]["duration"]["count"] == 0


@pytest.mark.parametrize("asked", [{"window": "minute"}, {"group_by": "colour"}, {"group_by": "model,task"}])
async def test_what_cannot_be_asked_is_refused(control, asked):
    answer = await control.client.get("/usage/latency", params=asked)
    assert answer.status_code == 400, answer.text


async def test_a_workspaces_key_has_its_own_alone(control):
    await control.add(record(1), record(2, workspace="beta"))
    _, secret = control.keys.create("acme")
    headers = {"authorization": f"Bearer {secret}"}
    told = (await control.client.get("/usage/latency?group_by=workspace", headers=headers)).json()
    assert [each["workspace"] for each in told["groups"]] == ["acme"]
    assert (await control.client.get("/usage/latency?workspace=beta", headers=headers)).status_code == 404
