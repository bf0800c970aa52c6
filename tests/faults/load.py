"""Clients: chat, streams, embeddings and rerank, each call with a mark of its own; what they saw is kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import httpx2

from waits import HANG_S

WORKSPACES = ("alpha", "beta", "gamma")
TASKS = ("extract", "query", None)

_marks = count(1)


class Load:
    """Traffic to any of `urls`. What happened to each call is in `answers` (how often) and `whole` (which)."""

    def __init__(self, urls: list[str], *, tracks: int = 0, pause_s: float = 0.0) -> None:
        """`tracks`: how many there are, each used again and again; 0: each call's track is its own mark.
        `pause_s`: between two calls of a client."""
        self.urls = urls
        self.tracks, self.pause_s = tracks, pause_s
        self.sent = self.ended = 0
        self.answers: Counter[str] = Counter()
        self.whole: set[str] = set()
        """Marks of calls whose answer, status 200, reached the client to its end."""

    @contextlib.asynccontextmanager
    async def running(
        self, *, clients: int = 4, seed: int = 1, chance_to_leave: float = 0.0, keep_alive: bool = True
    ) -> AsyncIterator[None]:
        """Send until the block ends; then wait for the last answers."""
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._client(random.Random(seed * 1000 + number), over, chance_to_leave, keep_alive))
            try:
                yield
            finally:
                over.set()

    async def _client(self, dice: random.Random, over: asyncio.Event, chance_to_leave: float, keep_alive: bool) -> None:
        kept = httpx2.Limits(max_keepalive_connections=None if keep_alive else 0)
        async with httpx2.AsyncClient(timeout=HANG_S, limits=kept) as client:
            while not over.is_set():
                leave_after = dice.randint(0, 8) if dice.random() < chance_to_leave else None
                try:
                    await self.call(client, dice, leave_after=leave_after)
                except httpx2.HTTPError as error:
                    self.answers[type(error).__name__] += 1
                    await asyncio.sleep(0.02)  # a restarting server: do not spin
                finally:
                    self.ended += 1
                if self.pause_s:
                    await asyncio.sleep(self.pause_s)

    async def call(
        self,
        client: httpx2.AsyncClient,
        dice: random.Random,
        *,
        kind: str = "",
        upstream: str = "",
        leave_after: int | None = None,
    ) -> str:
        """One call; answers its mark. Raises httpx2.HTTPError where no whole answer comes.

        `leave_after`: of a stream, hang up after this many chunks.
        """
        kind = kind or dice.choice(("chat", "chat", "stream", "stream", "embedding", "rerank"))
        path, body = request_of(kind, dice)
        headers, mark = headers_of(dice)
        if self.tracks:
            headers["x-track-id"] = f"track-{dice.randrange(self.tracks)}"
        self.sent += 1
        url = dice.choice(self.urls) + (f"/u/{upstream}" if upstream else "") + "/v1" + path
        if kind != "stream":
            answer = await client.post(url, json=body, headers=headers)
            self._saw(mark, str(answer.status_code), whole=answer.status_code == 200)
            return mark
        async with client.stream("POST", url, json=body, headers=headers) as answer:
            tail, seen = b"", 0
            chunks: AsyncIterator[bytes] = answer.aiter_raw()
            async for piece in chunks:
                seen += 1
                tail = (tail + piece)[-64:]
                if leave_after is not None and seen > leave_after:
                    break
        whole = answer.status_code == 200 and b"[DONE]" in tail
        self._saw(mark, f"{answer.status_code} stream" if whole else "left", whole=whole)
        return mark

    def _saw(self, mark: str, what: str, *, whole: bool) -> None:
        self.answers[what] += 1
        if whole:
            self.whole.add(mark)


def request_of(kind: str, dice: random.Random) -> tuple[str, dict[str, Any]]:
    """(path after /v1, body) of a random request."""
    text = " ".join(["word"] * dice.randint(1, 40))
    if kind == "embedding":
        return "/embeddings", {"model": "text-embedding-3-small", "input": [text, text]}
    if kind == "rerank":
        return "/rerank", {"model": "rerank-v3.5", "query": text, "documents": [text, "other"]}
    model = dice.choice(("gpt-4o-mini", "gpt-4.1"))
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return "/chat/completions", body | ({"stream": True} if kind == "stream" else {})


def headers_of(dice: random.Random) -> tuple[dict[str, str], str]:
    """Tags and a mark of its own, which the provider writes down as well."""
    mark = f"call-{os.getpid()}-{next(_marks)}"
    headers = {"x-workspace": dice.choice(WORKSPACES), "x-track-id": mark, "x-marker": mark}
    task = dice.choice(TASKS)
    return headers | ({"x-task": task} if task else {}), mark


def seeds(seed: int) -> Iterator[random.Random]:
    """Independent dice from one seed."""
    return (random.Random(f"{seed}/{number}") for number in count())
