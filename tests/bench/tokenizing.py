"""Counting must not hold up the loop: the longest stall a heartbeat sees while hard texts are counted, and the speed.

python tests/bench/tokenizing.py
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

import uvloop

from taximeter.flavors.meter import Countable
from taximeter.gateway.metering.tokenizers import Tokenizers

WORDS = "The journal is the truth; every number anyone sees is a projection of it. "
TEXTS = {
    "1 MB of English": (WORDS * 14_000)[:1_000_000],
    "1 MB of code": ("def settle(self, now_ns: int) -> None:\n    return self._call[now_ns]\n" * 15_000)[:1_000_000],
    "1 MB of CJK": ("每次调用都会被准确计量一次，不多也不少。" * 20_000)[:333_000],
    "100,000 equal characters": "a" * 100_000,
}
BEAT_S = 0.001


async def _beat(gaps_ms: list[float]) -> None:
    last = time.perf_counter()
    while True:
        await asyncio.sleep(BEAT_S)
        now = time.perf_counter()
        gaps_ms.append((now - last - BEAT_S) * 1000)
        last = now


async def _measure(rounds: int) -> list[str]:
    tokenizers = Tokenizers()
    await tokenizers.count(Countable(texts=["warm"]), model="gpt-4o-mini", provider="openai")
    rows = []
    for name, text in TEXTS.items():
        longest_ms, speeds = [], []
        for _ in range(rounds):
            gaps_ms: list[float] = []
            heart = asyncio.create_task(_beat(gaps_ms))
            begun = time.perf_counter()
            counted = await tokenizers.count(Countable(texts=[text]), model="gpt-4o-mini", provider="openai")
            took_s = time.perf_counter() - begun
            heart.cancel()
            longest_ms.append(max(gaps_ms, default=0.0))
            speeds.append(len(text.encode()) / took_s / 1e6)
        median = f"{statistics.median(longest_ms):.1f} | {max(longest_ms):.1f}"
        rows.append(f"| {name} | {counted.tokens:,} | {statistics.median(speeds):.1f} | {median} |")
    tokenizers.close()
    return rows


def measure(rounds: int = 5) -> list[str]:
    """Lines for the benchmark page."""
    head = "| text (o200k_base) | tokens | MB/s | longest stall ms, median | at worst |"
    return [head, "|---|---:|---:|---:|---:|", *uvloop.run(_measure(rounds))]


if __name__ == "__main__":
    sys.stdout.write("\n".join(measure()) + "\n")
