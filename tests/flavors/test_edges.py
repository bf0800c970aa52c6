"""What answers and requests hold now and then: read by its rule, wherever else the same rule has its tests."""

from __future__ import annotations

import gzip
import json
import struct
import zlib

import pytest

from answers import known, metered, read, sse
from taximeter.flavors import find
from taximeter.flavors.chat import CHAT as CHAT_FLAVOR
from taximeter.flavors.meter import HELD_LINE_BYTES, Answer, Prepared
from taximeter.flavors.text.lenient import Unreadable, plain, unambiguous
from taximeter.flavors.text.splice import include_usage
from taximeter.flavors.usage.counts import duration_s, encode

CHAT = "/v1/chat/completions"
STREAM = b"text/event-stream"
AWS = b"application/vnd.amazon.eventstream"
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}


def test_a_titan_answer_is_the_sum_of_its_results() -> None:
    body = {"inputTextTokenCount": 5, "results": [{"tokenCount": 3}, {"tokenCount": 4}]}
    assert known(read("/model/amazon.titan-text-express-v1/invoke", body)) == {"input_tokens": 5, "output_tokens": 7}


def test_a_choice_without_usage_hides_no_other_choices() -> None:
    body = {"model": "m", "choices": [{"usage": None, "text": '"usage"'}, {"usage": USAGE}]}
    assert known(read(CHAT, body)) == {"input_tokens": 3, "output_tokens": 1}


def test_coheres_last_event_repeats_nothing_and_tools_are_named() -> None:
    events = sse(
        {"event_type": "text-generation", "text": "one"},
        {"event_type": "tool-calls-generation", "tool_calls": [{"name": "look"}]},
        {"event_type": "stream-end", "text": "one"},
    )
    texts = metered("/v1/chat", events, content_type=STREAM).output().texts
    assert "".join(texts) == "onelook"


def test_what_claude_writes_is_found_whole_and_at_a_blocks_start() -> None:
    whole = {"type": "message", "content": [{"type": "text", "text": "hello"}]}
    assert metered("/v1/messages", whole).output().texts == ["hello"]
    events = sse({"type": "content_block_start", "content_block": {"type": "text", "text": "begun"}})
    assert metered("/v1/messages", events, content_type=STREAM).output().texts == ["begun"]


def test_an_encoded_path_names_its_model_too() -> None:
    path = b"/openai/%64eployments/gpt-4o/chat/completions"
    assert find(b"POST", path).path_model(path) == "gpt-4o"


def test_an_answer_whose_head_tells_more_is_not_read_the_quick_way() -> None:
    body = json.dumps({"id": "x", "model": "m", "choices": [], "usage": USAGE}).encode()
    head = Answer(status=200, content_type=b"application/json")
    encoded = Answer(status=200, content_type=b"application/json", headers=[(b"content-encoding", b"gzip")])
    assert CHAT_FLAVOR.whole(Prepared(body=b""), head, "openai", body) is not None
    assert CHAT_FLAVOR.whole(Prepared(body=b""), encoded, "openai", body) is None


@pytest.mark.parametrize("encoding", [b"", b"gzip", b"x"])
def test_a_body_tells_no_progress_and_its_end_is_read_once(encoding: bytes) -> None:
    headers = [(b"content-encoding", encoding)] if encoding else []
    body = json.dumps({"model": "m", "usage": USAGE}).encode()
    flavor = find(b"POST", CHAT.encode())
    answer = Answer(status=200, content_type=b"application/json", headers=headers)
    meter = flavor.meter(flavor.prepare(b"{}", CHAT.encode(), inject=False), answer, "openai")
    meter.feed(gzip.compress(body) if encoding == b"gzip" else body)
    assert meter.progress_tokens() is None
    assert meter.finish() == meter.finish() == b""
    assert meter.reading().input_tokens == (None if encoding == b"x" else 3)


def test_a_line_too_long_to_be_held_passes_as_it_comes() -> None:
    flavor = find(b"POST", CHAT.encode())
    prepared = flavor.prepare(b'{"stream":true}', CHAT.encode(), inject=True)
    meter = flavor.meter(prepared, Answer(status=200, content_type=STREAM), "openai")
    piece = b"x" * (HELD_LINE_BYTES // 2)
    sent = [b"data: " + piece, piece, piece, piece, b"\n\n"]
    assert b"".join([*map(meter.feed, sent), meter.finish()]) == b"".join(sent)


def test_a_long_comment_says_nothing_and_blank_lines_are_no_events() -> None:
    long = b": " + b"x" * 3_000_000 + b"\n\n"
    assert known(read(CHAT, long + sse({"choices": [], "usage": USAGE}), content_type=STREAM)) == {
        "input_tokens": 3, "output_tokens": 1,
    }  # fmt: skip
    lines = b'\n{"model":"m","done":false}\n\n{"done":true,"prompt_eval_count":3,"eval_count":1}\n'
    reading = read("/api/chat", lines, content_type=b"application/x-ndjson")
    assert known(reading) == {"input_tokens": 3, "output_tokens": 1}


def test_a_long_json_line_is_read_at_its_ends() -> None:
    line = {"model": "m", "response": "x" * 3_000_000, "done": True, "prompt_eval_count": 3, "eval_count": 1}
    reading = read("/api/generate", json.dumps(line).encode() + b"\n", content_type=b"application/x-ndjson")
    assert reading.response_model == "m"


def test_a_runs_own_object_has_its_usage_and_a_messages_has_none() -> None:
    run = {"object": "thread.run", "id": "run_1", "model": "m", "usage": USAGE}
    assert known(read("/v1/threads/t/runs", run)) == {"input_tokens": 3, "output_tokens": 1}
    assert known(read("/v1/threads/t/runs", {**run, "object": "thread.message"})) == {}


@pytest.mark.parametrize(
    ("results", "found"),
    [([{"input_token_count": 3}], {"input_tokens": 3}), ([{"generated_token_count": 2}], {"output_tokens": 2})],
)
def test_a_generation_that_counts_one_side_leaves_the_other_unknown(results: object, found: dict[str, int]) -> None:
    assert known(read("/ml/v1/text/generation", {"results": results})) == found


@pytest.mark.parametrize(
    "usage",
    [{"inputTokens": 3, "outputTokens": 1}, {"promptTokenCount": 3, "candidatesTokenCount": 1}],
)
def test_where_nobody_knows_the_api_the_names_of_a_usage_object_tell(usage: dict[str, int]) -> None:
    assert known(read("/v9/new/thing", {"usage": usage})) == {"input_tokens": 3, "output_tokens": 1}


def test_a_usage_object_of_nulls_reports_nothing_and_takes_nothing_back() -> None:
    nulls = {"prompt_tokens": None, "completion_tokens": None}
    events = sse({"usage": USAGE, "choices": []}, {"usage": nulls, "choices": []})
    assert known(read(CHAT, events, content_type=STREAM)) == {"input_tokens": 3, "output_tokens": 1}


def test_what_nests_too_deep_is_refused_or_left_out() -> None:
    with pytest.raises(Unreadable, match="nests too deep"):
        unambiguous(plain(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"))
    with pytest.raises(Unreadable, match="nests too deep"):
        unambiguous(b"[" * 100_000 + b"]" * 100_000)
    deep: object = "x"
    for _ in range(10_000):
        deep = [deep]
    assert encode(deep) == b"null"
    nested: object = "never read"
    for _ in range(200):
        nested = [nested]
    counted = find(b"POST", b"/v1/messages").input(json.dumps({"messages": nested}).encode())
    assert "never read" not in "".join(counted.texts)


@pytest.mark.parametrize("value", [True, -1, float("nan"), "3s", "-1", "", "1e3", None])
def test_a_duration_is_a_number_from_nought_on(value: object) -> None:
    assert duration_s(value) is None
    assert (duration_s(2), duration_s(0.5), duration_s("2.95")) == (2.0, 0.5, 2.95)


def test_usage_is_asked_for_once_and_only_where_the_body_has_a_place_for_it() -> None:
    def prepared(body: bytes) -> Prepared:
        return CHAT_FLAVOR.prepare(body, CHAT.encode(), inject=True)

    asks = b'{"stream":true,"stream_options":{"include_usage":true}}'
    assert (prepared(asks).body, prepared(asks).injected) == (asks, False)
    inner = b'{"include_usage":false}'
    hidden = b'{"stream":true,"a":[' + b",".join([b'{"stream_options":' + inner + b"}"] * 9) + b"],"
    many = hidden + b'"stream_options":' + inner + b"}"
    assert (prepared(many).body, prepared(many).injected) == (many, False)  # each place tried costs a decoding
    few = b'{"stream":true,"a":{"stream_options":' + inner + b'},"stream_options":' + inner + b"}"
    assert prepared(few).injected
    assert json.loads(prepared(few).body) == {
        "stream": True, "a": {"stream_options": {"include_usage": False}}, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_a_trace_of_what_an_agent_was_asked_has_no_usage_and_names_the_model() -> None:
    asked = {"modelInvocationInput": {"foundationModel": "claude"}}
    used = {"modelInvocationOutput": {"metadata": {"usage": {"inputTokens": 3, "outputTokens": 1}}}}
    lines = [{"trace": {"orchestrationTrace": each}} for each in (asked, used)]
    body = b"".join(map(frame, lines))
    reading = read("/agents/a/agentAliases/b/sessions/c/text", body, content_type=AWS)
    assert (known(reading), reading.response_model) == ({"input_tokens": 3, "output_tokens": 1}, "claude")


def frame(event: object) -> bytes:
    """An event of AWS' event stream, without headers."""
    payload = json.dumps(event).encode()
    prelude = struct.pack(">II", len(payload) + 16, 0)
    prelude += struct.pack(">I", zlib.crc32(prelude))
    return prelude + payload + struct.pack(">I", zlib.crc32(prelude + payload))


def test_a_framed_streams_progress_is_the_reported_figure_else_an_events_token() -> None:
    path = "/model/m/converse-stream"
    told = frame({"delta": {"text": "one"}}) + frame({"delta": {"text": "two"}})
    assert metered(path, told, content_type=AWS).progress_tokens() == 2
    usage = frame({"usage": {"inputTokens": 3, "outputTokens": 7, "totalTokens": 10}})
    assert metered(path, told + usage, content_type=AWS).progress_tokens() == 7


def test_a_stream_labelled_as_json_has_progress_as_a_stream_has() -> None:
    events = sse(*({"choices": [{"delta": {"content": word}}]} for word in "abc"))
    assert metered(CHAT, events, asked={"stream": True}).progress_tokens() == 3
    assert known(read(CHAT, b"\n\n", asked={"stream": True})) == {}  # nothing came that could be told apart


def test_what_a_tool_of_responses_made_is_no_output_text() -> None:
    said = {"type": "message", "content": [{"type": "output_text", "text": "here"}]}
    made = {"type": "image_generation_call", "result": "aGVsbG8="}
    assert metered("/v1/responses", {"output": [said, made]}).output().texts == ["here"]


def test_a_body_that_does_not_begin_as_an_object_gets_no_member() -> None:
    assert include_usage(b"\xef\xbb\xbf{}", b"") is None
    assert include_usage(b"{}", b"") == b'{"stream_options":{"include_usage":true}}'


def test_a_line_without_end_is_not_kept_whole() -> None:
    meter = metered(CHAT, b'data: {"choices":[{"delta":{"content":"' + b"x" * 600_000, content_type=STREAM)
    assert meter.output().truncated


def test_usage_is_looked_for_in_three_envelopes_and_no_deeper() -> None:
    within: object = {"usage": USAGE}
    for _ in range(3):
        within = {"data": within}
    assert known(read(CHAT, within)) == {"input_tokens": 3, "output_tokens": 1}
    assert known(read(CHAT, {"data": within})) == {}


def test_an_empty_usage_object_at_the_end_of_a_long_body_hides_none_before_it() -> None:
    body = b'{"pad":"' + b"x" * 3_000_000 + b'","usage":' + json.dumps(USAGE).encode() + b',"last":{"usage":{}}}'
    assert known(read(CHAT, body)) == {"input_tokens": 3, "output_tokens": 1}


def test_details_told_again_are_what_was_told_last() -> None:
    usages = [{**USAGE, "prompt_tokens_details": {"cached_tokens": cached}} for cached in (1, 2)]
    events = sse(*({"choices": [], "usage": usage} for usage in usages))
    want = {"input_tokens": 3, "output_tokens": 1, "cached_input_tokens": 2}
    assert known(read(CHAT, events, content_type=STREAM)) == want
