"""One child process as its supervisor sees it: started, told to go, ready, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from typing import IO

import msgspec

from taximeter.node.child import GO, READY, REFUSED, RETIRE, Slot
from taximeter.supervisor.events import first


class Process:
    """A child that talks as taximeter.node.child says. Its events are set from the supervisor's loop."""

    def __init__(self, module: str, slot: Slot, prepared: asyncio.Event) -> None:
        """Start it; it imports its modules and then waits until `prepared` is set. Raises OSError.

        In a process group of its own: Ctrl-C reaches the supervisor alone, which ends its children in order. Not in a
        session of its own: Linux (autogroup) would weigh sessions against each other, and niceness inside them only.
        """
        self.ready = asyncio.Event()
        self.exited = asyncio.Event()
        self._prepared = prepared
        self._heard = b""
        self.said = ""
        """Why it says that it cannot do what it was started for."""
        self._answer: asyncio.Future[str] | None = None
        """What the last order that is answered waits for."""
        self._popen = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", module, msgspec.json.encode(slot).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=slot.descriptors(),
            process_group=0,
            bufsize=0,
        )
        self.pid = self._popen.pid
        self._orders, self._answers = _pipe(self._popen.stdin), _pipe(self._popen.stdout)
        os.set_blocking(self._answers.fileno(), False)
        asyncio.get_running_loop().add_reader(self._answers, self._hear)

    async def watch(self) -> None:
        """Tell it to go once everything is prepared; return when it is ready or has ended."""
        await first(self._prepared, self.exited)
        if not self.exited.is_set():
            with contextlib.suppress(BrokenPipeError):
                self._orders.write(GO)
            await first(self.ready, self.exited)

    def check(self) -> int | None:
        """See Managed."""
        code = self._popen.poll()
        if code is not None and not self.exited.is_set():
            self._hear()  # its last words
            asyncio.get_running_loop().remove_reader(self._answers)
            self._orders.close()
            self._answers.close()
            self.exited.set()
        return code

    def tell(self, order: str) -> None:
        """Give an order; one that has ended does not hear it."""
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._orders.write(f"{order}\n".encode())

    async def ask(self, order: str) -> str:
        """Give an order that is answered, one at a time; returns why it was refused, "" where it was not."""
        answer = self._answer = asyncio.get_running_loop().create_future()
        self.tell(order)
        ended = asyncio.ensure_future(self.exited.wait())
        try:
            await asyncio.wait([answer, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        word, _, why = (answer.result() if answer.done() else f"{REFUSED} the process has ended").partition(" ")
        return (why or word) if word == REFUSED else ""

    def retire(self) -> None:
        """See Managed."""
        self.tell(RETIRE)

    def terminate(self) -> None:
        """SIGTERM: end in order."""
        self._popen.terminate()

    def kill(self) -> None:
        """SIGKILL."""
        self._popen.kill()

    def _hear(self) -> None:
        try:
            said = os.read(self._answers.fileno(), 65_536)
        except BlockingIOError:
            return
        if not said:
            asyncio.get_running_loop().remove_reader(self._answers)
        *lines, self._heard = (self._heard + said).split(b"\n")
        for line in lines:
            if line == READY.strip():
                self.ready.set()
            elif self._answer is not None and not self._answer.done():
                self._answer.set_result(line.decode(errors="replace"))
            else:
                self.said = line.decode(errors="replace").removeprefix(f"{REFUSED} ")


def _pipe(end: IO[bytes] | None) -> IO[bytes]:
    if end is None:
        raise RuntimeError("the child was started without this pipe")
    return end
