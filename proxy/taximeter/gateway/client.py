"""The client's side of a call, over ASGI: its head in one pass, its body, and whether it is still there.

Knows ASGI messages and nothing of upstreams, meters or the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from taximeter.core import tags

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

WATCH_AFTER_S = 0.05
"""A pending `receive` costs 6-16 µs a call; most calls are over before anybody has to watch for their client."""


class ClientLeft(Exception):
    """The client closed its connection before its request was complete."""


def read_tags(head: dict[bytes, bytes], names: dict[bytes, str]) -> dict[str, str]:
    """Tags from our own headers. `names` maps header names to tags, strongest first. Raises BadTag."""
    found: dict[str, str] = {}
    if names.keys().isdisjoint(head):
        return found
    for header, tag in names.items():
        value = head.get(header)
        if value is not None and tag not in found:
            found[tag] = tags.parse(value, f"header {header.decode()}")
    return found


def read_baggage(value: bytes) -> dict[str, object]:
    """`taximeter.<tag>` members of a W3C baggage header; anything else in it is none of our business."""
    found: dict[str, object] = {}
    for member in value.decode("latin-1").split(","):
        name, _, rest = member.strip().partition("=")
        if name.startswith("taximeter.") and name[10:] in tags.FIELDS:
            found[name[10:]] = rest.partition(";")[0].strip()
    return found


async def read_body(receive: Receive, limit_bytes: int) -> tuple[bytes, bool]:
    """The request body as far as it fits: (bytes, whole). Raises ClientLeft."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientLeft
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body, True
    parts, size = [body], len(body)
    while size <= limit_bytes:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        body = message.get("body", b"")
        parts.append(body)
        size += len(body)
        if not message.get("more_body", False):
            return b"".join(parts), True
    return b"".join(parts), False


async def stream_body(receive: Receive, begun: bytes, done: Callable[[int], None]) -> AsyncIterator[bytes]:
    """The rest of a request body as it arrives, after what was read already. Tells `done` the size of each part.

    Raises ClientLeft when the client goes away in the middle: a body cut short must never look complete.
    """
    if begun:
        done(len(begun))
        yield begun
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        body: bytes = message.get("body", b"")
        if body:
            done(len(body))
            yield body
        if not message.get("more_body", False):
            return


class Watch:
    """Notices that the client has gone while the upstream is silent; only `receive` tells (`send` says nothing).

    Must not run while the request body is still being read from the same `receive`.
    """

    __slots__ = ("_on_left", "_receive", "_task", "left")

    def __init__(self, receive: Receive, on_left: Callable[[], None]) -> None:
        self._receive = receive
        self._on_left = on_left
        self._task: asyncio.Task[None] | None = None
        self.left = False

    def begin(self) -> None:
        """Start to listen."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        self._on_left()

    def stop(self) -> None:
        """End the watch; the client counts as present from now on."""
        if self._task is not None and not self.left:
            self._task.cancel()
        # The call holds this; and a cancelled task holds its exception, whose traceback holds this as well. So that no
        # cycle is left for the collector, which runs rarely, neither is held any longer.
        self._on_left, self._task = _ignore, None


class Watches:
    """One clock for all calls of a worker: whatever is still in progress when it ticks twice gets its watch begun.

    A timer of its own for each call, made and cancelled again, costs five times as much.
    """

    __slots__ = ("_fresh", "_older", "_ticking")

    def __init__(self) -> None:
        self._fresh: set[Watch] = set()
        self._older: set[Watch] = set()
        self._ticking = False

    def add(self, watch: Watch) -> None:
        """A call begins."""
        self._fresh.add(watch)
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._tick)

    def end(self, watch: Watch) -> None:
        """A call is over."""
        self._fresh.discard(watch)
        self._older.discard(watch)
        watch.stop()

    def _tick(self) -> None:
        for watch in self._older:
            watch.begin()
        self._older, self._fresh = self._fresh, set()
        self._ticking = bool(self._older)
        if self._ticking:
            asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._tick)


def _ignore() -> None:
    pass
