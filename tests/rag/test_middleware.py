"""The ASGI middleware: a request's calls are its track's; streams pass unbuffered; bad tags are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from taximeter_rag import MeteredMiddleware, current
from taximeter_rag.middleware import App, ASGIScope, Message, Receive, Send


async def call(app: App, headers: dict[str, str] | None = None, kind: str = "http") -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    pairs = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    await app({"type": kind, "method": "GET", "path": "/", "headers": pairs}, receive, send)
    return sent


async def told(scope: ASGIScope, receive: Receive, send: Send) -> None:
    """An application that answers the scope it runs in, in two parts."""
    here = current()
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send(
            {
                "type": "http.response.body",
                "body": json.dumps(here.headers() if here else {}).encode(),
                "more_body": True,
            }
        )
        await send({"type": "http.response.body", "body": b""})  # fmt: skip


def tags(sent: list[Message]) -> dict[str, Any]:
    return json.loads(sent[1]["body"])


async def test_each_request_is_a_track_of_its_own_and_says_so() -> None:
    app = MeteredMiddleware(told, workspace="acme", task="query")
    first, second = await call(app), await call(app)
    assert tags(first)["x-workspace"] == "acme"
    assert tags(first)["x-track-id"] != tags(second)["x-track-id"]
    assert dict(first[0]["headers"]) == {b"a": b"b", b"x-track-id": tags(first)["x-track-id"].encode()}
    assert [message["type"] for message in first] == ["http.response.start", *["http.response.body"] * 2]
    assert current() is None


async def test_callers_headers_count_only_where_they_are_trusted() -> None:
    headers = {"LIGHTRAG-WORKSPACE": "other", "X-Track-Id": "t1"}
    assert tags(await call(MeteredMiddleware(told), headers)).keys() == {"x-track-id"}
    assert tags(await call(MeteredMiddleware(told, trust_headers=True), headers)) == {
        "x-workspace": "other",
        "x-track-id": "t1",
    }
    chosen = MeteredMiddleware(told, workspace=lambda scope: "by-login", trust_headers=True)
    assert tags(await call(chosen, headers))["x-workspace"] == "by-login"


@pytest.mark.parametrize("bad", ["a b", "x" * 129])
async def test_a_bad_tag_of_a_caller_is_refused(bad: str) -> None:
    sent = await call(MeteredMiddleware(told, trust_headers=True), {"X-Workspace": bad})
    assert sent[0]["status"] == 400
    assert "is no tag" in json.loads(sent[1]["body"])["detail"]


async def test_what_is_no_request_passes() -> None:
    assert await call(MeteredMiddleware(told, workspace="acme"), kind="lifespan") == []
