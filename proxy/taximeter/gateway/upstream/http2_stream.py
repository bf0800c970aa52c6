"""One request and its answer on an HTTP/2 connection: its body as fast as the upstream takes it, and whose turn it is.

Knows no frames: what a stream sends, its connection (`http2_connection`) makes frames of.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from taximeter.core.errors import BadRequest, UpstreamUnreachable
from taximeter.gateway.upstream.response import Response

WINDOW_BYTES = 256 * 1024
"""So much of an answer may be on its way to a reader that does not keep up, beside what its Response holds."""


class NotProcessed(UpstreamUnreachable):
    """The upstream says by the protocol that it did nothing with the request: it may be sent again (RFC 9113 §8.7)."""


class Carrier(Protocol):
    """A connection, as its streams see it."""

    def room(self, stream_id: int) -> int:
        """How many bytes of a body may be sent now."""

    def send(self, stream_id: int, data: bytes, *, last: bool) -> None:
        """Send a part of a body that there is room for."""

    def take_more(self, stream_id: int, size: int) -> None:
        """The upstream may send so many bytes more."""

    def give_up(self, stream: Stream, error: Exception | None) -> None:
        """Nobody wants the rest; `error` is what its reader is told."""


class Stream:
    """The `Source` of its response."""

    def __init__(self, carrier: Carrier, stream_id: int) -> None:
        self.id = stream_id
        self.response = Response(self)
        self.silence = 0
        """Beats of the clock since something came or went."""
        self.left_bytes: int | None = None
        """Of the answer's body, where its length is known."""
        self.over = False
        """The upstream has ended it."""
        self.interim = 0
        """1xx answers."""
        self.unacknowledged_bytes = 0
        self._carrier = carrier
        self._gathered: list[bytes] = []
        self._reading = True
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._awaits_client = False

    # The request's body.

    def upload(self, body: AsyncIterator[bytes], length: int | None) -> None:
        """Send a body that is still coming; what it raises is raised by the response."""
        self._awaits_client = True
        self._task = asyncio.get_running_loop().create_task(self._send(body, length))

    def go_on(self, rest: bytes) -> None:
        """Send the rest of a body for which there was no room."""
        self._task = asyncio.get_running_loop().create_task(self._send(_one(rest), len(rest)))

    async def _send(self, body: AsyncIterator[bytes], length: int | None) -> None:
        left = length
        try:
            async for piece in body:
                if left is not None:
                    left -= len(piece)
                    if left < 0:
                        break
                self._awaits_client = False
                await self._write(piece)
                self._awaits_client = True
            if left:
                raise BadRequest(f"The request body does not have the {length} bytes its Content-Length says.")
            self._carrier.send(self.id, b"", last=True)
            self._task = None
        except Exception as error:
            self._task = None
            self._carrier.give_up(self, error)
        finally:
            self._awaits_client = False

    async def _write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            room = self._carrier.room(self.id)
            if room > 0:
                self._carrier.send(self.id, bytes(rest[:room]), last=False)
                rest = rest[room:]
                self.silence = 0
            else:
                self._room = asyncio.get_running_loop().create_future()
                await self._room

    def has_room(self) -> None:
        """There may be room for more of the body."""
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def stop(self) -> bool:
        """The rest of the body is not wanted. Returns whether there is any."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        return task is not None

    # The answer.

    def gather(self, data: bytes) -> None:
        """A part of the answer's body, to be delivered with what came with it."""
        self._gathered.append(data)

    def deliver(self) -> None:
        """Hand on what has come together: a head that is new, parts, the end."""
        data = b"".join(self._gathered)
        self._gathered.clear()
        self.silence = 0
        response = self.response
        if response.ended:
            return
        if self.left_bytes is not None:
            self.left_bytes -= len(data)
        last = self.over or self.left_bytes == 0  # its last bytes are its end, whatever else may follow
        if data or last:
            response.feed(data, last)
        else:
            response.wake()
        if self._reading and not self.over and self.unacknowledged_bytes >= WINDOW_BYTES // 2:
            self._acknowledge()

    def waits_for_upstream(self) -> bool:
        """Whether it is the upstream who is silent."""
        return self._reading and not self._awaits_client

    def _acknowledge(self) -> None:
        size, self.unacknowledged_bytes = self.unacknowledged_bytes, 0
        self._carrier.take_more(self.id, size)

    # What the answer's reader calls.

    def pause(self) -> None:
        self._reading = False

    def resume(self) -> None:
        self._reading = True
        self.silence = 0
        if self.unacknowledged_bytes >= WINDOW_BYTES // 2:
            self._acknowledge()

    def drop(self, response: Response) -> None:
        self._carrier.give_up(self, None)


async def _one(piece: bytes) -> AsyncIterator[bytes]:
    yield piece
