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
from contextvars import copy_context
from typing import Any

from simulation.virtual.world import CURRENT, Killed, Process, World

LEAST_STEP_NS, STEP_NS = 500, 30_000
"""Shortest and longest time one callback takes."""
_STEP_BITS = (STEP_NS - LEAST_STEP_NS).bit_length()


class Stuck(AssertionError):
    """The simulation does not come to its end."""


class _Handle(asyncio.Handle):
    """Made in half the time: nobody debugs this loop as asyncio's own."""

    __slots__ = ()

    def __init__(self, callback: Any, args: Any, loop: asyncio.AbstractEventLoop, context: Any) -> None:
        self._context = copy_context() if context is None else context
        self._loop, self._callback, self._args = loop, callback, args
        self._cancelled = False
        self._repr = self._source_traceback = None


class _Timer(asyncio.TimerHandle):
    """See `_Handle`."""

    __slots__ = ()

    def __init__(self, when: float, callback: Any, args: Any, loop: asyncio.AbstractEventLoop, context: Any) -> None:
        self._when = when
        self._scheduled = True
        self._context = copy_context() if context is None else context
        self._loop, self._callback, self._args = loop, callback, args
        self._cancelled = False
        self._repr = self._source_traceback = None


class SimLoop(asyncio.BaseEventLoop):
    """Runs the tasks of all processes of a world."""

    def __init__(self, world: World, *, most_steps: int = 120_000) -> None:
        """`most_steps`: after so many turns, of all processes, it is stuck."""
        super().__init__()
        self._world = world
        self._queues: dict[Process | None, deque[asyncio.Handle]] = {}
        self._busy: list[Process | None] = []
        self._left_steps = most_steps
        self.failures: list[BaseException | str] = []
        """What living code let escape."""
        self._due: list[tuple[float, int, asyncio.TimerHandle]] = []
        """A heap: when, which of all timers, and the timer."""
        self._timers = 0
        self.set_task_factory(_make_task)
        self.set_exception_handler(self._failed)

    def time(self) -> float:
        return self._world.now_ns / 1e9

    # ── what is asked to run ─────────────────────────────────────────────────────────────────────────────────

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        handle = _Handle(callback, args, self, context)
        self._put(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]
        return self.call_at(self._world.now_ns / 1e9 + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]
        timer = _Timer(when, callback, args, self, context)
        self._timers += 1
        heapq.heappush(self._due, (when, self._timers, timer))
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
        """As long as nobody says stop: a turn of `run_forever` is not one callback here, as that takes as long."""
        world, due, busy = self._world, self._due, self._busy
        choice, bits = world.order.randrange, world.order.getrandbits
        while not self._stopping:  # type: ignore[attr-defined]
            self._left_steps -= 1
            if self._left_steps < 0:
                raise Stuck(f"it has not come to its end after all its steps, at {world.now_s():.1f} s")
            now_ns = world.now_ns
            while due and due[0][0] <= now_ns / 1e9:
                timer = heapq.heappop(due)[2]
                if not timer._cancelled:
                    self._put(timer)
            free = busy
            for process in busy:
                if process is not None and process.stands_until_ns > now_ns:
                    free = [p for p in busy if p is None or p.stands_until_ns <= now_ns]
                    break
            if not free:
                self._pass_time()
                continue
            process = free[0] if len(free) == 1 else free[choice(len(free))]
            queue = self._queues[process]
            handle = queue.popleft()
            if not queue:
                busy.remove(process)
            while (took_ns := bits(_STEP_BITS)) >= STEP_NS - LEAST_STEP_NS:
                pass  # what `randrange` does, in a third of the time
            world.now_ns = now_ns + LEAST_STEP_NS + took_ns
            if not handle._cancelled:
                handle._run()

    def _pass_time(self) -> None:
        """To the next timer, or to the moment when a process that was stopped goes on."""
        wakes = [p.stands_until_ns for p in self._busy if p is not None]
        if self._due:
            wakes.append(int(self._due[0][0] * 1e9) + 1)
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
