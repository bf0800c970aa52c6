"""Reading close lines of any content: what is not fit for a sink is mended, and never the figures made up."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

import oddities
from ledger import T0
from taximeter.core.bounds import FOREVER_US, MAX_COST_NUSD
from taximeter.core.record import IMPOSSIBLE, SATURATED, Operation, Outcome, Record, Source
from taximeter.core.usage import COUNTS
from taximeter.journal.tail import decode_record

NOTHING: Any = ({}, None, set())


@settings(deadline=None, max_examples=500)
@given(oddities.oddities)
def test_whatever_a_line_holds_makes_a_record_within_all_bounds(odd) -> None:
    found = decode_record(oddities.line(7, odd))
    assert found.event_id == "j1:7"
    again = msgspec.json.decode(
        msgspec.json.encode(msgspec.structs.replace(found, usage=msgspec.Raw(b"null"))), type=Record
    )
    assert again == msgspec.structs.replace(found, usage=msgspec.Raw(b"null"))
    for name in Record.__struct_fields__:
        value = getattr(found, name)
        if isinstance(value, str):
            assert "\0" not in value
            value.encode()
    bytes(found.usage).decode()


@settings(deadline=None)
@given(oddities.oddities)
def test_no_figure_is_made_up(odd) -> None:
    told = json.loads(oddities.line(7, odd).decode("utf-8", "replace"))["close"]
    found = decode_record(oddities.line(7, odd))
    for name in (*COUNTS, "seconds", "total_tokens"):
        figure = getattr(found, name)
        assert figure is None or figure == told[name]
    if found.cost_nusd is not None:
        assert found.cost_nusd == told["cost_nusd"] or found.cost_note == SATURATED


def test_a_usual_line_is_read_as_it_is() -> None:
    line = oddities.line(3, NOTHING)
    assert decode_record(line) == msgspec.json.decode(line, type=dict[str, Record])["close"]


@pytest.mark.parametrize("tokens", [2**40, -1, 10**400, "many", 3.5])
def test_a_figure_that_cannot_be_has_no_cost(tokens: object) -> None:
    found = decode_record(oddities.line(1, ({"input_tokens": tokens, "cost_nusd": 6 * 10**17}, None, set())))
    assert (found.input_tokens, found.output_tokens, found.cost_nusd) == (None, 20, None)
    assert (found.inconsistent, found.cost_note, found.input_source) == (True, IMPOSSIBLE, Source.NONE)
    assert found.output_source is Source.REPORTED


@pytest.mark.parametrize(("told", "kept"), [(2**70, MAX_COST_NUSD), (-(2**70), -MAX_COST_NUSD)])
def test_a_cost_that_cannot_be_is_cut(told: int, kept: int) -> None:
    found = decode_record(oddities.line(1, ({"cost_nusd": told}, None, set())))
    assert (found.cost_nusd, found.cost_note, found.inconsistent) == (kept, SATURATED, True)


@pytest.mark.parametrize(
    ("name", "told", "kept"),
    [
        ("ended_at", 2**62, FOREVER_US - 1),
        ("ended_at", -5, 0),
        ("ended_at", None, T0 - 250_000),
        ("attempt", 40_000, 32_767),
        ("attempt", 0, 1),
        ("track", "a\0b", "ab"),
        ("operation", "video", Operation.OTHER),
        ("outcome", "exploded", Outcome.INTERRUPTED),
        ("duration_ms", 1e300, None),
        ("status", 10**6, None),
        ("tags", {"a": "b", "c": 1}, {"a": "b"}),
    ],
)
def test_other_values_are_brought_within_their_bounds(name: str, told: object, kept: object) -> None:
    assert getattr(decode_record(oddities.line(1, ({name: told}, None, set()))), name) == kept


def test_long_names_stay_distinct() -> None:
    one, other = (decode_record(oddities.line(1, ({"track": "x" * 500 + end}, None, set()))) for end in "ab")
    assert one.track != other.track
    assert len(one.track or "") == len(other.track or "") == 128


def test_what_nests_too_deep_loses_its_usage_object_only() -> None:
    usage = b"[" * 100_000 + b"]" * 100_000
    found = decode_record(oddities.line(1, ({}, usage, set())))
    assert (found.input_tokens, found.cost_nusd, bytes(found.usage)) == (100, 27_000, b"null")


@pytest.mark.parametrize("line", [b"", b"{", b'{"close":1}', b'{"close":{}}', b'{"close":{"event_id":"j1:x"}}', b"[]"])
def test_what_is_no_close_line_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        decode_record(line)
