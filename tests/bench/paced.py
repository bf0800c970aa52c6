"""Loads that wrk cannot make: a steady rate (latency at part of the capacity), and very many slow streams at once.

Raw sockets on one core; bounded in count and time.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import uvloop


@dataclass(frozen=True)
class Latency:
    """Milliseconds from the request's first byte to the answer's last, over `calls` calls."""

    calls: int
    p50_ms: float
    p99_ms: float


class Connection:
    """One keep-alive connection; one request at a time."""

    def __init__(self, url: str, body: bytes, end: bytes, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        self._request = (
            head.encode() + b"authorization: Bearer sk-bench\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        self._end = end

    async def open(self) -> Connection:
        self.reader, self._writer = await asyncio.open_connection(self._host, self._port, limit=1 << 22)
        return self

    def send(self) -> None:
        self._writer.write(self._request)

    async def call(self) -> float:
        """One call; seconds it took."""
        begun = time.perf_counter()
        self.send()
        await self.reader.readuntil(self._end)
        return time.perf_counter() - begun

    def close(self) -> None:
        self._writer.close()


def _summed(times_s: list[float]) -> Latency:
    cuts = statistics.quantiles(times_s, n=100)
    return Latency(len(times_s), cuts[49] * 1000, cuts[98] * 1000)


def one_at_a_time(url: str, body: bytes, end: bytes, *, calls: int) -> Latency:
    """One connection, one call after another."""

    async def run() -> Latency:
        connection = await Connection(url, body, end).open()
        for _ in range(200):
            await connection.call()
        times = [await connection.call() for _ in range(calls)]
        connection.close()
        return _summed(times)

    return uvloop.run(run())


def steady(url: str, body: bytes, end: bytes, *, rate: float, seconds: float, connections: int = 64) -> Latency:
    """Calls at a steady rate, whether earlier ones have been answered or not; late starts count as latency."""

    async def run() -> Latency:
        idle = [await Connection(url, body, end).open() for _ in range(connections)]
        times: list[float] = []
        loop = asyncio.get_running_loop()
        begun = loop.time()
        tasks: set[asyncio.Task[None]] = set()

        async def one(due: float) -> None:
            while not idle:
                await asyncio.sleep(0.0005)
            connection = idle.pop()
            await connection.call()
            times.append(loop.time() - due)
            idle.append(connection)

        for number in range(int(rate * seconds)):
            due = begun + number / rate
            if (wait_s := due - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            task = loop.create_task(one(due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        for connection in idle:
            connection.close()
        return _summed(times[int(rate) // 2 :])  # the first half second warms up

    return uvloop.run(run())


def to_the_end(
    url: str, body: bytes, *, connections: int, seconds: float, headers: dict[str, str] | None = None
) -> tuple[int, float, Latency]:
    """Streams on many connections, each read to its end: (calls, calls per second, latency). wrk would cut the last."""

    async def run() -> tuple[int, float, Latency]:
        opened = [await Connection(url, body, b"0\r\n\r\n", headers).open() for _ in range(connections)]
        loop = asyncio.get_running_loop()
        begun = loop.time()

        async def one(connection: Connection) -> list[float]:
            times = []
            while loop.time() - begun < seconds:
                times.append(await connection.call())
            connection.close()
            return times

        times = [t for each in await asyncio.gather(*map(one, opened)) for t in each]
        return len(times), len(times) / (loop.time() - begun), _summed(times)

    return uvloop.run(run())


def many_streams(url: str, body: bytes, *, count: int, while_open: Callable[[], None]) -> None:
    """Open `count` streams, call `while_open()` once each has begun, then read them to their end."""

    async def run() -> None:
        connections = [await Connection(url, body, b"0\r\n\r\n").open() for _ in range(count)]
        for connection in connections:
            connection.send()
        first = [await connection.reader.readuntil(b"\n\n") for connection in connections]
        assert len(first) == count
        await asyncio.to_thread(while_open)
        for connection in connections:
            await connection.reader.readuntil(b"0\r\n\r\n")
            connection.close()

    uvloop.run(run())
