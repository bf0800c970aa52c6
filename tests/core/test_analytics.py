import pytest
from hypothesis import given
from hypothesis import strategies as st

from present import present
from taximeter.core.analytics import LEAST_DAYS, at_price, backtest, expected, forecast
from taximeter.core.prices import Card, Rates
from taximeter.core.totals import Totals

DAYS = st.lists(st.integers(0, 10**12), min_size=LEAST_DAYS, max_size=90)
AHEAD = st.integers(0, 31)
TOKENS = st.integers(0, 10**9)


@given(st.lists(st.integers(0, 10**12), min_size=7, max_size=7), st.integers(1, 8), AHEAD)
def test_a_week_that_repeats_is_foretold_exactly(week, weeks, ahead):
    days = week * weeks
    assert expected(days, ahead) == sum(week[number % 7] for number in range(ahead))
    tried = backtest(days, ahead)
    assert tried.times == 0 or (tried.error, tried.bias) == (0, 0)


@given(DAYS, AHEAD, st.integers(2, 1_000))
def test_what_costs_more_is_foretold_to_cost_as_much_more(days, ahead, times):
    scaled = expected([day * times for day in days], ahead)
    assert abs(scaled - expected(days, ahead) * times) <= ahead * times  # each day is rounded once


@given(DAYS, st.integers(0, 10**12), AHEAD)
def test_a_forecast_lies_within_its_bounds_and_never_takes_anything_back(days, today, ahead):
    told = present(forecast(days, today, ahead))
    tried = present(told.backtest)
    assert 0 <= told.rest_nusd <= (1 + ahead) * max(days)
    if tried.times:
        assert present(told.low_nusd) <= told.rest_nusd <= present(told.high_nusd)
        assert present(tried.error) >= abs(present(tried.bias))
    else:
        assert (told.low_nusd, told.high_nusd, tried.error) == (None, None, None)


def test_a_backtest_is_tried_wherever_there_is_enough_before_and_after():
    assert [backtest([1] * days, 3).times for days in (7, 9, 10, 14)] == [0, 0, 1, 5]


def test_less_than_a_week_is_no_basis():
    assert forecast([5] * (LEAST_DAYS - 1), 0, 10) is None


def test_an_error_is_told_as_a_fraction_of_what_came():
    tried = backtest([100] * 7 + [200], 1)  # 100 was foretold, 200 came
    assert (tried.times, tried.error, tried.bias) == (1, 0.5, -0.5)


def test_a_busy_today_counts_as_it_is():
    assert present(forecast([100] * 14, 250, 0)).rest_nusd == 0
    assert present(forecast([100] * 14, 40, 2)).rest_nusd == 260


@given(TOKENS, TOKENS, TOKENS, st.integers(1, 10**6))
def test_the_same_tokens_at_another_price(tokens_in, tokens_out, cached, calls):
    cached = min(cached, tokens_in)
    used = Totals(
        llm_requests=calls, llm_input_tokens=tokens_in, llm_cached_input_tokens=cached, llm_output_tokens=tokens_out
    )
    card = Card(ref="r", rates=Rates(input=150_000, cached_input=75_000, output=600_000))
    assert at_price(card, used) == 150 * (tokens_in - cached) + 75 * cached + 600 * tokens_out


def test_a_price_for_each_call_is_charged_for_each():
    card = Card(ref="r", rates=Rates(input=1_000, output=1_000, request=5_000_000))
    assert at_price(card, Totals(llm_requests=10, llm_input_tokens=100, llm_output_tokens=0)) == 100 + 10 * 5_000


@pytest.mark.parametrize(("calls", "cost"), [(1, 2 * 300_000), (10, 300_000)])
def test_a_price_that_rises_with_length_looks_at_the_mean_call(calls, cost):
    card = Card(ref="r", rates=Rates(input=1_000, output=0), above=((200_000, Rates(input=2_000, output=0)),))
    assert at_price(card, Totals(llm_requests=calls, llm_input_tokens=300_000)) == cost


def test_what_a_card_cannot_price_has_no_price():
    assert at_price(Card(ref="r", rates=Rates(input=1_000)), Totals(llm_requests=1, llm_output_tokens=5)) is None
    assert at_price(Card(ref="r", rates=Rates(), free=True), Totals(llm_requests=1, llm_output_tokens=5)) == 0
