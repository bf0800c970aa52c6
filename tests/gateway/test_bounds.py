"""Every rule of what a call is held for has a case here; docs/limits.md shows the same rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core.errors import BadRequest
from taximeter.flavors import FLAVORS, find
from taximeter.flavors.meter import Countable, Demand
from taximeter.flavors.responses import REALTIME
from taximeter.gateway.bounds.bounds import MOST_TOKENS, OVERHEAD_TOKENS, Limits, bound
from taximeter.gateway.bounds.rules import (
    COSTLY_PATHS,
    IMAGE_ANSWER_TOKENS,
    IMAGE_TOKENS,
    RULES,
    THINKING_TOKENS,
    TOOL_TOKENS,
    Bounds,
)

WINDOW, ANSWER = 128_000, 1_000
LIMITS = Limits(WINDOW, ANSWER)
PATHS = {
    "chat": "/v1/chat/completions",
    "hosted": "/invocations",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "conversations": "/v1/conversations",
    "messages": "/v1/messages",
    "generate": "/v1beta/models/g:generateContent",
    "interactions": "/v1beta/interactions",
    "cohere": "/v2/chat",
    "ollama": "/api/generate",
    "dashscope": "/api/v1/services/aigc/text-generation/generation",
    "textgen": "/generate",
    "converse": "/model/m/converse",
    "invoke": "/model/m/invoke",
    "images": "/v1/images/generations",
    "agent": "/v1/threads/t/runs",
    "unknown": "/v1/ocr",
    "embeddings": "/v1/embeddings",
    "rerank": "/v2/rerank",
    "audio": "/v1/audio/transcriptions",
}


def flavor_of(dialect):
    """A flavor with this dialect; Realtime's is no path's, as it is only asked for on a WebSocket."""
    return REALTIME if dialect == "realtime" else find(b"POST", PATHS[dialect].encode())


def most(body, where="chat", *, provider="p", counted=0, text=None, **demand):
    flavor = flavor_of(where)
    asked = Demand(members=body, reading=msgspec.json.encode(body), **demand)
    return bound(flavor, asked, text or Countable(), counted, provider, LIMITS)


def nested(member, value):
    for part in reversed(member.split(".")):
        value = {part: value}
    return value


SERVER_TOOL: dict[str, dict[str, Any]] = {
    "messages": {"type": "web_search_20250305", "name": "web_search"},
    "generate": {"googleSearch": {}},
    "invoke": {"type": "web_search_20250305"},
    "converse": {"systemTool": {"name": "nova_grounding"}},
}
CLIENT_TOOL: dict[str, dict[str, Any]] = {
    "messages": {"name": "look", "input_schema": {"type": "object"}},
    "generate": {"functionDeclarations": [{"name": "f"}]},
    "converse": {"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object"}}}},
}


def check_row(row):
    plain, one = most({}, row.dialect), lambda value: most(nested(row.member, value), row.dialect)
    match row.bounds:
        case Bounds.ANSWER:
            assert one(77).output_tokens == one("77").output_tokens == one(76.5).output_tokens == 77
            assert one(2**50).output_tokens == 2**50 and one(2**70).output_tokens == MOST_TOKENS
            assert one(0).output_tokens == one(None).output_tokens == plain.output_tokens == ANSWER
            assert one(0).assumed == ["the answer's length"] and one(77).assumed == []
            assert one(-1).output_tokens == WINDOW and one(-1).assumed
        case Bounds.ANSWERS:
            assert one(3).output_tokens == one("3").output_tokens == 3 * plain.output_tokens
        case Bounds.PROMPTS:
            assert one(["a", "b"]).output_tokens == 2 * plain.output_tokens == 2 * one([1, 2, 3]).output_tokens
        case Bounds.THINKING:
            assert one(500).output_tokens == one("500").output_tokens == plain.output_tokens + 500
            assert one(-1).output_tokens == one(True).output_tokens == plain.output_tokens + THINKING_TOKENS
        case Bounds.PREDICTED:
            assert one("x" * 400).output_tokens >= plain.output_tokens + 400
        case Bounds.KEPT:
            assert one("id_1").input_tokens == WINDOW and one("id_1").assumed
            assert one(None) == plain
        case Bounds.STORED:
            assert "max_tool_calls" in one({"id": "pmpt_1"}).endless[0] and one(None).endless == []
            stated = most({**nested(row.member, {"id": "pmpt_1"}), "max_tool_calls": 4}, row.dialect)
            assert (stated.uses, stated.endless, stated.input_tokens) == (4, [], 5 * WINDOW)
        case Bounds.TIER:
            others = () if row.member.lower().startswith("service") else ("priority",)
            assert plain.tiers == ("", "priority") and set(one("flex").tiers) == {"", "flex", *others}
            assert one("default").tiers == ("", *others) and one(1).tiers is one({}).tiers is one("vip").tiers is None
        case Bounds.USES:
            tools = {"tools": [{"type": "web_search"}]}
            stated = most({**tools, **nested(row.member, 4)}, row.dialect)
            assert (stated.uses, stated.endless, stated.input_tokens) == (4, [], 5 * WINDOW)
        case Bounds.TOOLS:
            tool = SERVER_TOOL.get(row.dialect, {"type": "web_search"})
            assert "max_uses" in one([tool]).endless[0]
            stated = one([{**tool, "max_uses": "6"}, CLIENT_TOOL.get(row.dialect, {"type": "function"})])
            assert (stated.uses, stated.endless, stated.input_tokens) == (6, [], 7 * WINDOW)
            assert one([CLIENT_TOOL.get(row.dialect, {"type": "function"})]).endless == []
        case Bounds.ENDLESS if row.member == "model":
            assert most({}, models=(f"x{row.when}",)).endless and not most({}, models=("x",)).endless
        case Bounds.ENDLESS:
            assert one({"edits": [{"type": row.when or "x"}]}).endless == [row.member]
            assert one(None).endless == one(False).endless == []
            assert one({}).endless == ([] if row.when else [row.member])
        case _:
            raise AssertionError(f"no case for {row.bounds}")


@pytest.mark.parametrize("row", RULES, ids=lambda row: f"{row.dialect}-{row.member}")
def test_a_rule_holds(row):
    check_row(row if row.dialect != "*" else row._replace(dialect="chat"))


def test_the_documentation_shows_the_rules():
    page = (Path(__file__).parents[2] / "docs/limits.md").read_text()
    shown = re.findall(r"^\| `(.+?)` \| `(.+?)` \| (.+?) \| \[.*?\]\((.+?)\) \|$", page, re.MULTILINE)
    assert shown == [
        (row.dialect, row.member + (f" … {row.when}" if row.when else ""), str(row.bounds), row.source) for row in RULES
    ]


def test_every_dialect_has_a_path_and_rules():
    named = {flavor.dialect for _, flavor in FLAVORS}
    assert {find(b"POST", path.encode()).dialect for path in PATHS.values()} == named
    assert {row.dialect for row in RULES} - {"*", "realtime"} == named - {"agent"}


BODIES = [
    nested(row.member, value)
    for row in RULES
    for value in (77,)
    if row.dialect == "chat" and row.bounds is not Bounds.PREDICTED
]
BODIES += [
    {"tools": [{"type": "web_search", "max_uses": 3}]},
    {"messages": [{"image_url": {"url": "https://x/y.png"}}]},
]


@st.composite
def spelled(draw, value):
    """The same members in other letters: any case, other separators."""
    if isinstance(value, dict):
        names = {}
        for name, inner in value.items():
            letters = "".join(draw(st.sampled_from([letter, letter.upper()])) for letter in name)
            names[letters.replace("_", draw(st.sampled_from(["_", "-", ""])))] = draw(spelled(inner))
        return names
    if isinstance(value, list):
        return [draw(spelled(item)) for item in value]
    return draw(st.sampled_from([value, str(value)])) if type(value) is int else value


@given(st.data(), st.sampled_from(BODIES), st.integers(0, 2))
def test_however_a_member_is_spelled_it_bounds_the_same(data, body, depth):
    other = data.draw(spelled(body))
    for _ in range(depth):
        other = {"extra_body": other}
    expected, found = most(body), most(other)
    assert (found.output_tokens, found.uses, found.tiers) == (expected.output_tokens, expected.uses, expected.tiers)
    assert found.endless == expected.endless and found.assumed == expected.assumed
    assert found.input_tokens >= expected.input_tokens


@given(st.data(), st.sampled_from(BODIES), st.dictionaries(st.text(max_size=6), st.integers() | st.text(max_size=5)))
def test_one_odd_member_hides_no_other(data, body, odd):
    try:
        found = most({**odd, **body})
    except BadRequest:
        return
    expected = most(body)
    assert found.output_tokens >= expected.output_tokens and found.input_tokens >= expected.input_tokens


@pytest.mark.parametrize("odd", ["many", "NaN", "Infinity", [60], {"a": 1}, "0x10", "1e999"])
@pytest.mark.parametrize("member", ["max_tokens", "n"])
def test_a_bound_that_is_no_number_is_refused(member, odd):
    with pytest.raises(BadRequest, match=f"{member} bounds what it may cost"):
        most({member: odd, "max_completion_tokens": 5})


def test_the_higher_of_two_bounds_counts_and_only_what_the_api_knows_is_one():
    assert most({"max_tokens": 50, "max_completion_tokens": 70}).output_tokens == 70
    assert most({"max_output_tokens": 1, "options": {"num_predict": 1}}).output_tokens == ANSWER
    assert most({"max_tokens": 50, "Max_Tokens": 500}).output_tokens == 500
    assert most({"max_completion_tokens": 1}, provider="deepseek").output_tokens == ANSWER
    assert most({"max_tokens": 50, "n": "1000", "best_of": 3}).output_tokens == 50_000


@pytest.mark.parametrize(
    ("body", "images"),
    [
        ({"messages": [{"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]}, 1),
        ({"messages": [{"content": [{"type": "image", "source": {"type": "url", "url": "https://x"}}]}]}, 1),
        ({"input": [{"content": [{"type": "input_image", "image_url": "https://x"}, {"Image_URL": "https://y"}]}]}, 2),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}]}, 1),
        ({"images": ["AAAA", "BBBB", "CCCC"]}, 3),
    ],
)
def test_an_image_is_held_at_the_most_one_is_billed_for(body, images):
    found = most(body)
    assert images * IMAGE_TOKENS <= found.input_tokens < images * IMAGE_TOKENS + 300 and found.assumed != ["x"]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_id": "file_1"}},
        {"type": "input_file", "file_url": "https://x/y.pdf"},
        {"type": "input_file", "file_id": "file_1"},
        {"type": "input_image", "file_id": "file_1"},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA"}},
        {"fileData": {"fileUri": "gs://x", "mimeType": "video/mp4"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}},
        {"type": "video_url", "video_url": {"url": "https://x"}},
        {"document": {"format": "pdf", "source": {"s3Location": {"uri": "s3://x"}}}},
        {"type": "item_reference", "id": "msg_1"},
    ],
)
def test_what_is_not_in_the_request_or_has_no_size_is_held_at_the_context_window(part):
    found = most({"max_tokens": 5, "messages": [{"content": [part]}]})
    assert found.input_tokens == WINDOW and found.assumed == ["files, audio or video"]


def test_names_of_properties_in_a_tools_schema_are_no_media():
    properties = {"file": {"type": "string"}, "image": {"type": "string"}}
    tool = {"type": "function", "function": {"parameters": {"type": "object", "properties": properties}}}
    assert most({"tools": [tool]}).input_tokens < OVERHEAD_TOKENS + TOOL_TOKENS + 100


@pytest.mark.parametrize(
    "part",
    [
        {"type": "tool_use", "name": "read", "input": {"file": "a.py", "image": "b", "url": "https://x"}},
        {"functionCall": {"name": "read", "args": {"file": "a.py", "document": {"id": 1}}}},
        {"functionResponse": {"name": "read", "response": {"file": "a.py", "documents": [{"document": "text"}]}}},
        {"toolUse": {"toolUseId": "t", "name": "read", "input": {"audio": "a.mp3", "image": "b"}}},
    ],
)
def test_what_a_tool_is_called_with_or_says_is_text(part):
    found = most({"max_tokens": 5, "messages": [{"content": [part]}]})
    assert found.input_tokens < OVERHEAD_TOKENS + 100 and found.assumed == []


def test_a_body_that_says_it_is_a_tools_call_hides_no_file():
    files = [{"content": [{"type": "input_file", "file_id": "f"}]}]
    for body in ({"type": "tool_use", "input": files}, {"extra_body": {"type": "tool_use", "input": files}}):
        assert most(body, "responses").input_tokens == WINDOW
    deep: dict[str, object] = {"file": {"file_id": "f"}}
    for _ in range(900):
        deep = {"functionCall": deep, "toolUse": {"input": "x"}}
    assert most(deep).input_tokens == WINDOW


@pytest.mark.parametrize(
    "part",
    [
        {"functionResponse": {"name": "f", "parts": [{"inlineData": {"mimeType": "application/pdf", "data": "AA"}}]}},
        {"toolUse": {"file": {"file_id": "f"}}},
        {"type": "text", "input": {"file": {"file_id": "f"}}},
        {"type": "tool_result", "content": [{"type": "document", "source": {"type": "url", "url": "https://x"}}]},
    ],
)
def test_a_file_beside_what_a_tool_says_is_one(part):
    assert most({"max_tokens": 5, "messages": [{"content": [part]}]}).input_tokens == WINDOW


def test_what_says_nothing_to_a_server_that_cuts_numbers_bounds_nothing():
    assert most({"max_tokens": 0.9}).output_tokens == ANSWER and most({"max_tokens": 1.1}).output_tokens == 2


@pytest.mark.parametrize(
    "tool",
    [{"type": "image_generation"}, {"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "64g"}}],
)
def test_a_tool_that_is_billed_by_other_prices_than_the_models_has_no_bound(tool):
    assert "other prices" in most({"tools": [tool], "max_tool_calls": 2}, "responses").endless[0]


def test_an_answer_that_no_member_bounds_is_left_open():
    assert most({"max_output_tokens": 1}, "responses", unlimited=True).output_tokens == ANSWER


def test_how_to_speak_is_no_audio():
    assert (
        most({"modalities": ["audio"], "audio": {"voice": "alloy", "format": "wav"}}).input_tokens
        < OVERHEAD_TOKENS + 100
    )


def test_what_was_counted_as_json_is_not_counted_again_and_hides_nothing():
    tools = [{"type": "function", "function": {"name": "f", "description": "d" * 400}}]
    counted = Countable(texts=[msgspec.json.encode(tools).decode()])
    assert most({"tools": tools}, text=counted, counted=100).input_tokens < OVERHEAD_TOKENS + TOOL_TOKENS + 200
    hidden = {"tools": tools, "messages": [{"Content": "d" * 400}]}
    assert most(hidden, text=counted, counted=100).input_tokens > TOOL_TOKENS + 500
    said = '["' + "d" * 400 + '"]'
    twice = {"messages": [{"content": said, "Content": "d" * 400}]}
    assert most(twice, text=Countable(texts=[said]), counted=100).input_tokens > 500


def test_a_deep_body_is_walked_once():
    deep: dict[str, object] = {"x": "y"}
    for _ in range(900):
        deep = {"input": deep, "pad": "z" * 100}
    assert most(deep).input_tokens > 90_000


def test_text_where_no_reader_of_ours_looks_is_held_by_the_byte():
    assert most({"messages": [{"role": "user", "Content": "x" * 1_000}]}).input_tokens >= 1_000
    assert most({"documents": [{"body": "x" * 1_000}]}, "rerank").input_tokens >= 1_000
    assert most({"Input": [[7] * 900]}, "embeddings").input_tokens >= 900
    assert most({"input": "x y"}, counted=2, text=Countable(texts=["x y"])).input_tokens == 2 + 1 + OVERHEAD_TOKENS


def test_embeddings_have_no_answer():
    assert (most({}, "embeddings").output_tokens, most({"max_tokens": 5}, "rerank").output_tokens) == (0, 0)


def test_a_rerank_is_a_search_for_each_hundred_documents_and_each_500_tokens():
    assert most({"documents": ["a"] * 1_000}, "rerank").search_units >= 10
    assert most({"documents": ["a"]}, "rerank").search_units == 1
    assert most({"documents": [{"text": "x" * 500 * 100}]}, "rerank").search_units == 2


def test_images_and_audio():
    assert most({"n": "4"}, "images").output_tokens == 4 * IMAGE_ANSWER_TOKENS
    assert most({"image[]": [{"bytes": 5}, {"bytes": 6}]}, "images").input_tokens >= 2 * IMAGE_TOKENS
    heard = most({"file": {"bytes": 60 * 50}}, "audio", form=True)
    assert (heard.seconds, heard.endless, heard.input_tokens) == (60, [], 60 * 32 + OVERHEAD_TOKENS)
    assert 60 * 32 < heard.output_tokens < 60 * 32 + 500
    known = most({"file": {"bytes": 60_000, "bytes_per_s": 1_000}}, "audio", form=True)
    assert (known.seconds, most({"file": {"bytes": 60_000, "bytes_per_s": 1_000}}, "audio").seconds) == (60, 0)
    assert most({"audio_file": {"bytes": 60 * 50}}, "audio", form=True).seconds == 60
    assert most({"file": {"bytes": 5}}, "audio").endless  # JSON can say anything
    assert most({"file": {"bytes": 5}, "url": "https://x"}, "audio", form=True).endless
    assert most({"file": "https://x/y.mp3"}, "audio").endless
    assert most({"input": "x" * 100}, "audio").output_tokens > 800


def test_what_a_path_starts_or_keeps():
    assert most({}, kept=True).input_tokens == WINDOW
    assert most({}, endless=("a batch",)).endless == ["a batch"]
    assert most({}, unbilled=True).tokens == 0
    for path in (b"/v1/batches", b"/v1/messages/batches", b"/v1/fine_tuning/jobs", b"/v1/realtime/client_secrets",
                 b"/v1beta/models/g:batchGenerateContent", b"/v1beta/cachedContents", b"/v1/batch/jobs",
                 b"/v1/embed-jobs", b"/v1/fine_tuning/jobs/f/resume", b"/v1/fine_tuning/jobs/f/start",
                 b"/v1/fine_tuning/alpha/graders/run", b"/v1/finetuning/finetuned-models", b"/v1/realtime",
                 b"/v1/realtime/calls", b"/v1/realtime/calls/c/accept", b"/v1/realtime/sessions", b"/v1/containers",
                 b"/v1/chatkit/sessions", b"/v1/sessions/s/events", b"/v1/accounts/a/batchInferenceJobs",
                 b"/v1beta/fileSearchStores/s:importFile", b"/v1/videos", b"/v1/videos/v_1/remix"):  # fmt: skip
        assert COSTLY_PATHS(path), path
    for path in (b"/v1/batches/b_1/cancel", b"/v1/files", b"/v1/realtime/calls/c/hangup", b"/v1/containers/c/files"):
        assert not COSTLY_PATHS(path), path
    assert most({}, "unknown", answerless=True).output_tokens == 0


def test_a_providers_own_tool_adds_its_prompt_and_a_clients_own_one_for_all():
    base = most({}).input_tokens
    plain = {"name": "f", "input_schema": {}}
    assert most({"tools": [plain] * 9}, "messages").input_tokens - base < TOOL_TOKENS + 100
    assert most({"tools": [{"type": "computer_20250124"}, {"type": "bash_20250124"}]}, "messages").input_tokens > (
        base + 2 * TOOL_TOKENS
    )
