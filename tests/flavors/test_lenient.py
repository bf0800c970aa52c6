"""One reading of a body, however it is spelled: the same as the most lenient provider's, or none."""

from __future__ import annotations

import contextlib
import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.flavors.text.lenient import MOST_MEMBERS, Unreadable, plain, unambiguous

texts = st.text(st.characters(exclude_categories=()))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


def cleaned(value: object) -> object:
    """What a lenient provider sees: U+FFFD for half a character, a word for a number that is none."""
    if isinstance(value, str):
        return "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if isinstance(value, dict):
        return {cleaned(name): cleaned(item) for name, item in value.items()}
    return value


@given(st.dictionaries(st.text(max_size=8), values, max_size=4), st.sampled_from(ENCODINGS), st.booleans())
def test_every_spelling_of_a_value_is_read_as_that_value(value, encoding, ascii_only):
    halved = cleaned(value) != value  # half a character can be written as an escape only
    body = json.dumps(value, ensure_ascii=ascii_only or halved).encode(encoding)
    assert unambiguous(plain(body)) == cleaned(value)
    assert msgspec.json.decode(plain(body)) == cleaned(value)


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (rb'{"model": "m", "x": "\ud83d"}', {"model": "m", "x": "\ufffd"}),
        (b'\xef\xbb\xbf{"model": "m"}', {"model": "m"}),
        (b'{"model": "m", "x": "\xff"}', {"model": "m", "x": "\ufffd"}),
        (b'{"model": "m", "x": [NaN, -Infinity, 1e999]}', {"model": "m", "x": ["NaN", "-Infinity", "Infinity"]}),
        ('{"model": "m"}'.encode("utf-16"), {"model": "m"}),
        (rb'{"mod\u0065l": "m"}', {"model": "m"}),
    ],
)
def test_what_lenient_providers_read_is_read(body, read):
    assert unambiguous(plain(body)) == read


def test_usual_json_is_left_as_it_is():
    body = b'{ "model" : "m", "temperature": 1.50 }'
    assert plain(body) is body


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b'{"model": "m"} {"model": "n"}', "Extra data"),
        (b'{"model": "m",}', "not JSON"),
        (b'{"model": "m" /* one */}', "not JSON"),
        (b"{'model': 'm'}", "not JSON"),
        (b'{"model": "a\x00b"}', "not JSON"),
        (b'{"x": NaN, "model": "m", "model": "n"}', "more than one 'model'"),
        (b"[" * 100_000, "nests too deep"),
        (b'{"a":' * 100_000, "nests too deep"),
        (b'{"n": NaN, "max_tokens": ' + b"9" * 5_000 + b"}", "cannot be read"),
    ],
)
def test_what_no_provider_reads_is_said_to_be_unreadable(body, why):
    with pytest.raises(Unreadable, match=why):
        plain(body)


@pytest.mark.parametrize("body", [b'{"a": 1, "a": 1}', b'{"x": {"n": 1, "n": 2}}', rb'{"n": 1, "\u006e": 2}'])
def test_a_member_given_twice_is_no_unambiguous_reading(body):
    with pytest.raises(Unreadable, match="more than one"):
        unambiguous(plain(body))


def test_a_body_of_very_many_members_is_not_looked_through():
    few, many = ({f"m{number}": 1 for number in range(count)} for count in (MOST_MEMBERS, MOST_MEMBERS + 1))
    assert unambiguous(json.dumps(few).encode()) == few
    with pytest.raises(Unreadable, match="100,000 members"):
        unambiguous(json.dumps({"x": [many]}).encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    with contextlib.suppress(Unreadable):
        msgspec.json.decode(plain(body))
