"""Runs of many seeds: their sums add up, a failing one is made small. The hunt for bugs goes on where the last was."""

from __future__ import annotations

import contextlib
import json

import msgspec
import pytest

from simulation.drawn.scenario import Scenario, scenario
from simulation.runs import hunt
from simulation.runs.many import Sums, Task, drawn, many
from simulation.runs.run import _arguments
from simulation.runs.smaller import smaller, tried
from simulation.simulation import Outcome
from simulation.sown import MUTANTS


def test_what_a_failure_needs_is_kept_and_nothing_else(monkeypatch):
    def breaks(plan: Scenario) -> Outcome:
        needs = plan.settings.get("journal", {}).get("fsync") == "always" and len(plan.calls) > 2 and plan.nodes == 2
        return Outcome(seed=0, counts={}, digest=0, violation=f"Uneven: {len(plan.calls)} calls" if needs else "")

    monkeypatch.setattr("simulation.runs.smaller.run", breaks)
    plan = next(plan for plan in map(scenario, range(100)) if breaks(plan).violation)
    small, outcome = smaller(plan, breaks(plan), within_s=20.0)
    assert (len(small.calls), small.nodes, small.settings) == (3, 2, {"journal": {"fsync": "always"}})
    assert not small.faults and not small.tuning and not small.budgets and not small.receiver
    assert outcome.violation == "Uneven: 3 calls"


def test_runs_are_added_up_over_many(tmp_path, capsys, monkeypatch):
    def spread_here(work, tasks, **_):
        return ((task, work(task)) for task in tasks)

    monkeypatch.setattr("simulation.runs.many.spread", spread_here)
    file = tmp_path / "sums.json"
    for n in (2, 1):
        assert not many(n, None, calls=10, jobs=1, seconds=0.0, bound_s=9.0, smaller_s=1.0, file=file, adds=True)
    sums = msgspec.json.decode(file.read_bytes(), type=Sums)
    assert (sums.seeds, sums.next_seed, sums.broken) == (3, 3, {})
    expected = [tried(drawn(Task(seed, 10))).counts for seed in range(3)]
    assert sums.counts["calls"] == sum(counts["calls"] for counts in expected)
    assert f"{sums.counts['calls']} calls" in capsys.readouterr().out


def test_who_is_interrupted_keeps_the_sums_so_far(tmp_path, monkeypatch):
    def spread_here(work, tasks, **_):
        yield (task := next(tasks)), (Outcome(seed=task.seed, counts={"calls": 7}, digest=0), 0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr("simulation.runs.many.spread", spread_here)
    file = tmp_path / "sums.json"
    file.write_text('{"seeds": 3, "next_seed": 3, "counts": {"calls": 1, "letters": 2}}')  # as an earlier run said it
    with pytest.raises(KeyboardInterrupt):
        many(9, None, calls=1, jobs=1, seconds=0.0, bound_s=9.0, smaller_s=1.0, file=file, adds=True)
    sums = msgspec.json.decode(file.read_bytes(), type=Sums)
    assert (sums.seeds, sums.next_seed, sums.counts) == (4, 4, {"calls": 8, "posts to the webhook": 2})
    assert [each.name for each in tmp_path.iterdir()] == ["sums.json"]


@pytest.mark.parametrize("other", ["", "[]", '{"some": "file"}', '{"counts": {"calls": "many"}}'])
def test_a_file_of_other_counts_is_not_added_to_and_stays(other, tmp_path, capsys):
    (file := tmp_path / "other.json").write_text(other)
    with pytest.raises(SystemExit):
        _arguments(["--write", str(file), "--add"])
    assert f"{file} has no sums of earlier runs" in capsys.readouterr().err and file.read_text() == other


@pytest.mark.parametrize(
    "words", ["--write /", "--trace", "--seed 1 --write s.json", "--seconds -1", "--seed-seconds nan"]
)
def test_what_would_fail_later_or_do_nothing_is_refused_at_once(words, capsys):
    with pytest.raises(SystemExit):  # the sums could not be written when the run was over
        _arguments(words.split())
    assert f"error: {'argument ' if 'seconds' in words else ''}--" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["--jobs 0", "--seeds 0", "--seed -1", "--seed x", "--add", "--write /no/such/file"])
def test_a_run_that_makes_no_sense_is_refused_before_it_begins(words, capsys):
    with pytest.raises(SystemExit):  # --jobs 0 began all seeds at once, --seeds 0 kept every promise
        _arguments(words.split())
    assert words.split()[0] in capsys.readouterr().err


def test_the_hunt_asks_the_seed_of_last_time_first_and_takes_none_that_fails_anyway(tmp_path, capsys, monkeypatch):
    bugs = MUTANTS[:3]
    finds = {bugs[0].name: {5}, bugs[1].name: {6}, bugs[2].name: set()}
    planted: list[str] = []

    @contextlib.contextmanager
    def plant(mutant):
        planted.append(mutant.name)
        yield
        planted.append("")

    def fails(plan: Scenario) -> Outcome:
        wrong = plan.seed == 7 or plan.seed in finds.get(planted[-1], ())
        return Outcome(seed=plan.seed, counts={}, digest=0, violation="Uneven:\n  it is" if wrong else "")

    monkeypatch.setattr(hunt, "MUTANTS", bugs)
    monkeypatch.setattr(hunt, "ROOMS", {"one": bugs[:2], "another": bugs[2:]})
    monkeypatch.setattr(hunt, "FOUND", tmp_path / "found.json")
    monkeypatch.setattr(hunt, "sown", plant)
    monkeypatch.setattr(hunt, "tried", fails)
    monkeypatch.setattr(hunt, "scenario", lambda seed, calls: scenario(seed, calls=1))
    monkeypatch.setattr(hunt, "spread", lambda work, tasks, **_: ((task, work(task)) for task in tasks))
    hunt.FOUND.write_text(json.dumps({bugs[0].name: 5, bugs[1].name: 7}))
    assert hunt.hunt(9, 1) == 1
    first, second, third, *summary = capsys.readouterr().out.splitlines()
    assert f"1/3 {bugs[0].name}: seed 5, " in first and "Uneven: it is" in first
    assert f"2/3 {bugs[1].name}: seed 6 (seed 7 finds it no more; 8 were tried), " in second
    assert f"3/3 {bugs[2].name}: NOT FOUND in 9 seeds" in third
    assert "2 of 3 were found" in summary[0] and "1 by the seed that found them last" in summary[0]
    assert summary[1] == f"not found: {bugs[2].name}"
    assert summary[4:] == ["| one | 2 | 2 |", "| another | 1 | 0 |", "| **all** | 3 | 2 |"]
    assert json.loads(hunt.FOUND.read_text()) == {bugs[0].name: 5, bugs[1].name: 6}
