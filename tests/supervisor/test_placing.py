"""Which cores children may run on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from taximeter.supervisor import placing

FOUR = [2, 3, 6, 7]


@pytest.mark.parametrize(
    ("workers", "of_workers", "of_others"),
    [
        (1, [{7}], {2, 3, 6}),
        (3, [{7}, {6}, {3}], {2}),
        (4, [{7}, {6}, {3}, set(FOUR)], set(FOUR)),
        (5, [{7}, {6}, {3}, set(FOUR), set(FOUR)], set(FOUR)),
    ],
)
def test_workers_have_a_core_each_while_one_is_left_for_the_others(workers, of_workers, of_others):
    assert [placing.of_worker(number, FOUR) for number in range(1, workers + 1)] == of_workers
    assert placing.of_others(workers, FOUR) == of_others


@pytest.mark.parametrize("cores", [[], [5]])
def test_nothing_is_kept_apart_where_there_is_nothing_to_part(cores):
    assert placing.of_worker(1, cores) == placing.of_others(1, cores) == set(cores)


@pytest.mark.skipif(not placing.allowed(), reason="this system tells no cores")
def test_a_child_keeps_to_the_cores_it_was_started_on():
    mine = placing.allowed()
    told = [sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]
    with placing.started_on(placing.of_worker(1, mine)):
        child = subprocess.run(told, capture_output=True, text=True, check=True)
    assert child.stdout.strip() == str(mine[-1:])
    assert placing.allowed() == mine


def test_nowhere_in_particular_is_wherever_this_may_run():
    mine = os.sched_getaffinity(0) if placing.allowed() else None
    with placing.started_on(frozenset()):
        assert mine is None or os.sched_getaffinity(0) == mine
