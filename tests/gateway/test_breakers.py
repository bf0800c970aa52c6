"""What a client sees of a breaker that tripped, over a real socket."""

import time
from typing import Any

import httpx2
import pytest

from taximeter.breaker.rule import Place, Trip, Trips, trip_id
from taximeter.keys.rule import ProxyKey, digest
from waits import HANG_S

SECRET = "tm-" + "a" * 64
KEY = ProxyKey(id="k1", sha256=digest(SECRET), workspace="acme")
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 40}
NOW_US = time.time_ns() // 1_000
FOREVER_US = NOW_US + 10**15


def trip(**more):
    place = Place("acme", more.get("key_id", ""), more.get("track", ""))
    told: dict[str, Any] = {
        "id": trip_id("runaway", place), "breaker": "runaway", "workspace": "acme", "rate": 32 * 10**8,
        "usual": 8 * 10**7, "limit": 8 * 10**8, "created_at": NOW_US, "until": FOREVER_US,
    }  # fmt: skip
    return Trip(**(told | more))


async def post(running, path="/w/acme/t/run/v1/chat/completions", **more):
    async with httpx2.AsyncClient(base_url=running.url, timeout=HANG_S) as client:
        return await client.post(path, **{"json": CHAT, **more})


async def test_a_stopped_track_is_refused_and_nothing_is_sent(serve, provider):
    async with serve(provider) as running:
        running.gate.admission.use_trips(Trips([trip(track="run")]))
        answer = await post(running)
        assert answer.status_code == 429 and answer.headers["x-taximeter-error"] == "breaker_open"
        assert answer.headers["x-should-retry"] == "false" and int(answer.headers["retry-after"]) > 600
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_exceeded", "breaker_open")
        assert "Track 'run' of workspace 'acme' is stopped until" in error["message"]
        assert (await running.record())["error_code"] == "breaker_open" and provider.requests == []
        for path in (
            "/w/acme/t/other/v1/chat/completions",
            "/w/acme/v1/chat/completions",
            "/w/b/t/run/v1/chat/completions",
        ):
            assert (await post(running, path)).status_code == 200
        running.gate.admission.use_trips(Trips([trip(track="run", ended_at=NOW_US + 1)]))
        assert (await post(running)).status_code == 200


async def test_a_stopped_key_and_a_stopped_workspace(serve, provider):
    auth = {"headers": {"authorization": f"Bearer {SECRET}"}}
    async with serve(provider, keys=[KEY]) as running:
        running.gate.admission.use_trips(Trips([trip(key_id="k1")]))
        assert (await post(running, "/v1/chat/completions", **auth)).status_code == 429
        assert (await post(running)).status_code == 200
        running.gate.admission.use_trips(Trips([trip()]))
        assert (await post(running)).status_code == 429


async def test_a_breaker_arms_itself_when_its_time_is_over(serve, provider):
    async with serve(provider) as running:
        running.gate.admission.use_trips(Trips([trip(until=NOW_US - 1)]))
        assert (await post(running)).status_code == 200


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/json"])
async def test_an_upload_of_a_stopped_workspace_is_refused_and_of_another_passes_unread(serve, provider, kind):
    async with serve(provider, limits={"json_body_bytes": 100}) as running:
        running.gate.admission.use_trips(Trips([trip()]))
        upload = {"json": None, "content": b"x" * 5_000, "headers": {"content-type": kind}}
        assert (await post(running, "/w/acme/v1/files", **upload)).status_code == 429
        assert (await post(running, "/w/beta/v1/files", **upload)).status_code == 200


async def test_what_costs_nothing_passes(serve, provider):
    async with serve(provider) as running:
        running.gate.admission.use_trips(Trips([trip()]))
        async with httpx2.AsyncClient(base_url=running.url, timeout=HANG_S) as client:
            assert (await client.get("/w/acme/v1/models")).status_code == 200
