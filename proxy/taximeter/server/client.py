"""The client's end of a connection: bytes to it, each behind the journal lines of before; its pace; and how it ends."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

Then = Callable[[Callable[[bytes], None], bytes], None]
"""How bytes leave: `then(act, data)` does `act(data)` when the lines of before are in their file (`Journal`)."""

LINGER_S = 2.0
"""How long a refused client may go on sending before its connection is closed."""
LOOKS = 8
"""So often within `limits.client_idle_s` it is looked whether something went on: cut when none has found any."""


def at_once(act: Callable[[bytes], None], data: bytes) -> None:
    """Where nothing has to be written before."""
    act(data)


class Client:
    """Held by a connection, and given to each of its exchanges. `write`, `close` and `linger` are for `then`."""

    __slots__ = (
        "_idle_s", "_in_vain", "_linger_timer", "_look_timer", "_waiting_bytes", "_writable", "idle", "lingering",
        "paused", "reading_paused", "then", "transport",
    )  # fmt: skip

    def __init__(self, transport: asyncio.Transport, then: Then, idle_s: float) -> None:
        """`idle_s`: a client that takes nothing of its answer for so long is cut off."""
        self.transport = transport
        self.then = then
        self.paused = False
        """It reads more slowly than it is written to."""
        self.reading_paused = False
        """It is us who do not read."""
        self.lingering = False
        """Refused: what it still sends is discarded, so that its kernel does not discard our answer."""
        self.idle = False
        """Cut off, as it went on neither with its request's body nor with its answer."""
        self._idle_s = idle_s
        self._writable: asyncio.Event | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._look_timer: asyncio.TimerHandle | None = None

    def write(self, data: bytes) -> None:
        """To the client, if it is still there."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def close(self, _: bytes = b"") -> None:
        """Let what was written leave, and close."""
        self.transport.close()
        if self._look_timer is None and self.transport.get_write_buffer_size():
            self._watch()

    def linger(self, last: bytes) -> None:
        """Close behind `last`, but in a way that it is read by a client that is still sending."""
        if not self.transport.is_closing():
            self.transport.write(last)
            self.transport.write_eof()
            self.lingering = True
            self.resume_reading()
            self._linger_timer = asyncio.get_running_loop().call_later(LINGER_S, self.close)

    def reset(self) -> None:
        """Close with a TCP reset: only so can an answer that ends with its connection be told from a cut one."""
        raw = self.transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def lost(self) -> None:
        """The connection has ended."""
        self.resume_writing()
        if self._linger_timer is not None:
            self._linger_timer.cancel()

    # Its pace.

    def pause_reading(self) -> None:
        if not self.reading_paused:
            self.reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.reading_paused:
            self.reading_paused = False
            self.transport.resume_reading()

    async def drain(self) -> None:
        """Wait until the client has read on, or has left."""
        if self._writable is not None:
            await self._writable.wait()

    def pause_writing(self) -> None:
        self.paused = True
        self._writable = asyncio.Event()
        if self._look_timer is None:
            self._watch()

    def resume_writing(self) -> None:
        self.paused = False
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    # It holds an upstream connection while it takes nothing of its answer. Looked at is only one whose answer waits in
    # our memory, because the kernel takes no more of it.

    def _watch(self) -> None:
        self._waiting_bytes = self.transport.get_write_buffer_size()
        self._in_vain = 0
        self._look_later()

    def _look_later(self) -> None:
        self._look_timer = asyncio.get_running_loop().call_later(self._idle_s / LOOKS, self._look)

    def _look(self) -> None:
        before, self._waiting_bytes = self._waiting_bytes, self.transport.get_write_buffer_size()
        self._in_vain = 0 if self._waiting_bytes < before else self._in_vain + 1
        if self._in_vain < LOOKS:
            self._look_later()
        else:
            self.idle = True
            self.transport.abort()
