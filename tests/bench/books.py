"""The books of a proxy after a load: what it says it has counted, beside what the provider has answered."""

from __future__ import annotations

import json
import re
import sqlite3
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from bench.figures import Books
from bench.processes import cpu
from bench.running import Running

IDLE_SHARE, LOOK_S, LATEST_S = 0.1, 0.25, 15.0
"""A proxy is done when it takes less than a tenth of a core for a quarter of a second; after 15 s it never is."""


def got(url: str, headers: Mapping[str, str] | None = None) -> bytes:
    """A GET's answer. Raises OSError."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers or {})), timeout=10) as answer:
        text: bytes = answer.read()
        return text


def of_provider(port: int) -> Books:
    """What the bench's provider has answered to the end."""
    billed = json.loads(got(f"http://127.0.0.1:{port}/billed"))
    return Books(billed["calls"], billed["tokens"])


def of_prometheus(
    url: str, calls: str, tokens: str | None, headers: Mapping[str, str] | None = None
) -> Callable[[], Books]:
    """The sums over all labels of two of the counters at `url`."""

    def read() -> Books:
        text = got(url, headers).decode()
        return Books(summed(text, calls), summed(text, tokens) if tokens else None)

    return read


def summed(exposed: str, name: str) -> int:
    """A counter's sum over its labels, in Prometheus' text; 0 where there is none yet."""
    found = re.findall(rf"^{re.escape(name)}(?:{{.*}})? ([0-9.e+]+)(?: \d+)?$", exposed, re.M)
    return round(sum(map(float, found)))


def of_usage(admin_port: int) -> Callable[[], Books]:
    """What Taximeter's own GET /usage tells."""

    def read() -> Books:
        usage = json.loads(got(f"http://127.0.0.1:{admin_port}/usage"))["usage"]
        return Books(usage["requests"], usage["total_tokens"])

    return read


def of_sqlite(file: Path, question: str) -> Callable[[], Books]:
    """A question for calls and tokens to a peer's own database."""

    def read() -> Books:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)) as database:
            calls, tokens = database.execute(question).fetchone()
            return Books(calls, tokens or 0)

    return read


def until_idle(running: Running) -> None:
    """Wait until a proxy that cannot say whether it has done everything takes next to no CPU time any more."""
    begun, used_s = time.monotonic(), cpu(running.process.pid).total_s
    while time.monotonic() - begun < LATEST_S:
        time.sleep(LOOK_S)
        before_s, used_s = used_s, cpu(running.process.pid).total_s
        if used_s - before_s <= IDLE_SHARE * LOOK_S:
            return
