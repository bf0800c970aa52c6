"""Asking a Redis one script for many callers: what is asked in one turn of the loop goes in one pipelined round trip.

One round trip at a time, so one connection is enough however many callers wait; and a server counts as silent only
while this process's own loop runs: a wait that is ours is not Redis's. Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Coroutine
from typing import Any, TypeVar

from redis.exceptions import (
    AskError,
    ClusterDownError,
    MaxConnectionsError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import TimeoutError as Silent

from taximeter.sinks.redis.client import Call, RedisServer, Script

BATCH = 128
"""Calls in one round trip: a few milliseconds of either side's time."""
SLICES = 10
"""A server is silent when nothing has come in so many waits in a row, each a part of the bound. In each the loop looks
at its sockets, so a loop that stood still, or is slow at everything, uses up one of them and not the bound."""

_T = TypeVar("_T")


class Asker:
    """One script's callers."""

    def __init__(self, server: RedisServer, script: Script, *, timeout_s: float) -> None:
        self._server = server
        self._script = script
        self._timeout_s = timeout_s
        self._waiting: list[tuple[Call, asyncio.Future[Any]]] = []
        self._sending: asyncio.Task[None] | None = None

    def ask(self, call: Call) -> asyncio.Future[Any]:
        """The script's reply, which may be a ResponseError; raises redis.client.ERRORS where none came."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((call, answer))
        if self._sending is None:
            self._sending = loop.create_task(self._send())
        return answer

    async def _send(self) -> None:
        try:
            while self._waiting:
                some = [one for one in self._waiting[:BATCH] if not one[1].done()]
                del self._waiting[:BATCH]
                try:
                    replies = await within(self._server.run(self._script, [call for call, _ in some]), self._timeout_s)
                except Exception as error:  # whatever it is, nobody may wait for ever
                    self._failed(some, error)
                    continue
                for (_, answer), reply in zip(some, replies, strict=True):
                    if not answer.done():
                        answer.set_result(reply)
        finally:
            self._sending = None

    def _failed(self, some: list[tuple[Call, asyncio.Future[Any]]], error: Exception) -> None:
        """No reply came. Those who still wait asked in the time in which none did: they need not find out again."""
        if not is_ours(error):
            some, self._waiting = [*some, *self._waiting], []
        for _, answer in some:
            if not answer.done():
                answer.set_exception(error)


async def within(work: Coroutine[Any, Any, _T], timeout_s: float) -> _T:
    """What `work` gives. Raises redis-py's TimeoutError after `timeout_s` in which this loop ran and nothing came."""
    task = asyncio.ensure_future(work)
    try:
        for _ in range(SLICES):
            done, _pending = await asyncio.wait((task,), timeout=timeout_s / SLICES)
            if done:
                return task.result()
    finally:
        task.cancel()
    await asyncio.wait((task,))  # its connection is closed: what comes late must not be taken for another's reply
    raise Silent(f"no reply within {timeout_s:g} s")


def answered(error: BaseException) -> bool:
    """Whether a server is there and will not do what it was asked (it is full, or does not let us), as against one that
    is away, or is not the primary (any more, or yet)."""
    return isinstance(error, ResponseError) and not isinstance(error, _NOT_PRIMARY)


_NOT_PRIMARY = (ReadOnlyError, ClusterDownError, TryAgainError, AskError)
"""Of a fail-over, or of slots that move (MovedError is an AskError, MasterDownError a ClusterDownError)."""


def is_ours(error: BaseException) -> bool:
    """Whether a failure to talk to Redis is this process's own: it has no descriptor, port or memory left."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MaxConnectionsError) or (isinstance(seen, OSError) and seen.errno in _OUR_ERRNOS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


_OUR_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})
