from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core.globs import glob


@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_it_matches_what_fnmatch_matches(pattern, text):
    assert glob(pattern)(text) is fnmatchcase(text, pattern)


@pytest.mark.parametrize("text", ["gpt-4o[1]", "gpt-4o?"])
def test_other_signs_are_themselves(text):
    assert glob("gpt-4o[1]")(text) is (text == "gpt-4o[1]")
    assert glob("*?")(text) is text.endswith("?")


@pytest.mark.parametrize("pattern", ["[" * 60_000, "*a" * 30_000 + "b", "?" * 60_000, "*" * 60_000 + "x"])
def test_no_pattern_takes_more_steps_than_it_has_parts(pattern):
    class Counted(str):
        steps = 0

        def find(self, *args):
            Counted.steps += 1
            return super().find(*args)

    Counted.steps = 0
    assert not glob(pattern)(Counted("a" * 1_000))
    assert Counted.steps <= pattern.count("*")


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [("a", "a", True), ("a", "ab", False), ("a*b*c", "axbxc", True), ("a*b*c", "axxc", False), ("a*a", "a", False)],
)
def test_every_part_must_be_there_in_order(pattern, text, matches):
    assert glob(pattern)(text) is matches
