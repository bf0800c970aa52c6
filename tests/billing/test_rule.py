"""What a plan charges: exact, rounded once, whichever lines share it."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.billing.rule import (
    KINDS,
    USD,
    Charged,
    Plan,
    Price,
    Rate,
    charge,
    charge_chunks,
    converted,
    factor_ppm,
    plan_at,
    rate_at,
    worth,
)

LLM = {"model": "gpt-4o-mini", "task": "query", "operation": "llm"}


def price(kind="output", usd_per=(0, 1), per=1, **given):
    return Price(code=kind, kind=kind, per=per, steps=given.pop("steps", (usd_per,)), **given)


def test_a_tiers_amount_is_for_what_lies_above_it_only():
    tiered = price(per=1_000, steps=((0, 0), (1_000, 2_000_000), (5_000, 1_000_000)))
    assert [worth(tiered, quantity) for quantity in (0, 1_000, 2_000, 5_000, 7_000)] == [
        0, 0, 2_000_000, 8_000_000, 10_000_000,
    ]  # fmt: skip


def test_half_a_nano_dollar_goes_to_the_even_one():
    half = price(usd_per=(0, 1), per=2)
    assert [worth(half, quantity) for quantity in (1, 2, 3, 5)] == [0, 1, 2, 2]


@given(
    st.lists(st.integers(0, 10**6), max_size=12),
    st.integers(1, 10**7),
    st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**7)), max_size=3, unique_by=lambda step: step[0]),
)
def test_lines_share_a_price_without_losing_or_making_a_nano_dollar(quantities, per, tiers):
    tiered = price(per=per, steps=((0, 7), *sorted(tiers)))
    plan = Plan(name="p", prices=(tiered,))
    shared = charge(plan, [(LLM, {"llm_output_tokens": quantity}) for quantity in quantities])
    assert sum(each.nusd or 0 for each in shared) == worth(tiered, sum(quantities))
    exact, ends = Fraction(0), (*(start for start, _ in tiered.steps[1:]), None)
    for (start, nusd), end in zip(tiered.steps, ends, strict=True):
        reached = sum(quantities) if end is None else min(sum(quantities), end)
        exact += Fraction(nusd * max(0, reached - start), per)
    assert worth(tiered, sum(quantities)) == round(exact)


@given(st.lists(st.integers(0, 10**9), max_size=12), st.integers(0, 5_000_000))
def test_a_markup_is_rounded_once_whatever_it_is_shared_by(costs, factor):
    found = charge(Plan(name="p", factor_ppm=factor), [(LLM, {"cost_nusd": cost}) for cost in costs])
    assert sum(each.nusd or 0 for each in found) == round(Fraction(sum(costs) * factor, 1_000_000))


def test_cached_tokens_are_input_unless_they_have_a_price_of_their_own():
    used = {"llm_input_tokens": 100, "llm_cached_input_tokens": 40, "llm_output_tokens": 7}
    plain = Plan(name="p", prices=(price("input", (0, 3)),))
    assert charge(plain, [(LLM, used)]) == [Charged(nusd=300, parts=((0, 100),), left_out=("output",))]
    apart = Plan(name="p", prices=(price("input", (0, 3)), price("cached_input", (0, 1)), price("output", (0, 5))))
    assert charge(apart, [(LLM, used)]) == [Charged(nusd=180 + 40 + 35, parts=((0, 60), (1, 40), (2, 7)))]


def test_what_has_a_price_of_its_own_bears_no_markup_and_what_has_none_does():
    plan = Plan(
        name="p", factor_ppm=1_200_000, prices=(price("output", (0, 5), models=("gpt-4o*",)), price("request", (0, 11)))
    )
    used = {"llm_output_tokens": 10, "requests": 2, "cost_nusd": 1_000}
    other = LLM | {"model": "claude"}
    assert [each.nusd for each in charge(plan, [(LLM, used), (other, used)])] == [50 + 22, 1_200 + 22]


def test_a_plan_that_says_nothing_of_a_call_charges_nothing_known():
    plan = Plan(name="p", prices=(price("embedding"),))
    (found,) = charge(plan, [(LLM, {"llm_output_tokens": 10, "cost_nusd": 4})])
    assert found.nusd is None and found.left_out == ("output",)


def test_chunks_cost_what_the_plan_says():
    assert charge_chunks(Plan(name="p", prices=(price("output"),)), 5) is None
    assert charge_chunks(Plan(name="p", prices=(price("chunk", (0, 4)),)), 5) == Charged(nusd=20, parts=((0, 5),))


def test_a_plan_for_the_key_goes_first_then_the_latest():
    general, later = Plan(name="a"), Plan(name="b", from_us=100)
    keyed = Plan(name="c", keys=("key_1",), from_us=50)
    plans = [general, later, keyed, Plan(name="d", workspaces=("beta",))]
    assert plan_at(plans, "acme", None, 99) is general
    assert plan_at(plans, "acme", None, 100) is later
    assert plan_at(plans, "acme", "key_1", 100) is keyed
    assert plan_at(plans, "acme", "key_1", 49) is general
    assert plan_at([keyed], "acme", "key_2", 100) is None


def test_an_amount_is_rounded_to_the_currencys_places_half_to_even():
    euro = Rate(code="EUR", rate=Decimal("0.5"))
    amounts = [converted(nusd, euro) for nusd in (10_000_000, 30_000_000, 30_000_001, -10_000_000, 1_000_000_000)]
    assert [str(each) for each in amounts] == ["0.00", "0.02", "0.02", "0.00", "0.50"] or str(amounts[3]) == "-0.00"
    assert rate_at([euro], "EUR", 0) is euro and rate_at([], "EUR", 0) is None and rate_at([], "USD", 0) == USD


@pytest.mark.parametrize("written", ["x", "-101", "0.00001", "inf", float("nan")])
def test_no_markup(written):
    with pytest.raises(ValueError, match="per cent"):
        factor_ppm(written)


def test_each_kind_is_about_a_sum_that_history_keeps():
    from taximeter.sinks.cells import FIELDS

    assert {kind.field for kind in KINDS.values()} - {""} <= set(FIELDS)
    assert factor_ppm("") is None and factor_ppm("-10") == 900_000


MARKUP = Plan(name="p", factor_ppm=1_200_000)


@pytest.mark.parametrize(
    ("used", "nusd", "uncharged"),
    [
        ({"requests": 1, "cost_nusd": 10}, 12, 0),
        ({"requests": 1}, 0, 0),  # it cost nothing, which is known
        ({"requests": 1, "unpriced_requests": 1, "llm_output_tokens": 9}, None, 1),
        ({"requests": 3, "unpriced_requests": 2, "cost_nusd": 10}, 12, 2),
        ({"requests": 1, "unknown_requests": 1}, None, 0),
    ],
)
def test_a_markup_on_a_cost_that_is_not_known_is_no_charge_of_nothing(used, nusd, uncharged):
    (charged,) = charge(MARKUP, [(LLM, used)])
    assert (charged.nusd, charged.uncharged) == (nusd, uncharged)


def test_unknown_use_has_no_charge_of_nothing_by_a_price_either():
    plan = Plan(name="p", factor_ppm=1_200_000, prices=(price(),))
    assert charge(plan, [(LLM, {"requests": 1, "unknown_requests": 1})])[0].nusd is None
    assert charge(plan, [(LLM, {"requests": 2, "unknown_requests": 1, "llm_output_tokens": 3})])[0].nusd == 3
    assert charge(plan, [(LLM, {"requests": 1})])[0].nusd == 0


def test_a_credit_of_less_than_a_cent_is_no_negative_nothing():
    assert str(converted(-1, Rate(code="EUR", rate=Decimal("0.9")))) == "0.00"
    assert str(converted(-6_000_000, Rate(code="EUR", rate=Decimal("0.9")))) == "-0.01"
