"""Coroutines without a task, as long as they only wait for a `Signal`: a request's path for the price of plain calls.

A task costs two turns of the loop for each wait. An `InlineRun` makes its coroutine's first step at once, and the next
one in the very turn in which the signal it waits for fires. Where it awaits anything else (a future, a sleep), it goes
on as an ordinary task from there. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any

_PARKED = object()
"""What a coroutine yields to its run when it waits for a signal."""
_current: InlineRun | None = None
"""The run whose coroutine is being stepped right now; None: a task's, or none."""


class InlineRun:
    """One coroutine in progress. `done(error)` is called once, when it has ended (None: by returning)."""

    __slots__ = ("_cancelled", "_coroutine", "_done", "_running", "_task")

    def __init__(
        self, coroutine: Coroutine[Any, Any, None], done: Callable[[InlineRun, BaseException | None], None]
    ) -> None:
        self._coroutine = coroutine
        self._done = done
        self._task: asyncio.Task[None] | None = None
        self._running = False
        """In a step, or on its way into a task, or ended: nothing can be thrown into it now."""
        self._cancelled = False

    def step(self, error: BaseException | None = None) -> None:
        """Go on until the next wait. Only for who started it, and for signals."""
        global _current  # noqa: PLW0603 -- as asyncio's own current task
        before, _current = _current, self
        self._running = True
        try:
            waits_for = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
            while self._cancelled and waits_for is _PARKED:  # it cancelled itself
                self._cancelled = False
                waits_for = self._coroutine.throw(asyncio.CancelledError())
        except StopIteration:
            self._done(self, None)
        except BaseException as failure:
            self._done(self, failure)
        else:
            if waits_for is _PARKED:
                self._running = False
            else:
                self._task = asyncio.get_running_loop().create_task(self._rest(waits_for))
        finally:
            _current = before
            del error  # its traceback holds this frame: together they would wait for the collector

    def cancel(self, msg: object = None) -> None:
        """Raise CancelledError in the coroutine, where it waits. `msg` is ignored (a task takes one)."""
        if self._running:
            self._cancelled = True
        elif self._task is not None:
            self._task.cancel()
        else:
            self.step(asyncio.CancelledError())

    def uncancel(self) -> None:
        """After a cancellation that was caught and dealt with."""
        self._cancelled = False
        if self._task is not None:
            self._task.uncancel()

    async def _rest(self, waits_for: object) -> None:
        self._running = False
        if self._cancelled and self._task is not None:
            self._task.cancel()  # not before: a task cancelled before its first step never takes one
        try:
            await _go_on(self._coroutine, waits_for)
        except BaseException as error:
            self._done(self, error)
        else:
            self._done(self, None)


class Signal:
    """Wakes the one coroutine that waits for it. Fired before anybody waits, it wakes nobody."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: InlineRun | asyncio.Future[None] | None = None

    @coroutine
    def wait(self) -> Generator[object, None, None]:
        """To be awaited: until the next `fire`."""
        try:
            if _current is None:
                self._waiter = waiter = asyncio.get_running_loop().create_future()
                yield from waiter
            else:
                self._waiter = _current
                yield _PARKED
        finally:
            self._waiter = None

    def fire(self) -> None:
        """Wake who waits: a run goes on before this returns, a task in its next turn."""
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        if isinstance(waiter, InlineRun):
            waiter.step()
        elif not waiter.done():
            waiter.set_result(None)


async def in_task() -> None:
    """Go on as a task from here: before `asyncio.timeout` and whatever else needs one."""
    if _current is not None:
        await asyncio.sleep(0)


@coroutine
def _go_on(coroutine: Coroutine[Any, Any, None], waits_for: object) -> Generator[object, Any, None]:
    """The rest of a coroutine that was begun elsewhere and now waits for `waits_for`."""
    while True:
        error: BaseException | None = None
        try:
            yield waits_for
        except BaseException as thrown:
            error = thrown
        try:
            waits_for = coroutine.send(None) if error is None else coroutine.throw(error)
        except StopIteration:
            return
        finally:
            error = None  # as in `step`
