"""Loads of streams, which wrk cannot make: each read to its end, or very many slow ones at once."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench.figures import Load
from bench.paced import request
from bench.processes import undisturbed

END, LAST_EVENT = b"0\r\n\r\n", b"[DONE]"
LATEST_S = 20
_TAIL_BYTES = 128


class Stream(asyncio.Protocol):
    """One kept connection with one stream at a time; what comes is thrown away but for its end."""

    def __init__(self) -> None:
        self._tail = b""
        self._loop = asyncio.get_running_loop()
        self.begun = self.ended = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, asked: bytes) -> None:
        """Ask for a stream: `begun` is done with its first bytes, `ended` with its last."""
        self._tail = b""
        self.begun, self.ended = self._loop.create_future(), self._loop.create_future()
        self._transport.write(asked)

    def data_received(self, data: bytes) -> None:
        if not self._tail:
            self.begun.set_result(None)
        self._tail = data if len(data) >= _TAIL_BYTES else (self._tail + data)[-_TAIL_BYTES:]
        if self._tail.endswith(END):
            if LAST_EVENT in self._tail[-_TAIL_BYTES:]:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(RuntimeError(f"a stream without its last event: {self._tail!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        for waited in (self.begun, self.ended):
            if not waited.done():
                waited.set_exception(RuntimeError(f"a stream was cut: {self._tail!r}"))

    def close(self) -> None:
        self.begun.cancel()
        self.ended.cancel()
        self._transport.close()


async def _opened(url: str, count: int) -> list[Stream]:
    loop, parts = asyncio.get_running_loop(), urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    return [(await loop.create_connection(Stream, host, port))[1] for _ in range(count)]


def to_the_end(
    url: str, body: bytes, *, connections: int, seconds: float, headers: dict[str, str] | None = None
) -> Load:
    """Streams on many connections, each connection's next one begun while `seconds` last, all read to their end.

    Raises RuntimeError where one is cut, is no stream, or is not at its end within `LATEST_S` after that.
    """
    asked = request(url, body, headers)

    async def run() -> Load:
        opened = await _opened(url, connections)
        begun = time.perf_counter()
        times_s: list[float] = []

        async def one(stream: Stream) -> None:
            while (sent := time.perf_counter()) - begun < seconds:
                stream.send(asked)
                await stream.ended
                times_s.append(time.perf_counter() - sent)

        try:
            async with asyncio.timeout(seconds + LATEST_S), asyncio.TaskGroup() as group:
                for stream in opened:
                    group.create_task(one(stream))
        except TimeoutError:
            raise RuntimeError(f"{len(times_s)} streams had ended {LATEST_S} s after the last began") from None
        except ExceptionGroup as failed:
            raise RuntimeError(str(failed.exceptions[0])) from failed
        took_s = time.perf_counter() - begun
        for stream in opened:
            stream.close()
        cuts = statistics.quantiles(times_s, n=100)
        return Load(len(times_s), len(times_s) / took_s, cuts[49] * 1000, cuts[98] * 1000)

    with undisturbed():
        return uvloop.run(run())


def many(url: str, body: bytes, *, count: int, while_open: Callable[[], None]) -> None:
    """Open `count` streams, call `while_open()` once each has begun, then read them to their end."""
    asked = request(url, body)

    async def run() -> None:
        opened = await _opened(url, count)
        for stream in opened:
            stream.send(asked)
        await asyncio.gather(*(stream.begun for stream in opened))
        await asyncio.to_thread(while_open)
        await asyncio.gather(*(stream.ended for stream in opened))
        for stream in opened:
            stream.close()

    with undisturbed():
        uvloop.run(run())
