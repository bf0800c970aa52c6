"""What bounds the time in which a client takes nothing of its answer: it holds an upstream connection meanwhile.

Only a connection whose answer waits in our memory, because the kernel takes no more of it, is looked at.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from taximeter.config import Limits

LOOKS = 8
"""So often within `limits.answer_timeout_s` it is looked whether something was taken: cut when none has found any."""


class Answering(Protocol):
    """A connection, as its clock sees it."""

    limits: Limits
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport


class ReaderClock:
    """Of one connection, from when its answer began to wait until it waits no more, or is cut."""

    __slots__ = ("_connection", "_in_vain", "_timer", "_waiting_bytes")

    def __init__(self, connection: Answering) -> None:
        self._connection = connection
        self._waiting_bytes = connection.transport.get_write_buffer_size()
        self._in_vain = 0
        self._timer = self._later()

    def stop(self) -> None:
        self._timer.cancel()

    def _later(self) -> TimerHandle:
        return self._connection.loop.call_later(self._connection.limits.answer_timeout_s / LOOKS, self._look)

    def _look(self) -> None:
        transport = self._connection.transport
        before, self._waiting_bytes = self._waiting_bytes, transport.get_write_buffer_size()
        self._in_vain = 0 if self._waiting_bytes < before else self._in_vain + 1
        if self._in_vain < LOOKS:
            self._timer = self._later()
        else:
            transport.abort()
