"""Streams made of lines, at any cut: what is read, what is held, and what the client gets."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.flavors import find
from taximeter.flavors.chat import CHAT, ChatReader
from taximeter.flavors.meter import HELD_LINE_BYTES, Answer, Meter, Prepared

STREAM = Answer(status=200, content_type=b"text/event-stream; charset=utf-8")
REQUEST = b'{"model":"gpt-4o","stream":true,"messages":[]}'
USAGE = b'{"id":"c1","choices":[],"model":"gpt-4o","usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}'


def delta(text: bytes, finish: bytes = b"null") -> bytes:
    return (
        b'{"id":"c1","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"'
        + text
        + b'"},"finish_reason":'
        + finish
        + b'}],"usage":null}'
    )


def metered(*, inject: bool = True, answer: Answer = STREAM) -> Meter:
    prepared = CHAT.prepare(REQUEST, b"/v1/chat/completions", inject=inject)
    assert prepared.injected is inject
    return CHAT.meter(prepared, answer, "openai")


def through(meter: Meter, pieces: list[bytes]) -> bytes:
    return b"".join([meter.feed(piece) for piece in pieces]) + meter.finish()


def cut(whole: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted({place % (len(whole) + 1) for place in at}), len(whole)]
    return [whole[start:end] for start, end in pairwise(places)]


ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
texts = st.sampled_from(
    [b"hi", b"\\u4f60", "你好 😀".encode(), b'\\"usage\\"', b"[DONE]", "a\u2028b".encode(), b"", b"x" * 300]
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A stream with one injected usage event, and the same stream without it."""
    end = draw(ends)
    space = draw(st.sampled_from([b" ", b""]))

    def event(payload: bytes) -> bytes:
        noise = draw(st.sampled_from([b"", b": keep-alive" + end + end, b": a comment" + end, b"id: 4" + end]))
        return noise + b"data:" + space + payload + end + end

    before = b"".join(event(delta(draw(texts))) for _ in range(draw(st.integers(0, 4)))) + event(delta(b"", b'"stop"'))
    usage = b"data:" + space + USAGE + end + end
    tail = draw(st.sampled_from([b"", delta(b"late")]))
    after = (event(tail) if tail else b"") + draw(st.sampled_from([b"", b"data: [DONE]" + end + end, b"data: [DONE]"]))
    bom = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return bom + before + usage + after, bom + before + after


@given(stream=streams(), at=st.lists(st.integers(0, 5000), max_size=12))
def test_the_client_gets_every_byte_but_the_injected_event_at_any_cut(
    stream: tuple[bytes, bytes], at: list[int]
) -> None:
    sent, want = stream
    meter = metered()
    assert through(meter, cut(sent, at)) == want
    reading = meter.reading()
    assert (reading.input_tokens, reading.output_tokens, reading.response_model) == (7, 3, "gpt-4o")
    assert reading.finished


@given(stream=streams())
def test_byte_by_byte_is_as_whole(stream: tuple[bytes, bytes]) -> None:
    sent, want = stream
    assert through(metered(), [sent[i : i + 1] for i in range(len(sent))]) == want


@given(stream=streams(), at=st.lists(st.integers(0, 5000), max_size=12))
def test_where_nothing_was_injected_the_very_same_chunks_come_out(stream: tuple[bytes, bytes], at: list[int]) -> None:
    sent, _ = stream
    meter = metered(inject=False)
    for piece in cut(sent, at):
        assert meter.feed(piece) is piece
    assert meter.finish() == b""
    assert meter.reading().input_tokens == 7


def test_a_chunk_without_usage_is_passed_as_the_same_object_while_an_event_is_awaited() -> None:
    meter = metered()
    for _ in range(3):
        chunk = b"data: " + delta(b"hi") + b"\n\n"
        assert meter.feed(chunk) is chunk


@pytest.mark.parametrize("spaced", [False, True])
def test_a_chunk_whose_usage_is_null_is_not_decoded_however_its_json_is_spaced(
    spaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = metered()
    first, dull = (b"data: " + delta(text) + b"\n\n" for text in (b"a", b"b"))
    usage = b"data: " + USAGE + b"\n\n"
    if spaced:
        dull, usage = dull.replace(b":null", b": null"), usage.replace(b":{", b": {")
    meter.feed(first)
    decoded: list[bytes] = []
    event = ChatReader.event

    def watched(self: ChatReader, data: bytes, name: bytes = b"") -> None:
        decoded.append(data)
        event(self, data, name)

    monkeypatch.setattr(ChatReader, "event", watched)
    meter.feed(dull)
    assert decoded == []
    meter.feed(dull + usage)
    assert meter.reading().output_tokens == 3


@pytest.mark.parametrize("event", [
    USAGE.replace(b'"choices":[]', b'"choices":[{"index":0,"delta":{}}]'),
    USAGE.replace(b"[]", b"[]").replace(b'"usage":{', b'"usage":null,"was":{'),
    b'{"choices":[],"prompt_filter_results":[],"id":"","model":""}',
])  # fmt: skip
def test_an_event_that_is_more_than_the_injected_usage_stays(event: bytes) -> None:
    sent = b"data: " + event + b"\n\ndata: [DONE]\n\n"
    assert through(metered(), [sent]) == sent


def test_usage_beside_choices_is_metered_though_it_stays() -> None:
    event = USAGE.replace(b'"choices":[]', b'"choices":[{"index":0,"delta":{}}]')
    meter = metered()
    through(meter, [b"data: " + event + b"\n\n"])
    assert meter.reading().output_tokens == 3


def test_no_choices_at_all_and_null_choices_are_still_metered() -> None:
    for choices in (b'"choices":null,', b""):
        meter = metered(inject=False)
        through(meter, [b"data: " + USAGE.replace(b'"choices":[],', choices) + b"\n\n"])
        assert meter.reading().input_tokens == 7


def test_an_incomplete_line_is_held_only_while_an_event_is_awaited() -> None:
    half = b"data: " + delta(b"hi")[:40]
    assert metered().feed(half) == b""
    assert metered(inject=False).feed(half) is half


def test_no_more_than_the_bound_is_held() -> None:
    meter = metered()
    line = b'data: {"choices":[{"delta":{"content":"' + b"x" * HELD_LINE_BYTES
    assert meter.feed(line[:1000]) == b""
    assert meter.feed(line[1000:]) == line
    rest = b'"}}]}\n\n'
    assert meter.feed(rest) == rest


def test_what_is_held_at_the_end_reaches_the_client() -> None:
    meter = metered()
    half = b"data: " + delta(b"hi")[:40]
    assert meter.feed(half) + meter.finish() == half


def test_an_injected_event_without_its_line_end_is_taken_out_too() -> None:
    meter = metered()
    assert meter.feed(b"data: " + USAGE) + meter.finish() == b""
    assert meter.reading().input_tokens == 7


def test_the_terminal_event_is_known_with_its_chunk() -> None:
    meter = metered(inject=False)
    meter.feed(b"data: " + delta(b"hi") + b"\n\n")
    assert not meter.terminal
    meter.feed(b"data: [DO")
    assert not meter.terminal
    meter.feed(b"NE]\n")
    assert meter.terminal


def test_usage_after_the_terminal_event_is_metered() -> None:
    meter = metered(inject=False)
    through(meter, [b"data: [DONE]\n\ndata: " + USAGE + b"\n\n"])
    assert meter.reading().input_tokens == 7


def test_a_text_that_says_done_ends_nothing() -> None:
    meter = metered(inject=False)
    meter.feed(b"data: " + delta(b"[DONE]") + b"\n\n")
    assert not meter.terminal
    assert not meter.reading().finished


def test_an_event_over_several_data_lines_is_one_event() -> None:
    pretty = USAGE.replace(b",", b",\ndata: ")
    meter = metered(inject=False)
    through(meter, [b"data: " + pretty + b"\n\n"])
    assert meter.reading().input_tokens == 7


def test_an_error_inside_a_200_stream_fails_the_reading() -> None:
    for event in (
        b'data: {"error":{"message":"x","code":502},"choices":[]}\n\n',
        b'event: error\ndata: {"detail":"x"}\n\n',
    ):
        meter = metered(inject=False)
        through(meter, [b"data: " + delta(b"hi") + b"\n\n", event])
        assert meter.reading().failed


def test_a_json_error_labelled_as_an_event_stream_is_read() -> None:
    meter = metered()
    body = b'{"error":{"message":"no"}}'
    assert through(meter, [body[:9], body[9:]]) == body
    assert meter.reading().failed


def test_events_labelled_as_json_are_read() -> None:
    answer = Answer(status=200, content_type=b"application/json")
    for prepared in (Prepared(body=b"", stream=True), Prepared(body=b"")):
        meter = CHAT.meter(prepared, answer, "openai")
        through(meter, [b"data: " + delta(b"hi") + b"\n\n", b"data: " + USAGE + b"\n\n"])
        assert meter.reading().input_tokens == 7
        assert meter.output().texts == ["hi"]


def test_the_text_of_a_cut_stream_can_be_counted() -> None:
    meter = metered()
    sent = b"".join(b"data: " + delta(b"word ") + b"\n\n" for _ in range(2000))
    through(meter, cut(sent[:-30], list(range(0, len(sent), 700))))
    assert meter.reading().output_tokens is None
    output = meter.output()
    assert "".join(output.texts) == "word " * 1999
    assert not output.truncated
    assert (meter.progress_tokens() or 0) >= 1990


_UNITS = (b'data: {"a":1}\n\n', b"data: x", b"\n", b"\r", b"[" * 500, b'data: {"choices":[\n', b'{"x":')
_PATHS = (b"/chat/completions", b"/v1/messages", b"/v1/responses", b"/api/chat", b"/v2/chat")


@pytest.mark.parametrize("path", _PATHS)
@pytest.mark.parametrize("unit", _UNITS)
def test_memory_stays_bounded_whatever_comes(path: bytes, unit: bytes) -> None:
    flavor = find(b"POST", path)
    prepared = flavor.prepare(b'{"stream":true}', path, inject=True)
    meter = flavor.meter(prepared, STREAM, "openai")
    chunk = unit * (32_000 // len(unit))
    tracemalloc.start()
    try:
        for _ in range(20):
            meter.feed(chunk)
        kept, _ = tracemalloc.get_traced_memory()
        meter.finish()
    finally:
        tracemalloc.stop()
    assert kept < 2_000_000
    assert not meter.reading().reported
