"""What two sides say of the same places, and how far apart they are."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.reconcile.rule import (
    DAY_S,
    FIGURES,
    Cell,
    Figures,
    Ours,
    Place,
    by_model,
    cells,
    compare,
    days,
    last_due_us,
    settled,
    state,
    worst,
)

DAY, NEXT = "2026-11-03", "2026-11-04"
MIDNIGHT_US = 1_793_664_000_000_000


def one(compared, figure):
    return next(each for each in compared if each.figure == figure)


def test_what_passed_elsewhere_is_exactly_what_is_missing():
    found = cells(
        {Place(DAY, "m"): Figures(output_tokens=100), Place(DAY, "other"): Figures(output_tokens=50)},
        {Place(DAY, "m"): Ours(output_tokens=99)},
    )
    told = one(compare(found), "output_tokens")
    assert (told.ours, told.theirs, told.difference, told.never_passed) == (99, 150, -51, 51)
    assert (told.ratio, told.coverage) == (51 / 150, 99 / 150)


def test_a_day_earlier_is_no_difference_but_another_model_is():
    day_apart = cells({Place(DAY, "m"): Figures(7)}, {Place(NEXT, "m"): Ours(7)})
    assert one(compare(day_apart), "input_tokens").ratio == 0
    models_apart = cells({Place(DAY, "m"): Figures(7)}, {Place(DAY, "n"): Ours(7)})
    told = one(compare(models_apart), "input_tokens")
    assert (told.difference, told.ratio) == (0, 1.0)


def test_what_is_not_known_here_is_shown_apart_and_never_zero():
    found = cells(
        {Place(DAY, "m"): Figures(100), Place(NEXT, "m"): Figures(30)},
        {Place(DAY, "m"): Ours(100), Place(NEXT, "m"): Ours(None, unknown_requests=3)},
    )
    told = one(compare(found), "input_tokens")
    assert (told.ours, told.theirs, told.difference, told.not_known, told.ratio, told.coverage) == (
        100, 100, 0, 30, 0.0, 1.0,
    )  # fmt: skip
    (merged,) = by_model(found)
    assert merged.ours is not None and merged.theirs is not None
    assert (merged.ours.input_tokens, merged.ours.unknown_requests, merged.theirs.input_tokens) == (100, 3, 130)


def test_places_of_calls_that_used_nothing_are_left_out_but_unknown_ones_are_not():
    mine = {Place(DAY, "failed"): Ours(0, 0, 0, 4), Place(DAY, "unknown"): Ours(unknown_requests=1)}
    assert [cell.model for cell in cells({}, mine)] == ["unknown"]


def test_a_figure_that_they_tell_nowhere_is_not_compared():
    found = cells({Place(DAY, "m"): Figures(1)}, {Place(DAY, "m"): Ours(1, 2, 3, cost_nusd=9)})
    assert [each.figure for each in compare(found)] == ["input_tokens"]
    assert compare([Cell(DAY, "m", "", Ours(unknown_requests=1), None)]) == [] and state([], (), 0.0) == "nothing"


def test_a_provider_that_tells_nothing_of_what_we_have_differs():
    found = compare([Cell(DAY, "m", "", Ours(7, 0, cost_nusd=9), None)])
    assert [(each.figure, each.ours, each.theirs, each.ratio) for each in found] == [
        ("input_tokens", 7, 0, 1.0), ("cost_nusd", 9, 0, 1.0),
    ]  # fmt: skip
    assert state(found, (), 0.5) == "differs"


def test_where_nothing_is_known_of_all_they_tell_nothing_was_compared():
    found = compare([Cell(DAY, "m", "", Ours(unknown_requests=1), Figures(7))])
    assert (state(found, (), 0.0), [each.not_known for each in found]) == ("nothing", [7])


def test_a_credit_is_no_more_than_all_apart_and_covers_nothing():
    found = cells(
        {Place(DAY, "m"): Figures(cost_nusd=10), Place(DAY, "credits"): Figures(cost_nusd=-500)},
        {Place(DAY, "m"): Ours(cost_nusd=8), Place(DAY, "credits"): Ours(cost_nusd=1)},
    )
    told = one(compare(found), "cost_nusd")
    assert (told.theirs, told.apart, told.larger, told.coverage) == (-490, 503, 511, 0.8)


def test_only_what_is_judged_decides():
    found = compare(
        cells({Place(DAY, "m"): Figures(10, output_tokens=5)}, {Place(DAY, "m"): Ours(10, output_tokens=4)})
    )
    assert (state(found, (), 0.1), state(found, ("input_tokens",), 0.1), state(found, (), 0.2)) == (
        "differs", "agrees", "agrees",
    )  # fmt: skip
    furthest = worst(found)
    assert furthest is not None and furthest.figure == "output_tokens"


figures = st.none() | st.integers(0, 10**6)
places = st.builds(Place, st.sampled_from((DAY, NEXT)), st.sampled_from("abc"), st.sampled_from(("", "k")))


@given(st.dictionaries(places, figures), st.dictionaries(places, figures))
def test_parts_make_up_the_whole(theirs, mine):
    found = cells(
        {place: Figures(input_tokens=value) for place, value in theirs.items()},
        {place: Ours(input_tokens=value, unknown_requests=1) for place, value in mine.items()},
    )
    for told in compare(found):
        assert told.theirs + told.not_known == sum(value or 0 for value in theirs.values())
        assert told.ours == sum(value or 0 for value in mine.values())
        more = told.apart - told.never_passed
        assert told.ours - told.theirs == more - told.never_passed
        assert told.larger == told.theirs + more and 0 <= told.ratio <= 1
        assert told.coverage is None or Fraction(told.theirs - told.never_passed, told.theirs) >= 0
    same = cells(
        {place: Figures(input_tokens=value) for place, value in mine.items()},
        {place: Ours(input_tokens=value) for place, value in mine.items()},
    )
    assert all(each.apart == 0 for each in compare(same))


@pytest.mark.parametrize(
    ("hours", "lag_s", "last"),
    [(6, 3_600 * 6, "2026-11-02"), (5.9, 3_600 * 6, "2026-11-01"), (6, 0, "2026-11-02")],
)
def test_a_day_is_compared_once_it_is_over_for_long_enough(hours, lag_s, last):
    first_s, end_s = settled(MIDNIGHT_US + int(hours * 3.6e9), lag_s, 3)
    assert list(days(first_s, end_s))[-1] == last and end_s - first_s == 3 * DAY_S


def test_it_is_due_daily():
    six = MIDNIGHT_US + 6 * 3_600_000_000
    assert last_due_us(six, "06:00") == six and last_due_us(six - 1, "06:00") == six - DAY_S * 1_000_000


def test_every_figure_has_a_place_on_both_sides():
    assert set(FIGURES) < set(Figures.__struct_fields__) < set(Ours.__struct_fields__)
