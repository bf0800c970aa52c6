"""A pure ASGI middleware: what a request to your server causes is one track of one workspace.

Not Starlette's BaseHTTPMiddleware, which buffers streams and runs the application in another task.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from taximeter_rag.tags import is_tag, metered

Message = MutableMapping[str, Any]
ASGIScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[ASGIScope, Receive, Send], Awaitable[None]]
Choice = str | Callable[[ASGIScope], str | None] | None

TRACK_HEADER = b"x-track-id"
WORKSPACE_HEADERS = (b"x-workspace", b"lightrag-workspace")


class MeteredMiddleware:
    """Opens `metered(…)` around each request and tells its track in the answer's header `x-track-id`.

    `workspace`, `track` and `task` are values, or functions of the ASGI scope. Without `track` each request gets one of
    its own. `trust_headers`: take workspace and track from the caller's X-Workspace (or LIGHTRAG-WORKSPACE) and
    X-Track-Id where nothing else says; only for callers who may choose who pays. A bad tag there is answered with 400.
    """

    def __init__(
        self,
        app: App,
        *,
        workspace: Choice = None,
        track: Choice = None,
        task: Choice = None,
        trust_headers: bool = False,
    ) -> None:
        self.app, self.workspace, self.track, self.task, self.trust = app, workspace, track, task, trust_headers

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        workspace, track = _chosen(self.workspace, scope), _chosen(self.track, scope)
        if self.trust:
            workspace = workspace or header(scope, *WORKSPACE_HEADERS)
            track = track or header(scope, TRACK_HEADER)
        track = track or new_track("request")
        try:
            tags = metered(workspace=workspace, track=track, task=_chosen(self.task, scope))
        except ValueError as error:
            await refuse(send, 400, str(error))
            return
        async with tags:
            await self.app(scope, receive, with_header(send, TRACK_HEADER, track.encode()))


def new_track(kind: str) -> str:
    """A track name nobody has used."""
    return f"{kind}_{uuid.uuid4().hex}"


def header(scope: ASGIScope, *names: bytes) -> str | None:
    """The first of these request headers that says something; `names` in lower case."""
    for name in names:
        for key, value in scope["headers"]:
            if key == name and value:
                return str(value.decode("latin-1"))
    return None


def with_header(send: Send, name: bytes, value: bytes) -> Send:
    """`send`, with one more header on the answer."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (name, value)]}
        await send(message)

    return sending


async def refuse(send: Send, status: int, text: str) -> None:
    """Answer a request ourselves, in FastAPI's shape."""
    body = json.dumps({"detail": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _chosen(choice: Choice, scope: ASGIScope) -> str | None:
    return choice(scope) if callable(choice) else choice


__all__ = ["TRACK_HEADER", "App", "MeteredMiddleware", "header", "is_tag", "new_track", "refuse", "with_header"]
