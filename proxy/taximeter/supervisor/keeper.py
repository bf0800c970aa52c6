"""Keeps one child running: starts it, brings it to ready, and starts it again whenever it ends."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Protocol

from taximeter.core.errors import TaximeterError

log = logging.getLogger("taximeter")

START_ATTEMPTS = 3
"""How often a child may end before it was ever ready; then the start fails."""
STEADY_S = 5.0
"""A child that lived this long is replaced at once; one that keeps ending sooner, ever more slowly."""
MAX_DELAY_S = 10.0


class StartError(TaximeterError):
    """A child does not start."""


class Managed(Protocol):
    """A running child: supervisor.process.Process or supervisor.valkey.ValkeyProcess."""

    pid: int
    ready: asyncio.Event
    exited: asyncio.Event

    async def watch(self) -> None:
        """Bring it to `ready`; return then, or when it has ended."""

    def check(self) -> int | None:
        """Look whether it has ended (on SIGCHLD): the exit code, negative for the signal it died of; None: it runs."""

    def terminate(self) -> None:
        """Ask it to end in order."""

    def kill(self) -> None:
        """End it."""


class Keeper:
    """One slot: `worker 1`, `control`, `valkey`."""

    def __init__(self, name: str, start: Callable[[], Managed], stopping: asyncio.Event, where: str = "") -> None:
        """`where`: what to look at when it does not start."""
        self.name = name
        self.child: Managed | None = None
        self.ready = asyncio.Event()
        """It has been ready once."""
        self._start = start
        self._stopping = stopping
        self._where = where or "its message is above"

    async def run(self) -> None:
        """Until `stopping` is set and the child has ended. Raises StartError when it never gets ready."""
        loop = asyncio.get_running_loop()
        failures = 0
        while not self._stopping.is_set():
            began = loop.time()
            ended = await self._live()
            if self._stopping.is_set():
                return
            failures = 0 if loop.time() - began >= STEADY_S else failures + 1
            if failures >= START_ATTEMPTS and not self.ready.is_set():
                raise StartError(f"{self.name} does not start: it {ended}; {self._where}.")
            log.warning("%s %s; it is replaced", self.name, ended)
            if failures > 1:
                await _until(self._stopping, min(0.1 * 2**failures, MAX_DELAY_S))

    async def _live(self) -> str:
        """One life of the child; says how it ended."""
        try:
            child = self.child = self._start()
        except (TaximeterError, OSError) as error:
            return f"could not be started ({error})"
        await child.watch()
        if child.ready.is_set():
            self.ready.set()
        await child.exited.wait()
        code = child.check() or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"(process {child.pid}) {how}"

    async def end(self, timeout_s: float) -> None:
        """Ask the child to end; kill it after `timeout_s`. `stopping` must be set."""
        child = self.child
        if child is None or child.exited.is_set():
            return
        child.terminate()
        if not await _until(child.exited, timeout_s):
            log.error("%s (process %d) did not end in %g s and is killed", self.name, child.pid, timeout_s)
            child.kill()
            await child.exited.wait()


async def _until(event: asyncio.Event, timeout_s: float) -> bool:
    """Whether the event came within `timeout_s`."""
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return False
    return True
