"""Members of a body that is too long to be kept: found wherever they stand, however the body is cut."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core.usage import Reading
from taximeter.flavors import find
from taximeter.flavors.framing.scan import TopMembers
from taximeter.flavors.meter import Answer, Prepared

_texts = st.sampled_from(["", "usage", '"usage": {"prompt_tokens": 1}', "\\", '\\"', 'é"', "x" * 300, "{[", "]}"])
_values = st.recursive(
    st.none() | st.integers() | _texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["usage", "model", "a", "q" * 90, 'x"y']), inner, max_size=3)
    ),
    max_leaves=12,
)
_members = st.dictionaries(st.sampled_from(["a", "b", 'c"', "d\\", "e" * 90]), _values, max_size=4)


def _cut(body: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at, turn = [], 0, 0
    while at < len(body):
        size = sizes[turn % len(sizes)]
        pieces.append(body[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


@given(
    before=_members,
    after=_members,
    usage=st.dictionaries(st.sampled_from(["p", "q"]), st.integers(0, 10**9) | _texts, min_size=1),
    model=st.none() | st.sampled_from(["gpt-5", 'm"', "\\"]),
    indent=st.none() | st.just(1),
    escaped=st.booleans(),
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=5),
)
def test_top_members_are_found_however_the_body_is_cut(
    before: dict[str, object],
    after: dict[str, object],
    usage: dict[str, object],
    model: str | None,
    indent: int | None,
    escaped: bool,
    sizes: list[int],
) -> None:
    told: dict[str, object] = {**before, "usage": usage, **({} if model is None else {"model": model}), **after}
    scan = TopMembers(("usage", "model"), 10_000)
    for piece in _cut(json.dumps(told, indent=indent, ensure_ascii=escaped).encode(), sizes):
        scan.feed(piece)
    found = scan.found()
    assert set(found) == told.keys() & {"usage", "model"}
    for name, piece in found.items():
        assert json.JSONDecoder().raw_decode(piece.decode())[0] == told[name]


def test_of_a_value_no_more_than_a_piece_is_kept() -> None:
    scan = TopMembers(("usage",), 16)
    for piece in _cut(json.dumps({"usage": {"text": "x" * 1_000}, "a": ["y" * 1_000]}).encode(), [7]):
        scan.feed(piece)
    assert scan.found() == {"usage": b'{"text": "xxxxxx'}


def _reading(body: bytes, size: int) -> Reading:
    meter = find(b"POST", b"/v1/chat/completions").meter(
        Prepared(body=b""), Answer(status=200, content_type=b"application/json"), "openai"
    )
    for piece in _cut(body, [size]):
        assert meter.feed(piece) is piece
    meter.finish()
    return meter.reading()


def test_usage_between_large_choices_and_large_logprobs_is_read() -> None:
    usage = {"prompt_tokens": 9_000, "completion_tokens": 5_000, "total_tokens": 14_000}
    told = {
        "id": "chatcmpl-1",
        "choices": [{"message": {"content": 'said "usage": {"prompt_tokens": 1} ' * 20_000, "usage": {"a": 1}}}],
        "model": "gpt-5",
        "usage": usage,
        "service_tier": "flex",
        "prompt_logprobs": [{"1": {"logprob": -0.1, "decoded_token": '"'}, "usage": {"prompt_tokens": 2}}] * 20_000,
    }
    body = json.dumps(told).encode()
    for size in (1_021, 65_536, len(body)):
        reading = _reading(body, size)
        assert (reading.input_tokens, reading.output_tokens) == (9_000, 5_000)
        assert (reading.response_model, reading.upstream_request_id) == ("gpt-5", "chatcmpl-1")
        assert reading.service_tier == "flex"
        assert reading.finished
        assert msgspec.json.decode(reading.usage) == usage


def test_a_member_that_is_longer_than_is_kept_says_nothing() -> None:
    told = {"choices": ["x" * 300_000], "usage": {"prompt_tokens": 1, "odd": "y" * 20_000}, "z": ["w" * 200_000]}
    reading = _reading(json.dumps(told).encode(), 65_536)
    assert (reading.input_tokens, reading.finished) == (None, True)
