"""The text handed to local counting: everything a model reads and writes, and nothing else."""

from __future__ import annotations

import json

import pytest

from answers import metered, sse
from taximeter.flavors import find
from taximeter.flavors.meter import Countable


def asked(path: str, body: object) -> Countable:
    return find(b"POST", path.encode()).input(json.dumps(body).encode())


def test_chat_counts_messages_by_the_published_rule() -> None:
    countable = asked("/v1/chat/completions", {"messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "hi"}]},
    ]})  # fmt: skip
    assert sorted(countable.texts) == ["ann", "be brief", "hi"]
    assert countable.tokens == 3 + 4 + 4 + 1
    assert not countable.truncated


def test_tools_calls_and_answers_are_text() -> None:
    countable = asked("/v1/chat/completions", {"messages": [
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": '{"a":1}'}}]},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
    ], "tools": [{"type": "function", "function": {"name": "f"}}]})  # fmt: skip
    assert countable.texts == ["f", '{"a":1}', "42", '[{"type":"function","function":{"name":"f"}}]']


def test_what_is_no_text_makes_the_count_an_estimate() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "text", "text": "what?"},
    ]
    countable = asked("/v1/chat/completions", {"messages": [{"role": "user", "content": parts}]})
    assert countable.texts == ["what?"]
    assert countable.truncated


@pytest.mark.parametrize(
    ("given", "texts", "tokens"),
    [("a", ["a"], 0), (["a", "b"], ["a", "b"], 0), ([1, 2, 3], [], 3), ([[1, 2], [3]], [], 3), ([], [], 0)],
)
def test_embedding_inputs_are_texts_or_token_arrays(given: object, texts: list[str], tokens: int) -> None:
    countable = asked("/v1/embeddings", {"input": given})
    assert (countable.texts, countable.tokens) == (texts, tokens)
    assert countable.truncated is not bool(texts or tokens)


@pytest.mark.parametrize(
    ("path", "body", "texts"),
    [
        ("/v1/messages", {"system": "s", "messages": [{"role": "user", "content": "hi"}]}, ["hi", "s"]),
        ("/v1/responses", {"instructions": "i", "input": "hi"}, ["hi", "i"]),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]}, ["hi"]),
        ("/v1beta/models/g:generateContent", {"contents": [{"parts": [{"text": "hi"}]}]}, ["hi"]),
        ("/v1beta/models/g:embedContent", {"content": {"parts": [{"text": "hi"}]}}, ["hi"]),
        ("/v1beta/models/g:batchEmbedContents", {"requests": [{"content": {"parts": [{"text": "hi"}]}}]}, ["hi"]),
        ("/x/models/e:predict", {"instances": [{"content": "hi"}]}, ["hi"]),
        ("/v1/chat", {"message": "hi", "chat_history": [{"message": "before"}]}, ["hi", "before"]),
        ("/v2/embed", {"texts": ["a", "b"]}, ["a", "b"]),
        ("/api/generate", {"prompt": "hi", "system": "s"}, ["hi", "s"]),
        ("/api/embed", {"input": ["a"]}, ["a"]),
        ("/v1/completions", {"prompt": "hi"}, ["hi"]),
        ("/model/m/converse", {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}, ["hi"]),
        ("/model/m/invoke", {"inputText": "hi"}, ["hi"]),
        ("/v1beta/interactions", {"input": [{"content": [{"text": "hi"}]}]}, ["hi"]),
        ("/ml/v1/text/generation", {"input": "hi"}, ["hi"]),
        ("/generate", {"inputs": "hi"}, ["hi"]),
        ("/v1/threads/t/runs", {"instructions": "hi"}, ["hi"]),
        ("/v1/images/generations", {"prompt": "hi"}, ["hi"]),
    ],
)
def test_every_apis_request_is_read(path: str, body: object, texts: list[str]) -> None:
    assert asked(path, body).texts == texts


def test_a_conversation_only_the_provider_holds_makes_an_estimate() -> None:
    assert asked("/v1/responses", {"input": "hi", "previous_response_id": "r"}).truncated
    assert not asked("/v1/responses", {"input": "hi"}).truncated


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/v1/rerank", "/v1/responses", "/nowhere"])
@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"messages":7,"input":7}', b'{"messages":' + b"[" * 5000])
def test_what_cannot_be_read_says_so(path: str, body: bytes) -> None:
    countable = find(b"POST", path.encode()).input(body)
    assert countable.texts == []
    assert countable.truncated


def test_deep_nesting_is_cut_off_and_not_followed() -> None:
    deep = '{"content":' * 400 + '"x"' + "}" * 400
    assert find(b"POST", b"/v1/chat/completions").input(f'{{"messages":[{deep}]}}'.encode()).texts == []


def test_all_choices_reasoning_refusals_and_calls_are_output() -> None:
    call = {"function": {"name": "f", "arguments": '{"a":1}'}}
    body = {"choices": [
        {"message": {"content": "a", "reasoning_content": "r", "reasoning": "r", "tool_calls": [call]}},
        {"message": {"content": None, "refusal": "no", "function_call": {"name": "g", "arguments": "{}"}}},
    ]}  # fmt: skip
    assert metered("/v1/chat/completions", body).output().texts == ['arf{"a":1}nog{}']


@pytest.mark.parametrize(
    ("path", "events", "text"),
    [
        ("/v1/messages", [
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}},
            {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "b"}},
            {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        ], "ab{}"),
        ("/v1/responses", [
            {"type": "response.reasoning_summary_text.delta", "delta": "a"},
            {"type": "response.function_call_arguments.delta", "delta": "{}"},
            {"type": "response.audio.delta", "delta": "AAAA"},
            {"type": "response.output_text.done", "text": "again"},
        ], "a{}"),
        ("/x:streamGenerateContent", [
            {"candidates": [
                {"content": {"parts": [{"text": "a"}, {"functionCall": {"name": "f", "args": {"b": 1}}}]}},
            ]},
        ], 'af{"b":1}'),
        ("/v2/chat", [{"type": "content-delta", "delta": {"message": {"content": {"text": "a"}}}}], "a"),
        ("/v1/completions", [{"choices": [{"text": "a"}]}, {"completion": "b"}], "ab"),
        ("/v1beta/interactions", [{"event_type": "step.delta", "delta": {"type": "text", "text": "a"}}], "a"),
        ("/v1/threads/t/runs", [
            {"object": "thread.message.delta", "delta": {"content": [{"text": {"value": "a"}}]}}], "a"),
    ],
)  # fmt: skip
def test_every_apis_stream_is_text(path: str, events: list[object], text: str) -> None:
    meter = metered(path, sse(*events), content_type=b"text/event-stream")
    assert "".join(meter.output().texts) == text
    assert (meter.progress_tokens() or 0) >= 1


def test_tools_with_odd_values_are_text_too() -> None:
    body = b'{"messages":[{"role":"user","content":"a"}],"tools":[{"n":1000000000000000000000000000000}]}'
    assert find(b"POST", b"/v1/chat/completions").input(body).texts == ["a", '[{"n":1000000000000000000000000000000}]']
