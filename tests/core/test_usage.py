"""What is believed of a reading."""

from __future__ import annotations

import pytest

from taximeter.core.usage import COUNTS, MAX_COUNT, MAX_SECONDS, Reading, believable


@pytest.mark.parametrize("name", [*COUNTS, "seconds"])
def test_a_figure_no_call_can_have_is_unknown_and_said_to_be(name: str) -> None:
    most = MAX_SECONDS if name == "seconds" else MAX_COUNT
    fine = Reading()
    setattr(fine, name, most)
    assert believable(fine) is fine
    assert (getattr(fine, name), fine.inconsistent, fine.impossible) == (most, False, False)
    odd = believable(Reading(input_tokens=3, output_tokens=4) if name == "seconds" else Reading())
    setattr(odd, name, most + 1)
    assert believable(odd) is odd
    assert (getattr(odd, name), odd.inconsistent, odd.impossible) == (None, True, True)


def test_every_count_is_looked_at() -> None:
    numbers = {name for name, kind in Reading.__annotations__.items() if kind == "int | None"}
    assert numbers == {*COUNTS, "upstream_cost_nusd"}


def test_what_was_promised_or_cannot_be_is_not_counted_here() -> None:
    told = [Reading(), Reading(impossible=True), Reading(deferred="batch_1")]
    assert [each.uncounted for each in told] == [False, True, True]
