"""A stream's chunks from one socket to the other in the very loop turn in which they arrive, without a task switch.

Knows how to move and meter chunks, not how a call begins or ends (`relay`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from taximeter.flavors.meter import Meter
    from taximeter.gateway.call import Call
    from taximeter.gateway.client import Send
    from taximeter.gateway.response import Response

Feed = Callable[["Meter", bytes], bytes]


class Stream:
    """One stream in progress; `await run()` until its end. Not used where each line must be on disk first."""

    __slots__ = (
        "_blocked",
        "_call",
        "_error",
        "_feed",
        "_last",
        "_meter",
        "_news",
        "_over",
        "_response",
        "_send",
        "_settle",
    )

    def __init__(
        self, response: Response, meter: Meter, call: Call, send: Send, feed: Feed, settle: Callable[[], None]
    ) -> None:
        """`settle()` writes the record, before the chunk with the terminal event goes on."""
        self._response = response
        self._meter = meter
        self._call = call
        self._send = send
        self._feed = feed
        self._settle = settle
        self._last = b""
        self._error: Exception | None = None
        self._over = False
        self._blocked: _Begun | None = None
        self._news: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> bytes:
        """Pass chunks on until the stream is over; answers what its end came with, which is not yet passed on.

        Raises what `Response.read` raises.
        """
        response = self._response
        response.pipe(self._on_data, self._on_end)
        while True:
            await self._news
            self._news = asyncio.get_running_loop().create_future()
            blocked, self._blocked = self._blocked, None
            if blocked is not None:  # the client reads more slowly than the upstream writes
                await blocked
                response.resume()
            if self._error is not None:
                raise self._error
            if self._over and self._blocked is None:
                return self._last

    def _on_data(self, chunk: bytes) -> bool:
        call, meter = self._call, self._meter
        now_ns = time.perf_counter_ns()
        call.read(len(chunk), now_ns)
        try:
            out = self._feed(meter, chunk)
            if self._response.at_end():
                self._last = out
                return True
            if meter.terminal and not call.closed:
                self._settle()
            elif call.tick_due(now_ns):
                call.tick(now_ns, meter.progress_tokens())
            return not out or self._write(out)
        except Exception as error:  # told to whoever awaits `run`; the upstream's protocol must not see it
            self._error = error
            self._wake()
            return False

    def _write(self, out: bytes) -> bool:
        """Hand a chunk to the server. False: the client is slow, and whoever awaits `run` waits for it."""
        sending = self._send({"type": "http.response.body", "body": out, "more_body": True})
        begun = _Begun(cast("Coroutine[Any, Any, None]", sending))
        if begun.done:
            return True
        self._blocked = begun
        self._wake()
        return False

    def _on_end(self, error: Exception | None) -> None:
        self._error = self._error or error
        self._over = True
        self._wake()

    def _wake(self) -> None:
        if not self._news.done():
            self._news.set_result(None)


class _Begun(Awaitable[None]):
    """A coroutine whose first step was made here and now; `done` if that was all, else to be awaited."""

    __slots__ = ("_coroutine", "_waits_for", "done")

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self.done = False
        try:
            self._waits_for = coroutine.send(None)
        except StopIteration:
            self.done = True

    def __await__(self) -> Generator[Any, Any, None]:
        yield self._waits_for
        yield from self._coroutine.__await__()
