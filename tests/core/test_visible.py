"""No character that moves a cursor, ends a line or turns the reading order is left; nothing else changes."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core.visible import visible, visible_json

UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
TEXTS = st.text(st.characters(codec=None))


def test_every_character_of_the_unseen_categories_is_spelled_out() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if unicodedata.category(character) in UNSEEN:
            assert visible(character).isascii() and visible(character).isprintable(), hex(code)


@pytest.mark.parametrize(
    "text, shown",
    [
        ("gpt-4o", "gpt-4o"),
        ("größer 日本語 🙂 é", "größer 日本語 🙂 é"),
        ("a\nb\r\n\tc", r"a\nb\r\n\tc"),
        ("\x1b[31mred\x9b0m\x7f", r"\x1b[31mred\x9b0m\x7f"),
        ("\u202eevil\u2066x\u2069\u2028\u2029\ufeff\u200d", r"\u202eevil\u2066x\u2069\u2028\u2029\ufeff\u200d"),
        ("\ud800\U000e0041", r"\ud800\U000e0041"),
        ("C:\\new", "C:\\new"),
    ],
)
def test_what_is_odd_is_spelled_out_and_the_rest_stays(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(TEXTS)
def test_shown_text_is_one_line_and_showing_it_again_changes_nothing(text: str) -> None:
    shown = visible(text)
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(each) in UNSEEN for each in shown)
    assert visible(shown) == shown


@given(st.dictionaries(st.text(), st.text() | st.integers()))
def test_a_shown_json_document_means_the_same(value: dict[str, object]) -> None:
    document = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
    shown = visible_json(document)
    assert json.loads(shown) == value
    assert not any(unicodedata.category(each) in UNSEEN for each in shown.replace("\n", ""))
