"""Whole bodies: large ones from their ends, compressed ones without touching them, cut ones as far as they go."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import sys
import tracemalloc
import zlib
from itertools import pairwise

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from answers import known, metered, read, sse
from taximeter.flavors import chat
from taximeter.flavors.dialects import EMBEDDINGS
from taximeter.flavors.framing.body import chosen
from taximeter.flavors.meter import Answer, Prepared

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHAT = "/v1/chat/completions"
BODY = json.dumps(
    {
        "model": "m",
        "choices": [{"message": {"content": "hello"}}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
).encode()
WANT = {"input_tokens": 5, "output_tokens": 2}


def embeddings(inputs: int, *, usage_first: bool = False) -> bytes:
    data = {"data": [{"embedding": [0.0123456789] * 1536, "index": at} for at in range(inputs)]}
    rest = {"usage": {"prompt_tokens": 8 * inputs, "total_tokens": 8 * inputs}, "model": "e"}
    return json.dumps({**rest, **data} if usage_first else {**data, **rest}).encode()


@pytest.mark.parametrize("usage_first", [False, True])
@pytest.mark.parametrize("inputs", [1, 20, 100])
def test_an_embedding_answer_of_any_size_is_metered_in_bounded_memory(inputs: int, usage_first: bool) -> None:
    whole = embeddings(inputs, usage_first=usage_first)
    meter = EMBEDDINGS.meter(Prepared(body=b""), Answer(status=200, content_type=b"application/json"), "openai")
    tracemalloc.start()
    try:
        for at in range(0, len(whole), 16_384):
            meter.feed(whole[at : at + 16_384])
        assert tracemalloc.get_traced_memory()[0] < 600_000
    finally:
        tracemalloc.stop()
    meter.finish()
    reading = meter.reading()
    assert known(reading) == {"input_tokens": 8 * inputs}
    assert (reading.response_model, reading.finished) == ("e", True)


def test_a_body_cut_short_is_not_finished_and_its_text_can_be_counted() -> None:
    meter = metered(CHAT, BODY[:-30])
    assert not meter.reading().finished
    assert meter.output().texts == ["hello"]
    assert meter.output().truncated


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"gzip", gzip.compress(BODY, mtime=0)),
        (b"x-gzip", gzip.compress(BODY[:50], mtime=0) + gzip.compress(BODY[50:], mtime=0)),
        (b"deflate", zlib.compress(BODY)),
        (b"Deflate", zlib.compress(BODY)[2:-4]),
        (b"br", brotli.compress(BODY)),
        (b"zstd", zstd.compress(BODY)),
        (b"zstd", zstd.compress(BODY[:50]) + zstd.compress(BODY[50:])),
        (b"identity", BODY),
    ],
)
def test_an_encoded_answer_is_read_through_its_encoding(encoding: bytes, body: bytes) -> None:
    meter = metered(CHAT, body, headers=[(b"content-encoding", encoding)])
    assert known(meter.reading()) == WANT
    assert meter.output().texts == ["hello"]


ENCODERS = {b"gzip": gzip.compress, b"br": brotli.compress, b"zstd": zstd.compress}


@given(cut=st.integers(1, 200), encoding=st.sampled_from(sorted(ENCODERS)))
def test_an_encoded_stream_is_read_at_any_cut(cut: int, encoding: bytes) -> None:
    whole = ENCODERS[encoding](
        sse({"model": "m", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}, b"[DONE]")
    )
    from taximeter.flavors.chat import CHAT as FLAVOR

    answer = Answer(status=200, content_type=b"text/event-stream", headers=[(b"content-encoding", encoding)])
    meter = FLAVOR.meter(Prepared(body=b"", stream=True, injected=True), answer, "openai")
    for at in range(0, len(whole), cut):
        piece = whole[at : at + cut]
        assert meter.feed(piece) is piece
    assert meter.finish() == b""
    assert known(meter.reading()) == WANT
    assert meter.terminal


@pytest.mark.parametrize("encoding", [b"compress", b"gzip, br", b"nonsense"])
def test_an_encoding_nobody_can_read_leaves_usage_unknown(encoding: bytes) -> None:
    meter = metered(CHAT, BODY, headers=[(b"content-encoding", encoding)])
    assert known(meter.reading()) == {}
    assert meter.output().truncated


@pytest.mark.parametrize("encoding", sorted(ENCODERS))
@pytest.mark.parametrize("body", [b"", b"garbage" * 100])
def test_a_body_that_is_not_encoded_as_it_says_is_unknown(encoding: bytes, body: bytes) -> None:
    meter = metered(CHAT, body, headers=[(b"content-encoding", encoding)])
    assert known(meter.reading()) == {}
    assert meter.feed(body) is body  # and it goes on
    assert known(meter.reading()) == {}


@pytest.mark.parametrize("encoding", sorted(ENCODERS))
def test_a_bomb_is_given_up_before_it_fills_memory(encoding: bytes) -> None:
    bomb = ENCODERS[encoding](b" " * 40_000_000)
    tracemalloc.start()
    try:
        assert known(read(CHAT, bomb, headers=[(b"content-encoding", encoding)])) == {}
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("body", [b"", b" ", b"null", b"[]", b"7", b'"x"', b"{", b"[[[[", b"\xff\xfe", b"{}" * 3])
@pytest.mark.parametrize(
    "path", [CHAT, "/v1/messages", "/v1beta/models/g:generateContent", "/api/chat", "/model/m/invoke"]
)
def test_bodies_that_are_no_answer_are_nothing(path: str, body: bytes) -> None:
    meter = metered(path, body)
    assert known(meter.reading()) == {}
    assert meter.output().texts == []


def test_a_200_that_holds_an_error_failed() -> None:
    assert read(CHAT, {"error": {"message": "x"}}).failed
    assert not read("/v1/responses", {"error": None, "usage": None}).failed


def test_json_lines_labelled_as_json_are_read() -> None:
    body = (
        b'{"model":"l","message":{"content":"hi"},"done":false}\n{"done":true,"prompt_eval_count":2,"eval_count":4}\n'
    )
    meter = metered("/api/chat", body, asked={"stream": False})
    assert known(meter.reading()) == {"input_tokens": 2, "output_tokens": 4}
    assert meter.output().texts == ["hi"]
    assert meter.reading().finished


def test_envelopes_are_looked_into() -> None:
    answer = {"choices": [{"message": {"content": "hi"}}], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    meter = metered(CHAT, {"status": "OK", "data": {"data": answer}})
    assert known(meter.reading()) == WANT
    assert meter.output().texts == ["hi"]


# -- AWS event streams


def frame(payload: bytes, name: bytes = b"chunk", kind: bytes = b":event-type") -> bytes:
    headers = bytes((len(kind),)) + kind + b"\x07" + len(name).to_bytes(2) + name
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    head = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return head + struct.pack(">I", zlib.crc32(head))


def wrapped(event: object) -> bytes:
    return frame(json.dumps({"bytes": base64.b64encode(json.dumps(event).encode()).decode()}).encode())


AWS = b"application/vnd.amazon.eventstream"
CONVERSE = (
    frame(b'{"role":"assistant"}', b"messageStart")
    + frame(b'{"delta":{"text":"hel"}}', b"contentBlockDelta")
    + frame(b'{"delta":{"text":"lo"}}', b"contentBlockDelta")
    + frame(b'{"stopReason":"end_turn"}', b"messageStop")
)
METADATA = frame(
    b'{"usage":{"inputTokens":11,"outputTokens":5,"totalTokens":1280,'
    b'"cacheReadInputTokens":264,"cacheWriteInputTokens":1000}}',
    b"metadata",
)


def test_converse_ends_with_the_metadata_that_carries_its_usage() -> None:
    path = "/model/m/converse-stream"
    assert not metered(path, CONVERSE, content_type=AWS).terminal
    meter = metered(path, CONVERSE + METADATA, content_type=AWS)
    want = {"input_tokens": 1275, "output_tokens": 5, "cached_input_tokens": 264, "cache_write_input_tokens": 1000}
    assert known(meter.reading()) == want
    assert not meter.reading().inconsistent
    assert meter.terminal
    assert meter.output().texts == ["hello"]


def test_invocation_metrics_are_what_is_billed() -> None:
    body = wrapped({"type": "message_start", "message": {"usage": {"input_tokens": 4, "cache_read_input_tokens": 9}}})
    body += wrapped({"type": "message_delta", "usage": {"output_tokens": 130}})
    metrics = {"inputTokenCount": 4, "outputTokenCount": 98}
    body += wrapped({"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics})
    reading = read("/model/claude/invoke-with-response-stream", body, content_type=AWS)
    assert known(reading) == {"input_tokens": 13, "output_tokens": 98, "cached_input_tokens": 9}


def test_models_that_report_nothing_have_their_headers() -> None:
    headers = [(b"x-amzn-bedrock-input-token-count", b"7"), (b"x-amzn-bedrock-output-token-count", b"3")]
    assert known(read("/model/m/invoke", {"completion": "x"}, headers=headers)) == {
        "input_tokens": 7,
        "output_tokens": 3,
    }
    headers = [(b"x-amzn-bedrock-input-token-count", b"many")]
    assert known(read("/model/m/invoke", {"completion": "x"}, headers=headers)) == {}


def test_an_agents_model_calls_are_summed() -> None:
    def trace(into: int, out: int) -> bytes:
        used = {"modelInvocationOutput": {"metadata": {"usage": {"inputTokens": into, "outputTokens": out}}}}
        return frame(json.dumps({"trace": {"orchestrationTrace": used}}).encode(), b"trace")

    body = trace(10, 1) + trace(20, 2) + frame(json.dumps({"bytes": base64.b64encode(b"Hi!").decode()}).encode())
    meter = metered("/agents/a/agentAliases/b/sessions/c/text", body, content_type=AWS)
    assert known(meter.reading()) == {"input_tokens": 30, "output_tokens": 3}
    assert meter.output().texts == ["Hi!"]


@given(at=st.lists(st.integers(0, len(CONVERSE + METADATA)), max_size=10), junk=st.binary(max_size=40))
def test_frames_are_read_at_any_cut_and_garbage_ends_the_reading(at: list[int], junk: bytes) -> None:
    from taximeter.flavors.bedrock import CONVERSE as FLAVOR

    whole = CONVERSE + METADATA + junk
    meter = FLAVOR.meter(Prepared(body=b""), Answer(status=200, content_type=AWS), "bedrock")
    places = [0, *sorted(set(at)), len(whole)]
    for start, end in pairwise(places):
        meter.feed(whole[start:end])
    meter.finish()
    assert meter.reading().input_tokens == 1275


def test_an_exception_frame_fails_the_reading() -> None:
    body = CONVERSE + frame(b'{"message":"slow down"}', b"throttlingException", b":exception-type")
    assert read("/model/m/converse-stream", body, content_type=AWS).failed


def test_frames_with_bad_base64_or_of_great_length_are_passed_over() -> None:
    body = frame(b'{"bytes":"AA"}') + frame(b'{"bytes":7}') + frame(b'{"pad":"' + b"x" * 300_000 + b'"}') + METADATA
    assert read("/model/m/converse-stream", body, content_type=AWS).input_tokens == 1275


def test_cache_writes_of_converse_are_told_apart_by_their_time() -> None:
    usage = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 32, "cacheWriteInputTokens": 30, "cacheDetails": [
        {"ttl": "5m", "inputTokens": 10}, {"ttl": "1h", "inputTokens": 20}, {"ttl": "?"}]}  # fmt: skip
    reading = read("/model/m/converse", {"usage": usage})
    assert (reading.cache_write_input_tokens_5m, reading.cache_write_input_tokens_1h) == (10, 20)


def test_legacy_completions_without_output_and_native_ones() -> None:
    want = {"input_tokens": 4, "output_tokens": 0}
    assert known(read("/v1/completions", {"usage": {"prompt_tokens": 4, "total_tokens": 4}})) == want
    assert known(read("/completion", {"tokens_evaluated": 4, "tokens_predicted": 2})) == {**want, "output_tokens": 2}


def test_a_sniffing_meter_is_left_out_once_it_knows_what_comes():
    prepared, answer = Prepared(body=b"", stream=True), Answer(status=200, content_type=b"text/event-stream")
    event = b'data: {"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}\n\n'
    meter = chat.CHAT.meter(prepared, answer, "openai")
    meter.feed(b"\r\n")
    assert chosen(meter) is meter  # blank lines say nothing
    meter.feed(event)
    rest = chosen(meter)
    assert rest is not meter and chosen(rest) is rest
    rest.feed(b"data: [DONE]\n\n")
    assert rest.terminal and rest.reading().input_tokens == 3
