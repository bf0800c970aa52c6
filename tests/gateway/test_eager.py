"""Runs and bells on a real loop: when a coroutine goes on, how it is cancelled, and that it always ends once."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from taximeter.gateway import eager
from taximeter.gateway.eager import Bell, Run, in_task
from waits import HANG_S


class Begun:
    """A run of a coroutine, its first step made, and how it ended."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.ends: list[BaseException | None] = []
        self.over = asyncio.Event()
        self.run = Run(coroutine, self._done)
        self.run.step()

    def _done(self, run: Run, error: BaseException | None) -> None:
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
    assert eager._current is None


async def test_a_coroutine_that_waits_for_nothing_is_over_at_once() -> None:
    seen = []

    async def job() -> None:
        seen.append(1)

    assert (Begun(job()).end, seen) == ("returned", [1])


async def test_a_ring_goes_on_before_it_returns_and_in_order() -> None:
    bell, seen = Bell(), []

    async def job() -> None:
        for number in range(3):
            await bell.wait()
            seen.append(number)

    begun = Begun(job())
    for number in range(3):
        assert begun.ends == []
        bell.ring()
        assert seen == list(range(number + 1))
    assert begun.end == "returned"
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_bell_rung_before_anybody_waits_or_after_the_end_wakes_nobody() -> None:
    bell = Bell()
    bell.ring()
    begun = Begun(bell.wait())
    assert begun.ends == []
    bell.ring()
    bell.ring()
    assert begun.end == "returned"


async def test_a_bell_rung_by_the_one_who_waits_for_it_next_is_not_kept() -> None:
    bell = Bell()

    async def job() -> None:
        bell.ring()
        await bell.wait()

    begun = Begun(job())
    assert begun.ends == []
    bell.ring()
    assert begun.end == "returned"


async def test_what_a_coroutine_raises_is_told_once_and_not_to_who_rang() -> None:
    bell = Bell()

    async def job() -> None:
        await bell.wait()
        raise ValueError

    begun = Begun(job())
    bell.ring()
    bell.ring()
    assert begun.end == "ValueError"


@pytest.mark.parametrize("wait", [lambda: asyncio.sleep(0), in_task, lambda: asyncio.wait_for(asyncio.sleep(0), 5)])
async def test_whatever_is_no_bell_makes_it_a_task(wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
    bell, tasks = Bell(), []

    async def job() -> None:
        await bell.wait()
        assert asyncio.current_task() is caller
        await in_task()
        await wait()
        tasks.append(asyncio.current_task())
        await bell.wait()
        tasks.append(asyncio.current_task())
        raise KeyError

    caller = asyncio.current_task()
    begun = Begun(job())
    bell.ring()
    while not tasks:
        await asyncio.sleep(0)
    bell.ring()
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
        self.bell = Bell()
        self.run: Run | None = None

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
                await self.bell.wait()

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
        ends.bell.ring()
    await asyncio.wait_for(begun.over.wait(), HANG_S)
    assert begun.end == ("returned" if ends.deals_with_it else "CancelledError")
    begun.run.cancel()  # too late to matter
    await turns()
    assert len(begun.ends) == ends.cancelled == 1


@pytest.fixture(params=[False, True], ids=["passed on", "dealt with"])
def ends(request) -> Ends:
    return Ends(request.param)


async def test_cancelled_while_it_waits_for_a_bell(ends: Ends) -> None:
    bell = Bell()
    begun = Begun(ends.job(bell.wait))
    ends.run = begun.run
    begun.run.cancel(msg="as uvicorn says it")
    bell.ring()  # nobody waits for it any more
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

    Early(ends.job(Bell().wait, cancels))
    await finish(begun[0], ends)


@pytest.mark.parametrize("wait", [forever, lambda: asyncio.create_task(forever()), lambda: asyncio.sleep(60)])
async def test_cancelled_in_its_first_step_and_then_waiting_for_something_else(
    ends: Ends, wait: Callable[[], Any]
) -> None:
    bell = Bell()

    async def waits() -> None:
        await bell.wait()
        ends.run = begun.run
        begun.run.cancel()
        await wait()

    begun = Begun(ends.job(waits))
    bell.ring()
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
    bell = Bell()

    async def job() -> None:
        await bell.wait()
        begun.run.cancel()

    begun = Begun(job())
    bell.ring()
    await turns()
    assert begun.end == "returned"


async def test_runs_go_on_inside_each_others_steps() -> None:
    first, second, seen = Bell(), Bell(), []

    async def outer() -> None:
        await first.wait()
        seen.append("outer")
        second.ring()
        seen.append("outer again")
        await first.wait()  # still the outer's: it is parked on the right run
        seen.append("end of outer")

    async def inner() -> None:
        await second.wait()
        seen.append("inner")
        first.ring()  # the outer is running: nobody waits
        await second.wait()
        seen.append("end of inner")

    one, two = Begun(outer()), Begun(inner())
    first.ring()
    assert seen == ["outer", "inner", "outer again"]
    second.ring()
    first.ring()
    assert seen[3:] == ["end of inner", "end of outer"]
    assert one.end == two.end == "returned"


async def test_tasks_and_callbacks_begun_in_a_step_are_no_part_of_the_run() -> None:
    bell, start = Bell(), Bell()
    current: list[object] = []
    other: list[asyncio.Task[None]] = []

    async def task() -> None:
        current.append(eager._current)
        await bell.wait()  # as a task: woken in the next turn

    async def job() -> None:
        await start.wait()
        assert eager._current is begun.run
        other.append(asyncio.create_task(task()))
        asyncio.get_running_loop().call_soon(lambda: current.append(eager._current))

    begun = Begun(job())
    assert eager._current is None
    start.ring()
    assert begun.end == "returned"
    await turns()
    assert current == [None, None]
    bell.ring()
    assert not other[0].done()
    await other[0]


async def test_a_run_that_a_task_woke_is_not_that_task() -> None:
    """A bell rung from a task steps a run inside the task's step; what it then awaits is its own affair."""
    bell, go_on, seen = Bell(), asyncio.Event(), []

    async def job() -> None:
        await bell.wait()
        await go_on.wait()
        seen.append(asyncio.current_task())

    begun = Begun(job())

    async def rings() -> None:
        bell.ring()
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
    bell = Bell()
    waiting = asyncio.create_task(bell.wait())
    await turns(1)
    bell.ring()
    waiting.cancel()  # in the turn in which it was rung
    with pytest.raises(asyncio.CancelledError):
        await waiting
    begun = Begun(bell.wait())
    bell.ring()
    assert begun.end == "returned"


@pytest.mark.parametrize("promoted", [False, True])
@pytest.mark.parametrize("end", ["returns", "raises", "cancelled"])
async def test_nothing_of_an_ended_run_is_left_for_the_collector(promoted: bool, end: str) -> None:
    class Held:
        pass

    bell = Bell()

    async def job(held: Held) -> None:
        if promoted:
            await in_task()
        await bell.wait()
        if end == "raises":
            raise ValueError

    gc.collect()
    gc.disable()
    try:
        over = asyncio.Event()
        held = Held()
        seen = weakref.ref(held)
        run = Run(job(held), lambda *_: over.set())
        del held
        run.step()
        await turns()
        assert seen() is not None
        if end == "cancelled":
            run.cancel()
        else:
            bell.ring()
        await over.wait()
        await turns()
        del run
        assert seen() is None
    finally:
        gc.enable()
