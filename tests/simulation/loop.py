"""An event loop without threads, sockets or time: one seed decides who runs next and how long everything takes.

Callbacks of one process keep their order, as asyncio promises; between processes there is none. Time passes only where
nobody can run, and a little with every step.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from simulation.world import CURRENT, Killed, Process, World

STEP_NS = 30_000
"""Longest time one callback takes."""


class Stuck(AssertionError):
    """The simulation does not come to its end."""


class SimLoop(asyncio.BaseEventLoop):
    """Runs the tasks of all processes of a world."""

    def __init__(self, world: World, *, most_steps: int = 120_000) -> None:
        super().__init__()
        self._world = world
        self._queues: dict[Process | None, deque[asyncio.Handle]] = {}
        self._busy: list[Process | None] = []
        self._left_steps = most_steps
        self.failures: list[BaseException | str] = []
        """What living code let escape."""
        self._scheduled: list[asyncio.TimerHandle] = []
        self.set_task_factory(_make_task)
        self.set_exception_handler(self._failed)

    def time(self) -> float:
        return self._world.now_ns / 1e9

    # ── what is asked to run ─────────────────────────────────────────────────────────────────────────────────

    def _call_soon(self, callback: Any, args: Any, context: Any) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._put(handle)
        return handle

    call_soon_threadsafe = asyncio.BaseEventLoop.call_soon

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        timer._scheduled = True  # type: ignore[attr-defined]
        heapq.heappush(self._scheduled, timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is dropped when its time comes."""

    def _put(self, handle: asyncio.Handle) -> None:
        process = handle._context.get(CURRENT)  # type: ignore[attr-defined]
        if process is not None and not process.alive:
            return
        queue = self._queues.get(process)
        if queue is None:
            queue = self._queues[process] = deque()
        if not queue:
            self._busy.append(process)
        queue.append(handle)

    def drop(self, process: Process) -> None:
        """Nothing of a process runs any more."""
        self._queues.pop(process, None)
        if process in self._busy:
            self._busy.remove(process)
        for task in process.tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    # ── who runs next ────────────────────────────────────────────────────────────────────────────────────────

    def _run_once(self) -> None:
        world, scheduled = self._world, self._scheduled
        self._left_steps -= 1
        if self._left_steps < 0:
            raise Stuck(f"it has not come to its end after all its steps, at {world.now_s():.1f} s")
        now = world.now_ns / 1e9
        while scheduled and scheduled[0].when() <= now:
            timer = heapq.heappop(scheduled)
            if not timer._cancelled:
                self._put(timer)
        busy = self._busy
        if any(process is not None and process.stands_until_ns > world.now_ns for process in busy):
            busy = [p for p in busy if p is None or p.stands_until_ns <= world.now_ns]
        if not busy:
            self._pass_time()
            return
        process = busy[0] if len(busy) == 1 else busy[world.order.randrange(len(busy))]
        queue = self._queues[process]
        handle = queue.popleft()
        if not queue:
            self._busy.remove(process)
        world.now_ns += world.order.randrange(500, STEP_NS)
        if not handle._cancelled:
            handle._run()

    def _pass_time(self) -> None:
        """To the next timer, or to the moment when a process that was stopped goes on."""
        wakes = [p.stands_until_ns for p in self._busy if p is not None]
        if self._scheduled:
            wakes.append(int(self._scheduled[0].when() * 1e9) + 1)
        if not wakes:
            raise Stuck("everybody waits, for nothing")
        self._world.now_ns = max(self._world.now_ns + 1, min(wakes))

    def _failed(self, loop: object, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Killed) and not self._world.over:
            self.failures.append(error or str(context.get("message")))

    def _write_to_self(self) -> None:
        """Nobody sleeps."""

    # ── threads ──────────────────────────────────────────────────────────────────────────────────────────────

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """A thread's work is one step, some time from now; of a pool with one thread in the order it was given."""
        answer = self.create_future()

        def done(work: Future[Any]) -> None:
            if answer.done():
                return
            if work.cancelled():
                answer.cancel()
            elif (error := work.exception()) is not None:
                answer.set_exception(error)
            else:
                answer.set_result(work.result())

        pool = executor if isinstance(executor, SimPool) else SimPool(1)
        pool.submit(func, *args).add_done_callback(done)
        return answer


class SimPool(Executor):
    """In place of a ThreadPoolExecutor."""

    def __init__(self, max_workers: int | None = None, thread_name_prefix: str = "", **_: Any) -> None:
        self._one = max_workers == 1
        self._works: deque[Callable[[], None]] = deque()
        self._free_at = 0.0
        self._shut = False

    def submit(self, func: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        """See Executor; also without a loop's turn: where none runs the work is done at `shutdown`."""
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()

        def work() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    result = func(*args, **named)
                except Killed:
                    raise
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)

        self._works.append(work)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        took_s = loop._world.order.expovariate(1 / 0.0008)
        at = loop.time() + took_s
        if self._one:
            at = max(at, self._free_at + 1e-9)
        self._free_at = at
        loop.call_at(at, self._next)
        return future

    def _next(self) -> None:
        if self._works:
            self._works.popleft()()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._shut = True
        while self._works:
            self._next()


def _make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, context: Any = None, **named: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context, **named)
    process = CURRENT.get() if context is None else context.get(CURRENT)
    if process is not None:
        if len(process.tasks) >= process.prune_at:
            process.tasks = [each for each in process.tasks if not each.done()]
            process.prune_at = 2 * len(process.tasks) + 64
        process.tasks.append(task)
    return task
