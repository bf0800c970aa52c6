"""The simulated world: one clock, one seed, processes that can die at any step, and the story of what happened.

Everything that leaves a process (a write, a command to Redis, a commit) passes `World.step`: where the process is due
to die it dies there, and nothing of it runs any more.
"""

from __future__ import annotations

import random
import re
import zlib
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

BEGINS_NS = 1_790_000_000_000_000_000
"""When simulations begin, but for those that go over the end of a month (`periods`)."""

CURRENT: ContextVar[Process | None] = ContextVar("CURRENT", default=None)
"""Whose code is running; None: the simulator's own."""


_journal_id = re.compile(r"[0-9a-f]{32}").sub


class Killed(BaseException):
    """The process is dead. No code of its own may catch this: `except Exception` does not."""


class Process:
    """One process of a node. Its tasks, timers, descriptors and connections end with it, and nothing else does."""

    def __init__(self, name: str, node: Any) -> None:
        self.name = name
        self.node = node
        self.alive = True
        self.ended_s = float("inf")
        self.dies_in: int | None = None
        """So many steps from now; None: not on its own."""
        self.tasks: list[asyncio.Task[Any]] = []
        self.prune_at = 64
        """At so many tasks those that are done are forgotten."""
        self.ends = False
        """It was told to end: it does what is left, and is gone."""
        self.stands_until_ns = 0
        """It is stopped (as by SIGSTOP, a debugger, a machine that swaps) up to then."""

    def __repr__(self) -> str:
        return self.name


class World:
    """What all parts of a simulation share."""

    def __init__(self, seed: int, *, tells: bool = False) -> None:
        self.seed = seed
        self.order = random.Random(f"{seed}/order")
        """Decides who goes next, and how long everything takes."""
        self.bytes = random.Random(f"{seed}/bytes")
        """Random bytes that the product asks its system for."""
        self.luck = random.Random(f"{seed}/luck")
        """What becomes of what a fault strikes: which bytes survive, where a pipeline is cut."""
        self.now_ns = 0
        """Since the beginning."""
        self.begins_ns = BEGINS_NS
        """When that is, by a clock that is right (ns since epoch)."""
        self.over = False
        """Nothing may have an effect any more: what is left is being swept up."""
        self.counts: Counter[str] = Counter()
        self.story: list[str] | None = [] if tells else None
        self.digest = 0
        """Of everything told: two runs of one seed agree in it."""

    def now_s(self) -> float:
        return self.now_ns / 1e9

    def wall_ns(self) -> int:
        """The time of day, as the process that asks is told it: its node's clock may be wrong."""
        process = CURRENT.get()
        wrong = 0 if process is None else process.node.clock_wrong_ns
        return self.begins_ns + self.now_ns + wrong

    def tell(self, what: str) -> None:
        """Add a sentence to the story."""
        self.digest = zlib.crc32(b"%d %b" % (self.now_ns, what.encode()), self.digest)
        if self.story is not None:
            process = CURRENT.get()
            short = _journal_id(lambda found: found[0][:6], what)
            self.story.append(f"{self.now_ns / 1e9:11.6f}  {process.name if process else '':<11} {short}")

    def step(self, what: str) -> Process | None:
        """Something is about to leave the process that runs, or has just left it. Raises Killed where it dies here."""
        if self.over:
            raise Killed
        process = CURRENT.get()
        if process is None:
            return None
        if not process.alive:
            raise Killed
        self.counts["steps"] += 1
        self.tell(what)
        if process.dies_in is not None:
            process.dies_in -= 1
            if process.dies_in < 0:
                self.tell(f"DIES at: {what}")
                self.counts["kills"] += 1
                process.node.died(process)
                raise Killed
        return process
