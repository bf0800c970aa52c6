"""The layer around LightRAG's application, without LightRAG: what it adds to answers that are no good ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rag.test_lightrag_settings import FIGURES
from taximeter_rag.lightrag import plugin as plugins
from taximeter_rag.lightrag.plugin import Plugin
from taximeter_rag.lightrag.server import Server
from taximeter_rag.lightrag.settings import Settings
from taximeter_rag.middleware import ASGIScope, Message, Receive, Send
from taximeter_rag.reader import ReadError
from taximeter_rag.tags import Scope, current


class Figures:
    """The control port's side of it."""

    async def aread(self, scope: Scope, *, wait_s: float = 0) -> dict[str, Any]:
        return FIGURES

    async def aclose_track(self, track: str, workspace: str | None = None) -> bool:
        return True


async def asked(path: str, status: int, *, calls: int) -> tuple[dict[bytes, bytes], Any]:
    """Headers and JSON of an error that LightRAG answers after so many calls."""

    async def app(scope: ASGIScope, receive: Receive, send: Send) -> None:
        here = current()
        assert here is not None
        here.calls.extend(f"r{n}" for n in range(calls))
        body = json.dumps({"detail": "boom"}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body[:5], "more_body": True})
        await send({"type": "http.response.body", "body": body[5:]})

    plugin = Plugin(Settings("http://p:8000"))
    plugin.reader = Figures()  # type: ignore[assignment]
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": []}
    await Server(app, plugin, lambda: None, None)(scope, receive, send)
    await plugin.finish()
    assert sent[0]["status"] == status
    return dict(sent[0]["headers"]), json.loads(b"".join(message["body"] for message in sent[1:]))


@pytest.mark.parametrize("path", ["/query", "/query/stream", "/query/data"])
@pytest.mark.parametrize("status", [400, 429, 500])
async def test_a_query_that_fails_says_what_it_used_until_then(path: str, status: int) -> None:
    headers, answer = await asked(path, status, calls=2)
    assert answer == {
        "detail": "boom",
        "usage": FIGURES["usage"],
        "token_usage": FIGURES["token_usage"],
        "metrics": FIGURES["metrics"],
    }
    assert int(headers[b"content-length"]) == len(json.dumps(answer, separators=(",", ":")))
    assert headers[b"x-track-id"].startswith(b"query_")


async def test_a_query_that_is_refused_at_once_stays_as_it_is() -> None:
    _, answer = await asked("/query", 422, calls=0)
    assert answer == {"detail": "boom"}


class Growing(Figures):
    """A control port that tells another sum each time."""

    def __init__(self) -> None:
        self.reads = 0

    async def atrack(self, track: str, workspace: str | None = None, **_: Any) -> dict[str, Any]:
        self.reads += 1
        return {**FIGURES, "reads": self.reads}


async def test_a_list_reads_a_track_again_once_another_of_its_documents_has_ended() -> None:
    plugin = Plugin(Settings("http://p:8000"))
    plugin.reader = Growing()  # type: ignore[assignment]
    for ended, reads in (({"d1"}, 1), ({"d1"}, 1), ({"d1", "d2"}, 2), ({"d2"}, 2), ({"d1", "d2"}, 2)):
        told = (await plugin.many_bills("w", {"t": ended}))["t"]
        assert told.figures is not None
        assert told.figures["reads"] == reads


class Crowded(Figures):
    """A control port at which too many wait, for a while."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals

    async def aread(self, scope: Scope, *, wait_s: float = 0) -> dict[str, Any]:
        if self.refusals:
            self.refusals -= 1
            raise ReadError("too many waits", 429)
        return FIGURES


async def test_a_crowded_control_port_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "CROWDED_S", (0.0, 0.0))
    plugin = Plugin(Settings("http://p:8000"))
    for refusals, told in ((2, (FIGURES, "")), (3, (None, "too many waits"))):
        plugin.reader = Crowded(refusals)  # type: ignore[assignment]
        assert await plugin.figures(Scope(track="t")) == told
