"""The estimate from bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.gateway.metering.estimate import estimated_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("four", 1),
        ("fives", 2),
        ("你好世界", 4),
        ("日本語です。", 6),
        ("한국어", 3),
        ("hello 世界", 2 + 2),
        ("Привет", 3),
        ("\ud800", 1),
    ],
)
def test_a_cjk_character_is_a_token_and_four_other_bytes_are(text: str, tokens: int) -> None:
    assert estimated_tokens(text) == tokens


@settings(deadline=None)
@given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)))
def test_a_text_is_never_nothing_and_more_text_never_less(text: str, more: str) -> None:
    assert (estimated_tokens(text) > 0) == bool(text)
    assert (
        estimated_tokens(text) <= estimated_tokens(text + more) <= len((text + more).encode("utf-8", "surrogatepass"))
    )
