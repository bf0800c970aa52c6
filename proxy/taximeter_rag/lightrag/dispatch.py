"""Several workspaces in one LightRAG server: the header LIGHTRAG-WORKSPACE chooses, each is an application of its own.

Stock LightRAG serves one workspace a process and would store everybody's documents in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from taximeter_rag.lightrag.plugin import logger
from taximeter_rag.lightrag.settings import Settings, is_workspace
from taximeter_rag.middleware import App, ASGIScope, Message, Receive, Send, header, refuse

HEADER = b"lightrag-workspace"
GUARDED = "/documents/pipeline_status"
"""An endpoint of LightRAG that asks for credentials like all others, and does nothing."""


class Dispatcher:
    """Hands requests for other workspaces to applications made on demand.

    `own` names the workspace of the server's own application; `make` makes another one's.
    """

    def __init__(
        self, settings: Settings, app: App, own: Callable[[], str | None], make: Callable[[str], App], hush: Any
    ) -> None:
        self.settings, self.app, self.own, self.make, self.hush = settings, app, own, make, hush
        self.opened: dict[str, Running] = {}
        self._opening = asyncio.Lock()

    async def took(self, scope: ASGIScope, receive: Receive, send: Send) -> bool:
        """Whether the request was another workspace's, and is answered."""
        name = (header(scope, HEADER) or "").strip()
        if not name or name == self.own():
            return False
        if not is_workspace(name):
            await refuse(send, 400, f"LIGHTRAG-WORKSPACE: {name[:64]!r} is no workspace: letters, digits and _ only.")
            return True
        running = self.opened.get(name)
        if running is None:
            if self.settings.workspaces and name not in self.settings.workspaces:
                await refuse(send, 404, f"LIGHTRAG-WORKSPACE: there is no workspace {name!r} on this server.")
                return True
            if (status := await self._allowed(scope)) >= 400:  # nobody opens workspaces without credentials
                await refuse(send, status, "LIGHTRAG-WORKSPACE: not without valid credentials.")
                return True
            async with self._opening:
                running = await self._open(name)
            if running is None:
                await refuse(
                    send, 503, f"LIGHTRAG-WORKSPACE: this server has {len(self.opened)} workspaces, its limit."
                )
                return True
        await running.app(scope, receive, send)
        return True

    async def _open(self, name: str) -> Running | None:
        if name in self.opened:
            return self.opened[name]
        if len(self.opened) >= self.settings.max_workspaces:
            return None
        logger.info("taximeter-rag: opening workspace %s", name)
        running = Running(self.make(name))
        await running.start()
        self.opened[name] = running
        return running

    async def _allowed(self, scope: ASGIScope) -> int:
        """The status LightRAG itself gives these credentials."""
        statuses: list[int] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        root = scope.get("root_path", "")
        path = (root if scope["path"].startswith(root) else "") + GUARDED
        asked = {**scope, "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
        asked["headers"] = [pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"content-type")]
        await self.app(asked, receive, send)
        return statuses[0] if statuses else 500

    async def close(self) -> None:
        """End all workspaces, before the server's own: LightRAG's end of one would take what they share."""
        with self.hush():
            for running in self.opened.values():
                await running.stop()
        self.opened.clear()


class Running:
    """An ASGI application between its startup and its shutdown, both in one task of its own."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises RuntimeError where the application does not start."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        self._task = asyncio.get_running_loop().create_task(self._run(scope))
        await self._tell("lifespan.startup")

    async def stop(self) -> None:
        await self._tell("lifespan.shutdown")
        if self._task is not None:
            await self._task

    async def _run(self, scope: ASGIScope) -> None:
        try:
            await self.app(scope, self._inbox.get, self._outbox.put)
        except Exception as error:
            await self._outbox.put({"type": "lifespan.failed", "message": str(error)})

    async def _tell(self, kind: str) -> None:
        await self._inbox.put({"type": kind})
        answer = await self._outbox.get()
        if answer["type"] != f"{kind}.complete":
            raise RuntimeError(f"A workspace's {kind} failed: {answer.get('message', '')}")
