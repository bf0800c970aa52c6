"""A stream's chunks from one socket to the other in the very loop turn in which they arrive, without a task switch.

Knows how to move and meter chunks, not how a call begins or ends (`relay`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from taximeter.gateway.inline import Signal

if TYPE_CHECKING:
    from taximeter.flavors.meter import Meter
    from taximeter.gateway.http.exchange import Exchange
    from taximeter.gateway.metering.call import Call
    from taximeter.gateway.upstream.response import Response

Feed = Callable[["Meter", bytes], bytes]


class Stream:
    """One stream in progress; `await run()` until its end. Not used where each line must be on disk first."""

    __slots__ = (
        "_blocked", "_call", "_error", "_exchange", "_feed", "_last", "_meter", "_news", "_over", "_response",
        "_settle",
    )  # fmt: skip

    def __init__(
        self,
        response: Response,
        meter: Meter,
        call: Call,
        exchange: Exchange,
        feed: Feed,
        settle: Callable[[], None],
    ) -> None:
        """`settle()` writes the record, before the chunk with the terminal event goes on."""
        self._response = response
        self._meter = meter
        self._call = call
        self._exchange = exchange
        self._feed = feed
        self._settle = settle
        self._last = b""
        self._error: Exception | None = None
        self._over = False
        self._blocked = False
        self._news = Signal()

    async def run(self) -> bytes:
        """Pass chunks on until the stream is over; answers what its end came with, which is not yet passed on.

        Raises what `Response.read` raises.
        """
        response = self._response
        response.pipe(self._on_data, self._on_end)
        while not (self._over or self._error):
            if not self._blocked:
                await self._news.wait()
                continue
            await self._exchange.drain()  # the client reads more slowly than the upstream writes
            self._blocked = False
            response.resume()
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
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
            elif now_ns > call.tick_at_ns:
                call.tick(now_ns, meter.progress_tokens())
            if out:
                self._exchange.write(out)
                if self._exchange.paused:
                    self._blocked = True
                    self._news.fire()
                    return False
            return True
        except Exception as error:  # told to whoever awaits `run`; the upstream's protocol must not see it
            self._error = error
            self._news.fire()
            return False

    def _on_end(self, error: Exception | None) -> None:
        self._error = self._error or error
        self._over = True
        self._news.fire()
