from statistics import quantiles

from hypothesis import given
from hypothesis import strategies as st

from taximeter.core.latency import BOUNDS_MS, PERCENTILES, STEPS, of_histogram, of_values, step

MS = st.floats(0, 3_000_000, allow_nan=False)


def test_there_are_two_steps_to_a_doubling_from_8_ms_to_17_minutes():
    assert (BOUNDS_MS[0], BOUNDS_MS[2], BOUNDS_MS[-1], STEPS) == (8.0, 16.0, 1_048_576.0, 36)
    assert [step(ms) for ms in (0, 8, 8.01, 16, 1_048_576, 1_048_577)] == [0, 0, 1, 2, 34, 35]


def test_a_percentile_is_one_of_the_values():
    assert [of_values([1, 2, 3, 4], each) for each in (50, 95, 99)] == [2, 4, 4]
    assert of_values([], 50) is None and of_values([7], 99) == 7
    hundred = [float(each) for each in range(1, 101)]
    assert [of_values(hundred, each) for each in PERCENTILES] == [50, 95, 99]
    assert 50 <= quantiles(hundred, n=2)[0] <= 51


@given(st.lists(MS, min_size=1, max_size=200), st.sampled_from(PERCENTILES))
def test_a_percentile_of_the_histogram_is_in_the_step_of_the_exact_one(values, percentile):
    counts = [0] * STEPS
    for ms in values:
        counts[step(ms)] += 1
    exact, told = of_values(sorted(values), percentile), of_histogram(counts, percentile)
    assert exact is not None and told is not None
    at = step(exact)
    low, high = (0.0, *BOUNDS_MS)[at], (*BOUNDS_MS, BOUNDS_MS[-1])[at]
    assert low <= told <= high


def test_of_nothing_there_is_no_percentile():
    assert of_histogram([0] * STEPS, 50) is None
