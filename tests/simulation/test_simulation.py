"""The simulation itself: one seed is one history, what it promises is kept on some seeds, and it finds bugs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulation.drawn.scenario import Scenario, scenario
from simulation.simulation import run
from simulation.sown import MUTANTS
from simulation.sown.sowing import sown
from taximeter.budgets.holdings import Holdings

FOUND: dict[str, int] = json.loads((Path(__file__).parent / "sown/found.json").read_text())
"""Bug -> a seed that finds it (`make simulate ARGS=--mutants` writes the file)."""


def test_one_seed_is_one_history():
    first, again, told = (
        run(scenario(22, calls=60)),
        run(scenario(22, calls=60)),
        run(scenario(22, calls=60), tells=True),
    )
    assert (first.digest, first.counts) == (again.digest, again.counts) == (told.digest, told.counts)
    assert first.counts["calls"] and told.story and not first.story


def test_one_seed_is_one_history_in_every_process():
    """However its sets are ordered, by words or by where in memory something is; 45 has budgets of many values."""
    here = run(scenario(45, calls=60))
    asks = "from simulation.test_simulation import *; print(run(scenario(45, calls=60)).digest)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "5"}
    there = subprocess.run([sys.executable, "-c", asks], env=environment, capture_output=True, text=True, check=True)
    assert int(there.stdout) == here.digest


def test_no_real_clock_is_asked():
    run(scenario(22, calls=1, faults=0))
    bound = Holdings.__init__.__kwdefaults__  # made when the program began; with it budgets waited for real seconds
    assert bound is not None and bound["clock_s"] is not time.monotonic


def test_the_auditor_shares_nothing_with_the_product():
    for file in (Path(__file__).parent / "audit").glob("*.py"):
        imported = [name.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Import)
                    for name in node.names]  # fmt: skip
        imported += [node.module or "" for node in ast.walk(ast.parse(file.read_text()))
                     if isinstance(node, ast.ImportFrom)]  # fmt: skip
        assert not [name for name in imported if name.startswith(("taximeter", "faults"))], file


@pytest.mark.parametrize("seed", [2, 21, 31])
def test_whatever_happens_the_books_agree(seed):
    outcome = run(scenario(seed, calls=60))
    assert not outcome.violation
    assert outcome.counts["calls"] > 20


def test_every_bug_of_the_list_can_be_sown():
    for mutant in MUTANTS:
        with sown(mutant):
            pass


def test_what_was_found_is_of_the_list():
    assert FOUND.keys() <= {mutant.name for mutant in MUTANTS}


@pytest.mark.parametrize(
    "name",
    [
        "a file ends while calls are open in it",
        "history's roll-ups are not written",
        "the script does not move the cursor",
        "the watermark rises before the count",
        "recovery numbers from the beginning",
    ],
)
def test_a_bug_is_found(name):
    [mutant] = [each for each in MUTANTS if each.name == name]
    seeds = (FOUND.get(name, 0), *range(20))  # the product goes on, and another seed may be the one
    with sown(mutant):
        assert any(run(scenario(seed, calls=60)).violation for seed in seeds)


KEPT: dict[str, Scenario] = {
    "a first start with a budget was taken for a Redis that had lost its counters": scenario(1, plain=True),
    "a node that met a workspace just written anew took records for counted that were not": scenario(37, calls=60),
    "sums in a Redis that went back when all was quiet never expired": scenario(158, calls=60),
    "a node that left for good took claims along, or settled them again and again": scenario(118, calls=60),
}
"""Faults that were found so, each with a seed that had found it."""


@pytest.mark.parametrize("name", list(KEPT))
def test_a_fault_that_was_found_stays_mended(name):
    assert not run(KEPT[name]).violation
