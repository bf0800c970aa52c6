"""Runs and bells on a real loop: when a coroutine goes on, how it is cancelled, and that it always ends once."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from taximeter.server import inline
from taximeter.server.inline import InlineRun, Signal, in_task
from waits import HANG_S


class Begun:
    """A run of a coroutine, its first step made, and how it ended."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.ends: list[BaseException | None] = []
        self.over = asyncio.Event()
        self.run = InlineRun(coroutine, self._done)
        self.run.step()

    def _done(self, run: InlineRun, error: BaseException | None) -> None:
        assert run is self.run
        self.ends.append(error)
        self.over.set()

    @property
    def end(self) -> str:
        """The one end there was."""
        (error,) = self.ends
        return "returned" if error is None else type(error).__name__


async def turns(number: int = 3) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def nothing_is_current():
    yield
    assert inline._current is None


async def test_a_coroutine_that_waits_for_nothing_is_over_at_once() -> None:
    seen = []

    async def job() -> None:
        seen.append(1)

    assert (Begun(job()).end, seen) == ("returned", [1])


async def test_a_ring_goes_on_before_it_returns_and_in_order() -> None:
    signal, seen = Signal(), []

    async def job() -> None:
        for number in range(3):
            await signal.wait()
            seen.append(number)

    begun = Begun(job())
    for number in range(3):
        assert begun.ends == []
        signal.fire()
        assert seen == list(range(number + 1))
    assert begun.end == "returned"
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_bell_rung_before_anybody_waits_or_after_the_end_wakes_nobody() -> None:
    signal = Signal()
    signal.fire()
    begun = Begun(signal.wait())
    assert begun.ends == []
    signal.fire()
    signal.fire()
    assert begun.end == "returned"


async def test_a_bell_rung_by_the_one_who_waits_for_it_next_is_not_kept() -> None:
    signal = Signal()

    async def job() -> None:
        signal.fire()
        await signal.wait()

    begun = Begun(job())
    assert begun.ends == []
    signal.fire()
    assert begun.end == "returned"


async def test_what_a_coroutine_raises_is_told_once_and_not_to_who_rang() -> None:
    signal = Signal()

    async def job() -> None:
        await signal.wait()
        raise ValueError

    begun = Begun(job())
    signal.fire()
    signal.fire()
    assert begun.end == "ValueError"


@pytest.mark.parametrize("wait", [lambda: asyncio.sleep(0), in_task, lambda: asyncio.wait_for(asyncio.sleep(0), 5)])
async def test_whatever_is_no_bell_makes_it_a_task(wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
    signal = Signal()
    tasks: list[object] = []

    async def job() -> None:
        await signal.wait()
        assert asyncio.current_task() is caller
        await in_task()
        await wait()
        tasks.append(asyncio.current_task())
        await signal.wait()
        tasks.append(asyncio.current_task())
        raise KeyError

    caller = asyncio.current_task()
    begun = Begun(job())
    signal.fire()
    while not tasks:
        await asyncio.sleep(0)
    signal.fire()
    assert begun.ends == []  # a task goes on in its next turn
    await begun.over.wait()
    assert begun.end == "KeyError"
    assert len({*tasks, caller}) == 2


async def test_a_future_that_fails_fails_inside() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    seen = []

    async def job() -> None:
        try:
            await future
        except ValueError as error:
            seen.append(error)

    begun = Begun(job())
    future.set_exception(ValueError())
    await begun.over.wait()
    assert (begun.end, len(seen)) == ("returned", 1)


class Ends:
    """Where a coroutine is cancelled, and what it does about it."""

    def __init__(self, deals_with_it: bool) -> None:
        self.cancelled = 0
        self.deals_with_it = deals_with_it
        self.signal = Signal()
        self.run: InlineRun | None = None

    async def job(self, wait: Callable[[], Any], first: Callable[[], None] = lambda: None) -> None:
        try:
            first()
            await wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            if not self.deals_with_it:
                raise
            assert self.run is not None
            self.run.uncancel()
            async with asyncio.timeout(HANG_S) if self.run._task else self:
                await self.signal.wait()

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


async def forever() -> None:
    await asyncio.Event().wait()


async def finish(begun: Begun, ends: Ends) -> None:
    """Let go on who has dealt with its cancellation."""
    assert ends.cancelled == 1
    if ends.deals_with_it:
        assert begun.ends == []
        await turns()
        assert begun.ends == []
        ends.signal.fire()
    await asyncio.wait_for(begun.over.wait(), HANG_S)
    assert begun.end == ("returned" if ends.deals_with_it else "CancelledError")
    begun.run.cancel()  # too late to matter
    await turns()
    assert len(begun.ends) == ends.cancelled == 1


@pytest.fixture(params=[False, True], ids=["passed on", "dealt with"])
def ends(request) -> Ends:
    return Ends(request.param)


async def test_cancelled_while_it_waits_for_a_bell(ends: Ends) -> None:
    signal = Signal()
    begun = Begun(ends.job(signal.wait))
    ends.run = begun.run
    begun.run.cancel(msg="as a task's")
    signal.fire()  # nobody waits for it any more
    await finish(begun, ends)


async def test_cancelled_in_its_first_step_and_then_waiting_for_a_bell(ends: Ends) -> None:
    begun: list[Begun] = []

    class Early(Begun):
        def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
            begun.append(self)
            super().__init__(coroutine)

    def cancels() -> None:
        ends.run = begun[0].run
        ends.run.cancel()

    Early(ends.job(Signal().wait, cancels))
    await finish(begun[0], ends)


@pytest.mark.parametrize("wait", [forever, lambda: asyncio.create_task(forever()), lambda: asyncio.sleep(60)])
async def test_cancelled_in_its_first_step_and_then_waiting_for_something_else(
    ends: Ends, wait: Callable[[], Any]
) -> None:
    signal = Signal()

    async def waits() -> None:
        await signal.wait()
        ends.run = begun.run
        begun.run.cancel()
        await wait()

    begun = Begun(ends.job(waits))
    signal.fire()
    await turns()
    await finish(begun, ends)


async def test_cancelled_on_its_way_into_a_task_or_in_it(ends: Ends) -> None:
    for number in range(3):
        one = Ends(ends.deals_with_it)
        begun = Begun(one.job(forever))
        one.run = begun.run
        await turns(number)
        begun.run.cancel()
        await turns(4)
        await finish(begun, one)


async def test_a_cancellation_reaches_the_task_that_is_waited_for() -> None:
    inner = asyncio.create_task(forever())
    begun = Begun(_waits_for(inner))
    begun.run.cancel()  # before its own task has made a step
    await begun.over.wait()
    await turns()
    assert (begun.end, inner.cancelled()) == ("CancelledError", True)


async def _waits_for(task: asyncio.Task[None]) -> None:
    await task


async def test_a_coroutine_that_returns_without_waiting_was_not_cancelled() -> None:
    signal = Signal()

    async def job() -> None:
        await signal.wait()
        begun.run.cancel()

    begun = Begun(job())
    signal.fire()
    await turns()
    assert begun.end == "returned"


async def test_runs_go_on_inside_each_others_steps() -> None:
    first, second, seen = Signal(), Signal(), []

    async def outer() -> None:
        await first.wait()
        seen.append("outer")
        second.fire()
        seen.append("outer again")
        await first.wait()  # still the outer's: it is parked on the right run
        seen.append("end of outer")

    async def inner() -> None:
        await second.wait()
        seen.append("inner")
        first.fire()  # the outer is running: nobody waits
        await second.wait()
        seen.append("end of inner")

    one, two = Begun(outer()), Begun(inner())
    first.fire()
    assert seen == ["outer", "inner", "outer again"]
    second.fire()
    first.fire()
    assert seen[3:] == ["end of inner", "end of outer"]
    assert one.end == two.end == "returned"


async def test_tasks_and_callbacks_begun_in_a_step_are_no_part_of_the_run() -> None:
    signal, start = Signal(), Signal()
    current: list[object] = []
    other: list[asyncio.Task[None]] = []

    async def task() -> None:
        current.append(inline._current)
        await signal.wait()  # as a task: woken in the next turn

    async def job() -> None:
        await start.wait()
        assert inline._current is begun.run
        other.append(asyncio.create_task(task()))
        asyncio.get_running_loop().call_soon(lambda: current.append(inline._current))

    begun = Begun(job())
    assert inline._current is None
    start.fire()
    assert begun.end == "returned"
    await turns()
    assert current == [None, None]
    signal.fire()
    assert not other[0].done()
    await other[0]


async def test_a_run_that_a_task_woke_is_not_that_task() -> None:
    """A signal rung from a task steps a run inside the task's step; what it then awaits is its own affair."""
    signal, go_on, seen = Signal(), asyncio.Event(), []

    async def job() -> None:
        await signal.wait()
        await go_on.wait()
        seen.append(asyncio.current_task())

    begun = Begun(job())

    async def rings() -> None:
        signal.fire()
        await in_task()  # a task already: nothing to do
        seen.append(asyncio.current_task())

    ringing = asyncio.create_task(rings())
    await ringing
    assert begun.ends == []
    go_on.set()
    await begun.over.wait()
    assert seen[0] is ringing
    assert seen[1] is not ringing


async def test_a_task_that_waits_for_a_bell_can_be_cancelled_and_the_bell_used_again() -> None:
    signal = Signal()
    waiting = asyncio.create_task(signal.wait())
    await turns(1)
    signal.fire()
    waiting.cancel()  # in the turn in which it was rung
    with pytest.raises(asyncio.CancelledError):
        await waiting
    begun = Begun(signal.wait())
    signal.fire()
    assert begun.end == "returned"


@pytest.mark.parametrize("promoted", [False, True])
@pytest.mark.parametrize("end", ["returns", "raises", "cancelled"])
async def test_nothing_of_an_ended_run_is_left_for_the_collector(promoted: bool, end: str) -> None:
    class Held:
        pass

    signal = Signal()

    async def job(held: Held) -> None:
        if promoted:
            await in_task()
        await signal.wait()
        if end == "raises":
            raise ValueError

    gc.collect()
    gc.disable()
    try:
        over = asyncio.Event()
        held = Held()
        seen = weakref.ref(held)
        run = InlineRun(job(held), lambda *_: over.set())
        del held
        run.step()
        await turns()
        assert seen() is not None
        if end == "cancelled":
            run.cancel()
        else:
            signal.fire()
        await over.wait()
        await turns()
        del run
        assert seen() is None
    finally:
        gc.enable()
