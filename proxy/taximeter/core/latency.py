"""How long calls took, as people ask for it: percentiles, of the very values or of a histogram that was kept. Pure.

The histogram has two steps to a doubling (41 %), from 8 ms to 17 minutes: whichever percentile is asked for later is
known to one step. Finer ones make storing a record dearer: a row has a column for each.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from math import ceil

FIRST_MS = 8.0
A_DOUBLING = 2
"""Steps from one value to its double."""
DOUBLINGS = 17

BOUNDS_MS: tuple[float, ...] = tuple(FIRST_MS * 2 ** (step / A_DOUBLING) for step in range(A_DOUBLING * DOUBLINGS + 1))
"""Where steps end, themselves included: 8 ms … 1,048,576 ms."""
STEPS = len(BOUNDS_MS) + 1
"""Below, between and above the bounds."""

PERCENTILES = (50, 95, 99)


def step(ms: float) -> int:
    """The number of the step a value is in."""
    return bisect_left(BOUNDS_MS, ms)


def of_values(ordered_ms: Sequence[float], percentile: int) -> float | None:
    """The nearest-rank percentile of values in ascending order: one of them; None of none."""
    if not ordered_ms:
        return None
    return ordered_ms[max(1, ceil(len(ordered_ms) * percentile / 100)) - 1]


def of_histogram(counts: Sequence[int], percentile: int) -> float | None:
    """The percentile from counts by step; None of none. It is in the right step; within it values are taken to be
    spread evenly on the scale of steps. Of the last step, which has no end, its beginning: it is at least that."""
    total = sum(counts)
    if total <= 0:
        return None
    rank = max(1, ceil(total * percentile / 100))
    found = next(at for at, upto in enumerate(accumulate(counts)) if upto >= rank)
    into = (rank - sum(counts[:found]) - 0.5) / counts[found]
    if found == 0:
        return FIRST_MS * into
    if found == STEPS - 1:
        return BOUNDS_MS[-1]
    return float(BOUNDS_MS[found - 1] * 2 ** (into / A_DOUBLING))
