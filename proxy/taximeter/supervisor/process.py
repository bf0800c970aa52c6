"""One child process as its supervisor sees it: started, told to go, ready, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from typing import IO

import msgspec

from taximeter.node.child import GO, Slot


class Process:
    """A child that talks as taximeter.node.child says. Its events are set from the supervisor's loop."""

    def __init__(self, module: str, slot: Slot, prepared: asyncio.Event) -> None:
        """Start it; it imports its modules and then waits until `prepared` is set.

        In a process group of its own: Ctrl-C reaches the supervisor alone, which ends its children in order. Not in a
        session of its own: Linux (autogroup) would weigh sessions against each other, and niceness inside them only.
        """
        self.ready = asyncio.Event()
        self.exited = asyncio.Event()
        self._prepared = prepared
        self._popen = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", module, msgspec.json.encode(slot).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[fd for fd in (slot.socket_fd, slot.boot_fd, slot.lock_fd) if fd >= 0],
            process_group=0,
            bufsize=0,
        )
        self.pid = self._popen.pid
        self._orders, self._answers = _pipe(self._popen.stdin), _pipe(self._popen.stdout)
        asyncio.get_running_loop().add_reader(self._answers, self._hear)

    async def watch(self) -> None:
        """Tell it to go once everything is prepared; return when it is ready or has ended."""
        await _first(self._prepared, self.exited)
        if not self.exited.is_set():
            with contextlib.suppress(BrokenPipeError):
                self._orders.write(GO)
            await _first(self.ready, self.exited)

    def check(self) -> int | None:
        """See Managed."""
        code = self._popen.poll()
        if code is not None and not self.exited.is_set():
            asyncio.get_running_loop().remove_reader(self._answers)
            self._orders.close()
            self._answers.close()
            self.exited.set()
        return code

    def terminate(self) -> None:
        """SIGTERM: end in order."""
        self._popen.terminate()

    def kill(self) -> None:
        """SIGKILL."""
        self._popen.kill()

    def _hear(self) -> None:
        if os.read(self._answers.fileno(), 64):
            self.ready.set()
        else:
            asyncio.get_running_loop().remove_reader(self._answers)


def _pipe(end: IO[bytes] | None) -> IO[bytes]:
    if end is None:
        raise RuntimeError("the child was started without this pipe")
    return end


async def _first(*events: asyncio.Event) -> None:
    """Wait for any of the events."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
