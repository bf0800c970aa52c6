"""Work spread over processes. (They import this file: it is kept light.)"""

from __future__ import annotations

import os
import threading

from simulation.runs.pool import Lost, spread


def _work(task: str) -> str:
    """Of the processes of the next test."""
    if task == "dies":
        os._exit(3)
    if task == "hangs":
        threading.Event().wait()
    if task == "raises":
        raise ValueError(task)
    return f"done: {task}"


def test_a_task_that_dies_hangs_or_raises_stops_no_other():
    told = dict(spread(_work, ["a", "dies", "hangs", "raises", "b", "c"], jobs=2, bound_s=1.0))
    assert {task: result for task, result in told.items() if isinstance(result, str)} == {
        "a": "done: a", "b": "done: b", "c": "done: c"
    }  # fmt: skip
    assert told["dies"] == Lost("its process died with exit code 3")
    assert told["hangs"] == Lost("it has not come to its end within 1 s")
    assert isinstance(told["raises"], Lost) and "ValueError: raises" in told["raises"].why
