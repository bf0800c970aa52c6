"""Work spread over processes, of which one that crashes or hangs stops no other.

(`concurrent.futures` gives up as a whole where a process dies, and never ends one that hangs.)
"""

from __future__ import annotations

import faulthandler
import resource
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection, get_context
from typing import Any, Generic, NamedTuple, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


MOST_BYTES = 4 << 30
"""Of memory for each process: an error there is better than a machine that ends another's."""
GRACE_S = 0.5
START_S = 60.0
"""A process that has not come up after so long is given up."""


class Lost(NamedTuple):
    """A task that has no result."""

    why: str


class _Worker(Generic[Task]):
    """One process, and what it is at."""

    def __init__(self, work: Callable[[Task], Any], bound_s: float) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, bound_s), daemon=True)
        self.process.start()
        theirs.close()
        self.task: Task
        self.ready = False
        """It has imported what it needs: the time for its first task begins then."""
        self.ends = 0.0
        self._bound_s = bound_s

    def begin(self, task: Task) -> None:
        self.task, self.ends = task, time.monotonic() + self._bound_s + (0 if self.ready else START_S)
        self.pipe.send(task)

    def is_beginning(self) -> bool:
        """It has just become ready; it told nothing else."""
        if self.ready or not self.pipe.poll():
            return False
        try:
            self.ready = self.pipe.recv() is None
        except EOFError:
            return False
        self.ends = time.monotonic() + self._bound_s
        return True

    def end(self) -> None:
        self.pipe.close()
        self.process.join(GRACE_S)  # it sees the end of the pipe, and sweeps up
        self.process.kill()
        self.process.join()


def spread(
    work: Callable[[Task], Result], tasks: Iterable[Task], *, jobs: int, bound_s: float
) -> Iterator[tuple[Task, Result | Lost]]:
    """Every task with its result, as they come. `work` is a function of a module; it may take `bound_s` for one."""
    left = iter(tasks)
    busy: list[_Worker[Task]] = []
    try:
        for task in left:
            busy.append(_Worker(work, bound_s))
            busy[-1].begin(task)
            if len(busy) == jobs:
                break
        while busy:
            for worker in _ready(busy):
                task, result, fit = worker.task, *_result(worker, bound_s)
                if (following := next(left, None)) is None:
                    busy.remove(worker)
                    worker.end()
                elif fit:
                    worker.begin(following)
                else:
                    worker.end()
                    busy[busy.index(worker)] = another = _Worker(work, bound_s)
                    another.begin(following)
                yield task, result
    finally:
        for worker in busy:
            worker.end()


def _ready(busy: list[_Worker[Task]]) -> list[_Worker[Task]]:
    """Those that have something to tell, or have had their time."""
    wait_s = max(0.0, min(worker.ends for worker in busy) - time.monotonic())
    told = connection.wait([worker.pipe for worker in busy], wait_s)
    return [
        worker
        for worker in busy
        if (worker.pipe in told or worker.ends <= time.monotonic()) and not worker.is_beginning()
    ]


def _result(worker: _Worker[Any], bound_s: float) -> tuple[Any, bool]:
    """What it tells; False: no further task is for it."""
    if not worker.pipe.poll():
        return Lost(f"it has not come to its end within {bound_s:g} s"), False
    try:
        return worker.pipe.recv(), True
    except EOFError:
        worker.process.join()
        return Lost(f"its process died with exit code {worker.process.exitcode}"), False


def _serve(pipe: Any, work: Callable[[Any], Any], bound_s: float) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    pipe.send(None)
    while True:
        try:
            task = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        faulthandler.dump_traceback_later(0.9 * bound_s)  # where it hangs, before it is killed for that
        try:
            result = work(task)
        except Exception:
            result = Lost(traceback.format_exc())
        except KeyboardInterrupt:
            return
        faulthandler.cancel_dump_traceback_later()
        pipe.send(result)
