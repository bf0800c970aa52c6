"""Waiting for what sends no event, with a patience that follows progress and not the clock.

A process that is still at work is not late, however busy the machine. It is late when it has used next to no CPU time
for `STALLED_S`; one that works in vain is given up after `CAP_S`, which is below pytest's own timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")
HANG_S = 60.0
"""The bound of what takes no time within the test's own process: whatever reaches it never comes."""
STALLED_S = 60.0
"""So long without progress is late."""
CAP_S = 300.0
"""The longest wait of all."""
PROGRESS_S = 0.3
"""CPU seconds that are progress: an idle node uses less in `STALLED_S`, one that starts uses more on any machine."""
_LOOK_S, _PAUSE_S, _MISSED_S = 1.0, 0.01, 0.5


class Patience:
    """How long one goes on waiting: `check` again and again.

    `process` is the id of the one that is waited for, with all its descendants; without it, all that this process has
    started count.
    """

    def __init__(
        self,
        process: int | None = None,
        *,
        used_s: Callable[[], float] | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._used_s = used_s or (lambda: cpu_s(process))
        self._now_s = now_s
        self._began_s = self._seen_s = self._looked_s = now_s()
        self._idle_s = 0.0
        self._mark_s = self._used_s()

    def check(self, what: str) -> None:
        """Raises TimeoutError, which says what was waited for, when that is late."""
        now_s = self._now_s()
        # Time in which this process was not let run says nothing of the other one.
        self._idle_s += min(now_s - self._seen_s, _MISSED_S)
        self._seen_s = now_s
        if now_s - self._looked_s >= _LOOK_S:
            self._looked_s, used_s = now_s, self._used_s()
            if abs(used_s - self._mark_s) >= PROGRESS_S:  # less: one that had used much has ended
                self._mark_s, self._idle_s = used_s, 0.0
        if self._idle_s >= STALLED_S:
            raise TimeoutError(f"waited {now_s - self._began_s:.0f} s for {what}; nothing moves any more")
        if now_s - self._began_s >= CAP_S:
            raise TimeoutError(f"waited {now_s - self._began_s:.0f} s for {what}; something is still at work")


def cpu_s(process: int | None = None) -> float:
    """CPU seconds that a process and its descendants have used; without one, all that this process has started."""
    ticks = 0
    for pid in tree(process or os.getpid()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended, and is with its parent's from now on
            continue
        # user, system, and both again of children that have ended (proc(5))
        ticks += sum(map(int, fields[11:15] if process or pid != os.getpid() else fields[13:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo += children.get(one, [])
    return found


@contextlib.contextmanager
def clock_at_rest() -> Iterator[None]:
    """The running loop's clock stands still: no timer comes due, however long the machine takes for what is done.

    Afterwards every timer is due that would have been.
    """
    loop = asyncio.get_running_loop()
    now_s, running = loop.time(), loop.time
    loop.time = lambda: now_s  # type: ignore[method-assign]
    try:
        yield
    finally:
        loop.time = running  # type: ignore[method-assign]


def until(condition: Callable[[], T | Literal[False] | None], what: str = "it", process: int | None = None) -> T:
    """Wait until the condition holds, and return what it is. Raises TimeoutError, see Patience."""
    patience = Patience(process)
    while not (found := condition()):
        patience.check(what)
        time.sleep(_PAUSE_S)
    return found


async def happens(condition: Callable[[], Any], what: str = "it", process: int | None = None) -> Any:
    """`until` beside a running loop; the condition may be a coroutine function."""
    patience = Patience(process)
    while True:
        held = condition()
        found = await held if inspect.isawaitable(held) else held
        if found:
            return found
        patience.check(what)
        await asyncio.sleep(_PAUSE_S)


def ended(process: subprocess.Popen[Any]) -> int:
    """A process's exit code, once it has ended. Raises TimeoutError, see Patience."""
    patience = Patience(process.pid)
    while True:
        try:
            return process.wait(_LOOK_S)
        except subprocess.TimeoutExpired:
            patience.check(f"the end of {process.args!r}")


def run(argv: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """One command to its end, its output as text; killed when it is late (TimeoutError, see Patience)."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        patience = Patience(process.pid)
        try:
            while True:
                try:
                    out, err = process.communicate(timeout=_LOOK_S)
                    return subprocess.CompletedProcess(argv, process.returncode, out, err)
                except subprocess.TimeoutExpired:
                    patience.check(f"the end of {argv!r}")
        except BaseException:
            process.kill()
            raise
