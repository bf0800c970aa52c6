"""Keeps one child running: starts it, brings it to ready, and starts it again whenever it ends."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Protocol

from taximeter.core.errors import TaximeterError
from taximeter.supervisor.events import first, within

log = logging.getLogger("taximeter")

START_ATTEMPTS = 3
"""How often a child may end before it was ever ready; then the start fails."""
STEADY_S = 5.0
"""A child that lived this long is replaced at once; one that keeps ending sooner, ever more slowly."""
MAX_DELAY_S = 10.0
START_S = 60.0
"""A successor that is not ready by then is given up."""
DROP_S = 5.0
"""What a successor that is not wanted may take to end; it has had no calls, or few."""


class StartError(TaximeterError):
    """A child does not start."""


class Managed(Protocol):
    """A running child: supervisor.process.Process or supervisor.valkey.ValkeyProcess."""

    pid: int
    ready: asyncio.Event
    exited: asyncio.Event
    said: str
    """Why it says that it cannot start; "": nothing."""

    async def watch(self) -> None:
        """Bring it to `ready`; return then, or when it has ended."""

    def check(self) -> int | None:
        """Look whether it has ended (on SIGCHLD): the exit code, negative for the signal it died of; None: it runs."""

    def retire(self) -> None:
        """Another one has taken its place: it may end when nothing is left to do."""

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
        self.successor: Managed | None = None
        """Started to take the child's place."""
        self.retired: set[Managed] = set()
        """Children that were replaced and have not ended yet."""
        self.ready = asyncio.Event()
        """It has been ready once."""
        self._succeeded = asyncio.Event()
        self._dismissed = False
        self._start = start
        self._stopping = stopping
        self._where = where or "its message is above"

    @property
    def children(self) -> list[Managed]:
        """All of this slot that may be running."""
        return [child for child in (self.child, self.successor, *self.retired) if child is not None]

    async def run(self) -> None:
        """Until `stopping` is set or it is dismissed, and the child has ended. StartError when it never gets ready."""
        loop = asyncio.get_running_loop()
        failures = 0
        while not self._stopping.is_set() and not self._dismissed:
            began = loop.time()
            ended = await self._live()
            if self._stopping.is_set() or self._dismissed:
                return
            # One that never got ready has failed however long that took: on a busy machine importing takes seconds.
            steady = loop.time() - began >= STEADY_S and self.child is not None and self.child.ready.is_set()
            failures = 0 if steady else failures + 1
            if failures >= START_ATTEMPTS and not self.ready.is_set():
                raise StartError(f"{self.name} does not start: it {ended}; {self._where}.")
            log.warning("%s %s; it is replaced", self.name, ended)
            if failures > 1:
                await within(self._stopping, min(0.1 * 2**failures, MAX_DELAY_S))

    async def _live(self) -> str:
        """One life of the child, and of those that take its place; says how the last one ended."""
        child = self.child
        if child is None or child.exited.is_set():  # else a successor came while this waited
            try:
                child = self.child = self._start()
            except (TaximeterError, OSError) as error:
                return f"could not be started ({error})"
            await child.watch()
            if child.ready.is_set():
                self.ready.set()
        while not (child.exited.is_set() and self.child is child):
            self._succeeded.clear()
            child = self.child or child
            await first(child.exited, self._succeeded)
        return f"(process {child.pid}) {_how(child)}"

    async def bring(self, start: Callable[[], Managed]) -> str:
        """Start a successor beside the child and bring it to ready; returns why that did not work, "" where it did."""
        try:
            child = self.successor = start()
        except (TaximeterError, OSError) as error:
            return f"{self.name} could not be started ({error})"
        try:
            async with asyncio.timeout(START_S):
                await child.watch()
        except TimeoutError:
            child.kill()
            await child.exited.wait()
        if child.ready.is_set() and not child.exited.is_set():
            return ""
        self.successor = None
        return f"{self.name} does not start: it (process {child.pid}) {_how(child)}; {child.said or self._where}."

    def succeed(self) -> None:
        """The successor is the child from now on; the one before it may end."""
        before, self.child, self.successor = self.child, self.successor, None
        self._succeeded.set()
        self.ready.set()
        if before is not None:
            self._retire(before)

    async def drop(self) -> None:
        """Do without the successor."""
        child, self.successor = self.successor, None
        if child is not None:
            await _end(child, self.name, DROP_S)

    def dismiss(self) -> None:
        """The slot is given up: its child may end, and is not replaced."""
        self._dismissed = True
        if self.child is not None:
            self._retire(self.child)

    def look(self) -> None:
        """See which children have ended (on SIGCHLD)."""
        for child in self.children:
            if child.check() is not None and child in self.retired:
                self.retired.discard(child)
                log.info("%s (process %d), which was replaced, %s", self.name, child.pid, _how(child))

    async def end(self, timeout_s: float) -> None:
        """Ask all children to end; kill them after `timeout_s`. `stopping` must be set."""
        async with asyncio.TaskGroup() as group:
            for child in self.children:
                group.create_task(_end(child, self.name, timeout_s))

    def _retire(self, child: Managed) -> None:
        log.info("%s (process %d) takes no more calls and ends behind those it has", self.name, child.pid)
        if child.check() is None:
            self.retired.add(child)
            child.retire()


async def _end(child: Managed, name: str, timeout_s: float) -> None:
    if child.exited.is_set():
        return
    child.terminate()
    if not await within(child.exited, timeout_s):
        log.error("%s (process %d) did not end in %g s and is killed", name, child.pid, timeout_s)
        child.kill()
        await child.exited.wait()


def _how(child: Managed) -> str:
    code = child.check() or 0
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
