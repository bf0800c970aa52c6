"""Loads that show latency: one call at a time, and calls at a steady rate, whatever has become of earlier ones.

Plain sockets and one `select`, so that the generator itself adds as little as can be: an event loop's timers go by
milliseconds, and its tasks cost more than the calls. No garbage is collected while it runs.
"""

from __future__ import annotations

import select
import socket
import statistics
import time
from collections import deque
from dataclasses import dataclass
from urllib.parse import urlsplit

from bench.processes import undisturbed

ANSWER_S = 30.0
"""Longest wait for an answer."""
WARM_CALLS = 200


@dataclass(frozen=True)
class Latency:
    """Milliseconds from when a call was due to its answer's last byte; `late_p99_ms` of it is the generator's own."""

    calls: int
    """All that were made, those that warmed up included."""
    p50_ms: float
    p99_ms: float
    late_p99_ms: float = 0.0


def request(url: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """A POST of JSON as it goes over the wire."""
    parts = urlsplit(url)
    told = {"host": parts.netloc, "content-type": "application/json", "authorization": "Bearer sk-bench"}
    told |= {name.lower(): value for name, value in (headers or {}).items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"POST {parts.path} HTTP/1.1\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body


class Caller:
    """One kept connection with one request at a time, whose answers end with `end`."""

    def __init__(self, url: str, body: bytes, end: bytes) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 80), timeout=ANSWER_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request, self._end = request(url, body), end
        self._tail = b""
        self.due = self.idle_since = 0.0

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self) -> None:
        self._tail = b""
        self._socket.sendall(self._request)

    def has_answer(self) -> bool:
        """Read what has come (waits where nothing has); whether that was the end. Raises RuntimeError on a cut."""
        data = self._socket.recv(1 << 16)
        if not data:
            raise RuntimeError(f"the connection was closed in mid-answer: {self._tail[-300:]!r}")
        self._tail = self._tail[-len(self._end) :] + data
        return self._tail.endswith(self._end)

    def call(self) -> float:
        """One call; the seconds it took."""
        begun = time.perf_counter()
        self.send()
        while not self.has_answer():
            pass
        return time.perf_counter() - begun

    def close(self) -> None:
        self._socket.close()


def one_at_a_time(url: str, body: bytes, end: bytes, *, calls: int) -> Latency:
    """One connection, one call after another."""
    caller = Caller(url, body, end)
    with undisturbed(first=True):
        for _ in range(WARM_CALLS):
            caller.call()
        times_s = [caller.call() for _ in range(calls)]
    caller.close()
    return _summed(WARM_CALLS + calls, times_s, [0.0] * calls)


def steady(url: str, body: bytes, end: bytes, *, rate: float, seconds: float, connections: int = 64) -> Latency:
    """`rate` calls a second, evenly; where all connections are busy, the wait for one is in a call's latency."""
    idle = deque(Caller(url, body, end) for _ in range(connections))
    with undisturbed(first=True):
        for caller in idle:
            caller.call()
        times_s, late_s = _at_rate(idle, rate, int(rate * seconds))
    for caller in idle:
        caller.close()
    settled = len(times_s) // 10  # the first tenth is left out: queues fill
    return _summed(connections + len(times_s), times_s[settled:], late_s[settled:])


def _at_rate(idle: deque[Caller], rate: float, calls: int) -> tuple[list[float], list[float]]:
    """(seconds from due to answered, seconds that this loop sent it later than it could have) of each call."""
    times_s: list[float] = []
    late_s: list[float] = []
    busy: set[Caller] = set()
    now = begun = time.perf_counter()
    sent = 0
    while sent < calls or busy:
        while idle and sent < calls and (due := begun + sent / rate) <= now:
            caller = idle.popleft()  # the one that is idle longest
            caller.due = due
            late_s.append(now - max(due, caller.idle_since))
            caller.send()
            busy.add(caller)
            sent += 1
            now = time.perf_counter()
        more = idle and sent < calls
        wait_s = max(0.0, begun + sent / rate - now) if more else ANSWER_S
        ready = select.select(busy, (), (), wait_s)[0]
        now = time.perf_counter()
        if not ready and not more:
            raise RuntimeError(f"no answer within {ANSWER_S} s")
        for caller in ready:
            if caller.has_answer():
                now = caller.idle_since = time.perf_counter()
                times_s.append(now - caller.due)
                busy.discard(caller)
                idle.append(caller)
    return times_s, late_s


def _summed(calls: int, times_s: list[float], late_s: list[float]) -> Latency:
    cuts = statistics.quantiles(times_s, n=100)
    return Latency(calls, cuts[49] * 1000, cuts[98] * 1000, statistics.quantiles(late_s, n=100)[98] * 1000)
