"""The patience of the other tests' waits."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

import waits
from waits import CAP_S, HANG_S, PROGRESS_S, STALLED_S, Patience


class Watched:
    """A clock, and a process that gets its share of every second."""

    def __init__(self, share: float, look_s: float = 0.02) -> None:
        self.now_s, self.used_s, self.share, self.look_s = 0.0, 0.0, share, look_s
        self.patience = Patience(used_s=lambda: self.used_s, now_s=lambda: self.now_s)

    def late_after_s(self, until_s: float = 10_000) -> float | None:
        """Seconds until it is late; None: it is not, by then."""
        while self.now_s < until_s:
            try:
                self.patience.check("it")
            except TimeoutError:
                return self.now_s
            self.now_s += self.look_s
            self.used_s += self.share * self.look_s
        return None


def test_a_process_that_is_at_work_is_not_late_until_the_cap() -> None:
    assert Watched(0.02).late_after_s() == pytest.approx(CAP_S, abs=1)


def test_one_that_is_idle_is_late_when_the_bound_of_a_stall_is_over() -> None:
    assert Watched(0).late_after_s() == pytest.approx(STALLED_S, abs=1)
    assert Watched(PROGRESS_S / STALLED_S / 2).late_after_s() == pytest.approx(STALLED_S, abs=1)  # a node at rest


def test_one_that_stops_working_is_late_a_stall_later() -> None:
    watched = Watched(1)
    assert watched.late_after_s(until_s=100) is None
    watched.share = 0
    assert watched.late_after_s() == pytest.approx(100 + STALLED_S, abs=2)


def test_time_in_which_the_test_itself_did_not_run_is_nobodys_delay() -> None:
    assert Watched(0, look_s=2).late_after_s() == pytest.approx(4 * STALLED_S, abs=4)


def test_a_hang_ends_before_pytest_ends_the_test(pytestconfig: pytest.Config) -> None:
    assert max(CAP_S, HANG_S) < float(pytestconfig.getini("timeout"))


def test_the_work_of_a_whole_tree_counts_and_stays_counted_when_it_has_ended() -> None:
    child = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print(flush=True); input()"
    argv = [sys.executable, "-c", parent]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert waits.cpu_s(process.pid) >= 0.3
        before_s = waits.cpu_s()
        process.kill()
    assert waits.cpu_s() >= before_s >= 0.3
    spent_s = time.process_time() + 0.3
    while time.process_time() < spent_s:
        pass
    assert waits.cpu_s() < before_s + 0.3  # what the test itself spends, in waiting, is no progress


def test_a_command_is_run_to_its_end_and_a_failed_condition_says_what_was_waited_for() -> None:
    done = waits.run([sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"])
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    patience = Patience(used_s=lambda: 0.0, now_s=iter(range(1_000)).__next__)
    with pytest.raises(TimeoutError, match="for the moon; nothing moves any more"):
        while True:
            patience.check("the moon")
