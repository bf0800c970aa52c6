"""The scripted provider, without a socket: it answers what reaches it, and keeps its own list of what it bills."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NamedTuple

import openai_like
from simulation.virtual.loop import SimLoop
from simulation.virtual.world import World
from taximeter.core.errors import UpstreamCut, UpstreamError, UpstreamUnreachable
from taximeter.gateway.upstream.opening import Kept
from taximeter.gateway.upstream.response import Response
from taximeter.server.client import Then

if TYPE_CHECKING:
    from simulation.actors.objects import Objects

Left = Callable[[], None]
Headers = list[tuple[bytes, bytes]]
MARK = b"x-marker"
"""Header by which a call is known everywhere."""
PROXY_KEY = b"tm-"
"""Such a key begins so, and is nothing for the provider to see."""


class Bill(NamedTuple):
    """What the provider charges for a call."""

    prompt_tokens: int
    output_tokens: int
    complete: bool
    """All of the answer has left."""


class Provider:
    """Of all nodes. `reached` and `bills` are the truth everything else is measured by."""

    def __init__(self, world: World, loop: SimLoop, objects: Objects) -> None:
        self._world = world
        self.objects = objects
        self._loop = loop
        self.reached: list[str] = []
        self.reached_s: dict[str, float] = {}
        self.over_s: dict[str, float] = {}
        """When the last of an answer left, or the worker did not want it any more."""
        self.keys_seen = 0
        """Requests that had a proxy key in their head."""
        self.bills: dict[str, Bill] = {}

    def fetched(self, marker: str | None, method: bytes, target: bytes, response: Response, fate: str) -> None:
        """A request about what is billed later has come in. `marker` None: control's."""
        if marker is not None:
            self._reach(marker, response)
            self.bills[marker] = Bill(0, 0, complete=False)
        told: list[Any] = []
        if fate == "refused":
            refused = openai_like.error(429, "slow down", "rate_limit_exceeded")
            status, kind, parts = refused.status, b"application/json", [json.dumps(refused.body).encode()]
        else:
            status, kind, parts = self.objects.answer(marker, method, target)
            told = self.objects.telling
        headers = [(b"content-type", kind), (b"content-length", b"%d" % sum(map(len, parts)))]
        self._answer(lambda: self.objects.passed.extend(told), response, status, headers, parts, fate)

    def _reach(self, marker: str, response: Response) -> None:
        self.reached.append(marker)
        self.reached_s[marker] = self._loop.time()
        if isinstance(response._source, _Source):
            response._source.over = lambda: self.over_s.setdefault(marker, self._loop.time())
        else:  # nobody wants the answer any more
            self.over_s[marker] = self._loop.time()

    def take(self, marker: str, target: bytes, body: bytes, response: Response, fate: str) -> None:
        """A request has come in whole. The answer's parts follow, some time apart."""
        self._reach(marker, response)
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
        self._answer(lambda: self._complete(marker), response, answer.status, headers, parts, fate)

    def _complete(self, marker: str) -> None:
        self.bills[marker] = self.bills[marker]._replace(complete=True)

    def _answer(
        self, then: Left, response: Response, status: int, headers: Headers, parts: list[bytes], fate: str
    ) -> None:
        """`then`: when all of it has left."""
        order = self._world.order
        cut = order.randrange(len(parts) + 1) if fate == "cut" else None
        # In the worker's context: an answer's bytes arrive in the process that waits for them.
        at = self._loop.time() + order.expovariate(1 / 0.15)
        slow = order.random() < 0.05 or fate == "slow"
        for n in range(len(parts) + 1):
            if n == cut:
                error = UpstreamCut("reset") if n else UpstreamUnreachable("closed before the head of an answer")
                error.sent = True
                self._loop.call_at(at, _fail, response, error, context=copy_context())
                return
            if n == 0:
                self._loop.call_at(at, _head, response, status, headers, context=copy_context())
            if n < len(parts):
                last = then if n == len(parts) - 1 else None
                self._loop.call_at(at + 1e-6, self._part, last, response, parts[n], context=copy_context())
            at += order.expovariate(1 / (0.9 if slow else 0.02))

    def _part(self, then: Left | None, response: Response, part: bytes) -> None:
        if response._source is not None or response.ended:
            if then is not None:
                then()
                _over(response)
            response.feed(part, then is not None)


def _head(response: Response, status: int, headers: Headers) -> None:
    if response._source is not None:
        response.status, response.headers = status, headers
        response.wake()


def _fail(response: Response, error: UpstreamError) -> None:
    _over(response)
    response.fail(error)


def _over(response: Response) -> None:
    if isinstance(response._source, _Source):
        response._source.over()


class Transport:
    """A worker's way to the provider: its requests are sent by `Upstream` as to any other."""

    def __init__(self, provider: Provider, then: Then) -> None:
        """`then`: bytes leave by it, when the journal's lines of before are written."""
        self._provider = provider
        self._then = then

    async def send(self, method: bytes, target: bytes, kept: Kept, body: Any, length: int | None) -> Response:
        """Raises UpstreamUnreachable where no connection comes about."""
        head = dict(kept.fields)
        self._provider.keys_seen += any(PROXY_KEY in value for value in head.values())
        provider, world = self._provider, self._provider._world
        marker = head[MARK].decode() if MARK in head else None
        fate = provider.objects.fate() if marker is None else head[b"x-fate"].decode()
        if isinstance(body, AsyncIterator):
            body = b"".join([part async for part in body])
        if fate == "unreachable":
            await asyncio.sleep(0.01)
            raise UpstreamUnreachable("connection refused")
        response = Response(_Source())

        def leave(data: bytes) -> None:
            world.step(f"the request leaves: {marker or target.decode()}")
            if marker is None or provider.objects.concerned(method, target):
                provider.fetched(marker, method, target, response, fate)
            else:
                provider.take(marker, target, data, response, fate)

        self._then(leave, body)
        return await response.head()

    async def close(self) -> None:
        """There is nothing to close."""


class _Source:
    """The connection an answer comes on."""

    def __init__(self) -> None:
        self.over: Callable[[], object] = lambda: None

    def pause(self) -> None:
        """The provider goes on: what it has sent is in the kernel's buffers."""

    def resume(self) -> None:
        """See `pause`."""

    def drop(self, response: Response) -> None:
        """The rest is not wanted."""
        self.over()
