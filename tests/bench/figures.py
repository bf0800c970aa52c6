"""What is measured of proxies, and the arithmetic of it: turns in rounds, medians, ratios. Pure.

The machine's speed swings by a third within seconds, so two figures are compared only within one round, where they
were measured seconds apart; over the rounds the median counts, and the spread is told.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


class LeftOut(Exception):
    """Something could not be measured here; the message says what is missing and how to get it."""


@dataclass(frozen=True)
class Load:
    """What a load generator saw of one turn."""

    calls: int
    rate: float
    """Calls a second."""
    p50_ms: float
    p99_ms: float
    failed: int = 0


@dataclass(frozen=True)
class Books:
    """Calls and their tokens, as a provider bills them or a proxy has counted them. `tokens` None: not told."""

    calls: int
    tokens: int | None

    def __add__(self, other: Books) -> Books:
        return self._with(other, 1)

    def __sub__(self, before: Books) -> Books:
        return self._with(before, -1)

    def _with(self, other: Books, sign: int) -> Books:
        tokens = None if self.tokens is None or other.tokens is None else self.tokens + sign * other.tokens
        return Books(self.calls + sign * other.calls, tokens)


@dataclass(frozen=True)
class Turn:
    """One proxy's turn in one round: the load on it, and the CPU seconds its process tree took for that, by title."""

    proxy: str
    number: int
    load: Load
    cpu_s: dict[str, float]
    pss_bytes: int = 0
    metering: str = ""
    billed: Books | None = None
    """What the provider answered in this turn."""
    counted: Books | None = None
    """What the proxy says it counted of that. None: it keeps no books that can be read."""

    @property
    def cpu_us(self) -> float:
        """CPU µs a call of the whole tree."""
        return sum(self.cpu_s.values()) / self.load.calls * 1e6


@dataclass(frozen=True)
class Spread:
    """The median of some figures, the least and the greatest of them."""

    median: float
    least: float
    most: float

    @staticmethod
    def of(values: Iterable[float]) -> Spread:
        """Raises ValueError where there are none."""
        every = sorted(values)
        if not every:
            raise ValueError("a spread of no values")
        return Spread(statistics.median(every), every[0], every[-1])

    def shown(self, digits: int = 0) -> str:
        """`142 (138–151)`; a single figure stands alone."""
        if self.least == self.most:
            return f"{self.median:,.{digits}f}"
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f}–{self.most:,.{digits}f})"


@dataclass(frozen=True)
class Measured:
    """A scenario's turns, what was left out of it, and what idle proxies took in the meantime."""

    turns: list[Turn]
    left_out: list[str] = field(default_factory=list)
    idle_cores: dict[str, float] = field(default_factory=dict)
    """Proxy -> the share of a core that it took outside its turns."""
    start_s: dict[str, float] = field(default_factory=dict)
    """Proxy -> seconds from the start of its process to its first answer with 200."""


def of_proxy(turns: Sequence[Turn], proxy: str) -> list[Turn]:
    return [turn for turn in turns if turn.proxy == proxy]


def ratios(turns: Sequence[Turn], proxy: str, floor: str) -> list[float]:
    """CPU a call of `proxy` over that of `floor` in the same round, for each round that has both."""
    below = {turn.number: turn.cpu_us for turn in of_proxy(turns, floor)}
    return [turn.cpu_us / below[turn.number] for turn in of_proxy(turns, proxy) if below.get(turn.number)]


def by_title_us(turns: Sequence[Turn]) -> dict[str, float]:
    """CPU µs a call by process title: the median over these turns; greatest first."""
    titles = dict.fromkeys(title for turn in turns for title in turn.cpu_s)
    split = {
        title: statistics.median(turn.cpu_s.get(title, 0.0) / turn.load.calls * 1e6 for turn in turns)
        for title in titles
    }
    return dict(sorted(split.items(), key=lambda item: -item[1]))
