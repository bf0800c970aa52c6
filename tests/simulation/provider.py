"""The scripted provider, without a socket: it answers what reaches it, and keeps its own list of what it bills."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextvars import copy_context
from typing import Any, NamedTuple

import openai_like
from simulation.loop import SimLoop
from simulation.world import World
from taximeter.core.errors import UpstreamCut, UpstreamUnreachable
from taximeter.gateway.upstream.response import Response
from taximeter.server.client import Then

MARK = b"x-marker"
"""Header by which a call is known everywhere."""


class Bill(NamedTuple):
    """What the provider charges for a call."""

    prompt_tokens: int
    output_tokens: int
    complete: bool
    """All of the answer has left."""


class Provider:
    """Of all nodes. `reached` and `bills` are the truth everything else is measured by."""

    def __init__(self, world: World, loop: SimLoop) -> None:
        self._world = world
        self._loop = loop
        self.reached: list[str] = []
        self.bills: dict[str, Bill] = {}

    def take(self, marker: str, target: bytes, body: bytes, response: Response, fate: str) -> None:
        """A request has come in whole. The answer's parts follow, some time apart."""
        self.reached.append(marker)
        answer = openai_like.answer(target.decode(), body, call_id=marker, chunks=4)
        if fate == "refused":
            answer = openai_like.error(429, "slow down", "rate_limit_exceeded")
        usage = answer.usage or {}
        if answer.events is None:
            data = json.dumps(answer.body).encode()
            parts, kind = [data], b"application/json"
        else:
            parts, kind = list(answer.events), b"text/event-stream"
        headers = [(b"content-type", kind)]
        if answer.events is None:
            headers.append((b"content-length", b"%d" % len(parts[0])))
        bill = Bill(usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0), complete=False)
        self.bills[marker] = bill
        order = self._world.order
        cut = order.randrange(len(parts) + 1) if fate == "cut" else None
        # In the worker's context: an answer's bytes arrive in the process that waits for them.
        at = self._loop.time() + order.expovariate(1 / 0.15)
        slow = order.random() < 0.05
        for n in range(len(parts) + 1):
            if n == cut:
                error = UpstreamCut("reset") if n else UpstreamUnreachable("closed before the head of an answer")
                error.sent = True
                self._loop.call_at(at, response.fail, error, context=copy_context())
                return
            if n == 0:
                self._loop.call_at(at, _head, response, answer.status, headers, context=copy_context())
            if n < len(parts):
                last = n == len(parts) - 1
                self._loop.call_at(at + 1e-6, self._part, marker, response, parts[n], last, context=copy_context())
            at += order.expovariate(1 / (0.9 if slow else 0.02))

    def _part(self, marker: str, response: Response, part: bytes, last: bool) -> None:
        if response._source is not None or response.ended:
            if last:
                self.bills[marker] = self.bills[marker]._replace(complete=True)
            response.feed(part, last)


def _head(response: Response, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    if response._source is not None:
        response.status, response.headers = status, headers
        response.wake()


class Transport:
    """A worker's way to the provider: its requests are sent by `Upstream` as to any other."""

    def __init__(self, provider: Provider, then: Then) -> None:
        """`then`: bytes leave by it, when the journal's lines of before are written."""
        self._provider = provider
        self._then = then

    async def send(
        self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: Any, length: int | None
    ) -> Response:
        """Raises UpstreamUnreachable where no connection comes about."""
        head = dict(headers)
        marker, fate = head[MARK].decode(), head[b"x-fate"].decode()
        world = self._provider._world
        if isinstance(body, AsyncIterator):
            body = b"".join([part async for part in body])
        if fate == "unreachable":
            await asyncio.sleep(0.01)
            raise UpstreamUnreachable("connection refused")
        response = Response(_Source())

        def leave(data: bytes) -> None:
            world.step("the request leaves")
            self._provider.take(marker, target, data, response, fate)

        self._then(leave, body)
        return await response.head()

    async def close(self) -> None:
        """There is nothing to close."""


class _Source:
    """The connection an answer comes on."""

    def pause(self) -> None:
        """The provider goes on: what it has sent is in the kernel's buffers."""

    def resume(self) -> None:
        """See `pause`."""

    def drop(self, response: Response) -> None:
        """The rest is not wanted."""
