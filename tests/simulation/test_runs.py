"""Runs of many seeds: their sums add up, and a failing one is made small."""

from __future__ import annotations

import msgspec
import pytest

from simulation.many import Sums, Task, drawn, many
from simulation.run import _arguments
from simulation.simulation import Outcome, Scenario, scenario
from simulation.smaller import smaller, tried


def test_what_a_failure_needs_is_kept_and_nothing_else(monkeypatch):
    def breaks(plan: Scenario) -> Outcome:
        needs = plan.settings.get("journal", {}).get("fsync") == "always" and len(plan.calls) > 2 and plan.nodes == 2
        return Outcome(seed=0, counts={}, digest=0, violation=f"Uneven: {len(plan.calls)} calls" if needs else "")

    monkeypatch.setattr("simulation.smaller.run", breaks)
    plan = next(plan for plan in map(scenario, range(100)) if breaks(plan).violation)
    small, outcome = smaller(plan, breaks(plan), within_s=20.0)
    assert (len(small.calls), small.nodes, small.settings) == (3, 2, {"journal": {"fsync": "always"}})
    assert not small.faults and not small.tuning and not small.budgets and not small.receiver
    assert outcome.violation == "Uneven: 3 calls"


def test_runs_are_added_up_over_many(tmp_path, capsys, monkeypatch):
    def spread_here(work, tasks, **_):
        return ((task, work(task)) for task in tasks)

    monkeypatch.setattr("simulation.many.spread", spread_here)
    file = tmp_path / "sums.json"
    for n in (2, 1):
        assert not many(n, None, calls=10, jobs=1, seconds=0.0, bound_s=9.0, smaller_s=1.0, file=file, adds=True)
    sums = msgspec.json.decode(file.read_bytes(), type=Sums)
    assert (sums.seeds, sums.next_seed, sums.broken) == (3, 3, {})
    expected = [tried(drawn(Task(seed, 10))).counts for seed in range(3)]
    assert sums.counts["calls"] == sum(counts["calls"] for counts in expected)
    assert f"{sums.counts['calls']} calls" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["--jobs 0", "--seeds 0", "--seed -1", "--seed x", "--add", "--write /no/such/file"])
def test_a_run_that_makes_no_sense_is_refused_before_it_begins(words, capsys):
    with pytest.raises(SystemExit):  # --jobs 0 began all seeds at once, --seeds 0 kept every promise
        _arguments(words.split())
    assert words.split()[0] in capsys.readouterr().err
