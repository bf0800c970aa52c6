"""Which cores a child may run on, with `cores = "apart"`: each worker on one of its own, the others on what is left.

The kernel keeps runnable processes apart by itself, most of the time; the rest of the time control or Valkey holds up
a call. Pinning is asked for, never a default: it knows nothing of other programs, nor of another node on this machine,
which would pick the same cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

Cores = frozenset[int]


def allowed() -> list[int]:
    """The cores this process may use, in order; none where the system does not tell (macOS)."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def of_worker(number: int, cores: Sequence[int]) -> Cores:
    """The core of worker `number` (from 1 on), the last cores first; all where none would be left for the others."""
    return frozenset(cores[-number:][:1] if number < len(cores) else cores)


def of_others(workers: int, cores: Sequence[int]) -> Cores:
    """The cores that no worker has; all where workers leave none."""
    return frozenset(cores[: max(0, len(cores) - workers)] or cores)


@contextmanager
def started_on(cores: Cores) -> Iterator[None]:
    """What this thread starts meanwhile runs on these cores, with all its threads. None: wherever this may run."""
    if not cores:
        yield
        return
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)
