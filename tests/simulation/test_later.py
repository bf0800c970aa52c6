"""What is billed later, statements, corrections and rates: there is some of each, and bugs in them are found."""

from __future__ import annotations

import pytest

from simulation.drawn.scenario import scenario
from simulation.simulation import run
from simulation.sown import MUTANTS
from simulation.sown.sowing import sown


@pytest.mark.parametrize("seed", [0, 6])
def test_what_is_billed_later_is_settled_and_stated(seed):
    outcome = run(scenario(seed, calls=60))
    assert not outcome.violation
    assert outcome.counts["calls billed later"] and outcome.counts["settlements"] and outcome.counts["statements"] > 1


def test_rates_admit_no_more_than_their_limit():
    plan = scenario(29, calls=60)
    assert plan.rates
    outcome = run(plan)
    assert not outcome.violation
    assert outcome.counts["refused by a rate"]


@pytest.mark.parametrize(
    ("name", "seed"),
    [("what polls tell is not written down", 0), ("an object's settlement leaves it outstanding", 0)],
)
def test_a_bug_is_found(name, seed):
    [mutant] = [each for each in MUTANTS if each.name == name]
    with sown(mutant):
        assert any(run(scenario(each, calls=60)).violation for each in (seed, *range(20)))
