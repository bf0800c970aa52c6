"""What a price depends on beside tokens: uses of the provider's tools, tiers, speed, regions, documents ranked."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from answers import known, metered, read, sse
from taximeter.core.usage import Reading
from taximeter.flavors import find
from taximeter.flavors.meter import Answer, Prepared

_TOKENS = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
_SEARCH = {"type": "web_search_call", "action": {"type": "search", "query": "q"}}


def _response(*output: object, **more: object) -> dict[str, object]:
    return {"object": "response", "model": "gpt-5", "status": "completed", "output": output, "usage": _TOKENS, **more}


@pytest.mark.parametrize(
    ("response", "uses"),
    [
        (_response(_SEARCH, _SEARCH), {"web_search_requests": 2}),
        (_response(_SEARCH, {"type": "web_search_call", "action": {"type": "open_page"}}), {"web_search_requests": 1}),
        (_response({"type": "web_search_call"}), {"web_search_requests": 1}),
        (_response(_SEARCH, tool_usage={"web_search": {"num_requests": 3}}), {"web_search_requests": 3}),
        (_response(_SEARCH, tool_usage={"web_search": {"num_requests": 0}}), {}),
        (_response({"type": "file_search_call"}, {"type": "file_search_call"}), {"file_search_requests": 2}),
        (
            _response(*({"type": "code_interpreter_call", "container_id": name} for name in ("c1", "c1", "c2"))),
            {"code_interpreter_sessions": 2},
        ),
        (_response({"type": "function_call", "name": "web_search_call"}), {}),
        (_response(_SEARCH, tool_usage={"image_gen": {"total_tokens": 0}}), {"web_search_requests": 1}),
    ],
)
def test_uses_of_the_providers_tools_are_counted_whole_and_streamed(
    response: dict[str, object], uses: dict[str, int]
) -> None:
    figures = {"input_tokens": 10, "output_tokens": 5, **uses}
    assert known(read("/v1/responses", response)) == figures
    streamed = sse({"type": "response.completed", "response": response})
    assert known(read("/v1/responses", streamed, content_type=b"text/event-stream")) == figures


_IMAGE = {"type": "image_generation_call", "status": "completed", "result": "A" * 400_000}


def _container(name: str) -> dict[str, object]:
    return {"type": "shell_call", "environment": {"type": "container_reference", "container_id": name}}


@pytest.mark.parametrize("size", [100, 1_000, 65_536, 10**7])
@pytest.mark.parametrize("telling", ["whole", "stream", "items"])
def test_uses_are_counted_where_an_image_makes_the_answer_too_long_to_be_kept(telling: str, size: int) -> None:
    opened = {"type": "web_search_call", "action": {"type": "open_page"}}
    output = [_SEARCH, opened, _IMAGE, {"type": "file_search_call"}, _SEARCH, _container("c1"), _container("c1")]
    response = _response(*output)
    if telling == "whole":
        body, kind = json.dumps(response).encode(), b"application/json"
    else:
        each = [{"type": "response.output_item.done", "output_index": 1, "item": item} for item in output]
        last = response if telling == "stream" else {**response, "output": []}
        body, kind = sse(*each, {"type": "response.completed", "response": last}), b"text/event-stream"
    assert known(read("/v1/responses", body, content_type=kind, cut=size)) == {
        "input_tokens": 10, "output_tokens": 5, "web_search_requests": 2, "file_search_requests": 1,
        "image_generations": 1, "code_interpreter_sessions": 1,
    }  # fmt: skip


def test_a_shell_of_the_clients_own_is_no_container() -> None:
    calls = ({"type": "shell_call", "environment": {"type": "local"}}, {"type": "local_shell_call"})
    assert known(read("/v1/responses", _response(*calls))) == {"input_tokens": 10, "output_tokens": 5}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("size", [1_000, 65_536, 10**7])
def test_what_was_looked_up_for_a_large_image_is_found(first: bool, size: int) -> None:
    told = {"groundingMetadata": {"webSearchQueries": ["a", "b"], "groundingChunks": [{"maps": {"placeId": "p"}}]}}
    drawn = {"content": {"parts": [{"inlineData": {"data": "A" * 400_000}}]}}
    candidate = {**told, **drawn} if first else {**drawn, **told}
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
    body = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-3-pro-image"}
    path = "/v1beta/models/gemini-3-pro-image:"
    whole = read(path + "generateContent", body, provider="google", cut=size)
    kind = b"text/event-stream"
    streamed = read(path + "streamGenerateContent", sse(body), provider="google", content_type=kind, cut=size)
    assert (whole.web_search_requests, whole.maps_requests, whole.output_tokens) == (2, 1, 5)
    assert known(whole) == known(streamed)


def _grounded(model: str, *candidates: object) -> Reading:
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
    body = {"candidates": candidates, "usageMetadata": usage, "modelVersion": model}
    path = f"/v1beta/models/{model}:generateContent"
    whole = read(path, body, provider="google")
    pieces = [{"candidates": [one], "modelVersion": model} for one in candidates]
    path = f"/v1beta/models/{model}:streamGenerateContent"
    events = sse(*pieces, {"usageMetadata": usage, "modelVersion": model})
    streamed = read(path, events, provider="google", content_type=b"text/event-stream")
    assert known(whole) == known(streamed)
    return whole


def test_grounding_is_billed_by_the_prompt_or_from_gemini_3_on_by_the_distinct_query() -> None:
    searched = {"groundingMetadata": {"webSearchQueries": ["a", "b", "a"]}}
    assert _grounded("gemini-2.5-flash", searched, searched).web_search_requests == 1
    assert _grounded("gemini-3.1-pro", searched, searched).web_search_requests == 2
    assert _grounded("gemini-3.1-pro", {"groundingMetadata": {"webSearchQueries": []}}).web_search_requests is None
    mapped = {"groundingMetadata": {"groundingChunks": [{"maps": {"placeId": "p"}}]}}
    assert (_grounded("gemini-3.1-pro", mapped).maps_requests, _grounded("gemini-3.1-pro").maps_requests) == (1, None)


@pytest.mark.parametrize(
    ("path", "body", "answer", "told"),
    [
        (
            "/v1/messages",
            {"usage": {"input_tokens": 1, "output_tokens": 1, "speed": "fast", "inference_geo": "us"}},
            {},
            {"speed": "fast", "region": "us"},
        ),
        (
            "/model/openai.gpt-oss-20b-1:0/converse",
            {"usage": {"inputTokens": 1, "outputTokens": 1}, "serviceTier": {"type": "flex"}},
            {},
            {"service_tier": "flex"},
        ),
        (
            "/model/openai.gpt-oss-20b-1:0/invoke",
            {"usage": {"prompt_tokens": 1, "completion_tokens": 1}},
            {"headers": [(b"x-amzn-bedrock-service-tier", b"priority")]},
            {"service_tier": "priority"},
        ),
        (
            "/v1/chat/completions",
            {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "is_byok": True}},
            {},
            {"service_tier": "byok"},
        ),
        (
            "/v1/chat/completions",
            {
                "usage": {
                    "prompt_tokens": 1,
                    "completion_tokens": 1,
                    "server_side_tool_usage_details": {"web_search_calls": 2, "x_search_calls": 3},
                }
            },
            {},
            {"web_search_requests": 5},
        ),
        (
            "/chat/completions",
            {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "num_search_queries": 74}},
            {},
            {"web_search_requests": 74},
        ),
    ],
)
def test_what_changes_a_price_is_read(path: str, body: object, answer: dict[str, Any], told: dict[str, object]) -> None:
    reading = read(path, body, **answer)
    assert {name: getattr(reading, name) for name in told} == told
    assert (reading.input_tokens, reading.output_tokens) == (1, 1)


def _sources(*lengths: int) -> list[object]:
    return [
        {"type": "INLINE", "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": "x" * length}}}
        for length in lengths
    ]


@pytest.mark.parametrize(
    ("lengths", "queries", "units"),
    [((5,), 1, 1), ((5,), 0, None), ((5,) * 100, 1, 1), ((5,) * 101, 1, 2), ((5,) * 100, 3, 3), ((5, 2_000), 1, None)],
)
def test_bedrocks_rerank_is_billed_by_the_documents_of_the_request(
    lengths: tuple[int, ...], queries: int, units: int | None
) -> None:
    arn = "arn:aws:bedrock:us-west-2::foundation-model/cohere.rerank-v3-5:0"
    asked = {
        "queries": [{"type": "TEXT", "textQuery": {"text": "q"}}] * queries,
        "sources": _sources(*lengths),
        "rerankingConfiguration": {"bedrockRerankingConfiguration": {"modelConfiguration": {"modelArn": arn}}},
    }
    reading = read("/rerank", {"results": []}, provider="bedrock", asked=asked)
    assert (reading.rerank_documents, reading.search_units) == (len(lengths), units)
    failed = read("/rerank", {"message": "no"}, provider="bedrock", asked=asked, status=400)
    assert failed.search_units is None
    assert find(b"POST", b"/rerank").prepare(msgspec.json.encode(asked), b"/rerank", inject=False).model == arn


def test_googles_ranking_is_billed_by_the_hundred_records() -> None:
    path = "/v1/projects/p/locations/global/rankingConfigs/default_ranking_config:rank"
    reading = read(path, {"records": []}, provider="google", asked={"query": "q", "records": [{"content": "a"}] * 101})
    assert (reading.rerank_documents, reading.search_units) == (101, 2)
    assert read(path, {"records": []}, provider="google", asked={"query": "q"}).search_units is None


def test_verbose_json_tells_how_long_the_audio_is() -> None:
    path = "/v1/audio/transcriptions"
    assert read(path, {"task": "transcribe", "duration": 12.5, "text": "hi", "segments": []}).seconds == 12.5
    assert read(path, {"task": "transcribe", "duration": "12.5", "text": "hi"}).seconds == 12.5
    billed = {"type": "duration", "seconds": 13}
    assert read(path, {"task": "transcribe", "duration": 12.5, "usage": billed}).seconds == 13
    assert read(path, {"task": "transcribe", "duration": 12.5, "usage": _TOKENS}).seconds is None
    assert read(path, {"duration": 5.5, "text": "hi"}).seconds is None  # Venice's own


def test_what_embeds_has_no_output_rather_than_none() -> None:
    usage = {"promptTokenCount": 7, "totalTokenCount": 7}
    reading = read("/v1/models/gemini-embedding-2:embedContent", {"embedding": {}, "usageMetadata": usage})
    assert (reading.input_tokens, reading.output_tokens) == (7, None)
    told = {"embedding": {}, "usageMetadata": {"totalTokenCount": 7}}
    assert read("/v1/models/gemini-embedding-2:embedContent", told).input_tokens == 7


def test_a_long_verbose_json_is_read_too() -> None:
    segments = [{"text": "x" * 100}] * 4_000
    answer = {"task": "transcribe", "segments": segments, "duration": 12.5, "words": segments}
    assert read("/v1/audio/transcriptions", answer).seconds == 12.5


def test_what_a_text_generation_wrote_is_counted_where_nothing_is_reported() -> None:
    told = [{"generated_text": "hello"}]
    assert metered("/generate", told).output().texts == ["hello"]
    assert metered("/generate", {"token": {"text": "hi"}}).output().texts == ["hi"]


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (b"/model/us.amazon.nova-lite-v1:0/converse", "us.amazon.nova-lite-v1:0"),
        (
            b"/model/anthropic.claude-3-haiku-20240307-v1:0/invoke-with-response-stream",
            "anthropic.claude-3-haiku-20240307-v1:0",
        ),
        (b"/v1beta/models/gemini-3-flash:generateContent", "gemini-3-flash"),
        (b"/v1beta/models/gemini-3-flash:streamGenerateContent?alt=sse", "gemini-3-flash"),
        (b"/openai/deployments/mine/chat/completions?api-version=1", "mine"),
        (
            b"/model/arn:aws:bedrock:us-east-1:1:inference-profile%2Fus.amazon.nova-lite-v1:0/converse?a=b",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-lite-v1:0",
        ),
        (
            b"/model/arn:aws:bedrock:us-east-1:1:provisioned-model/xyz/invoke-with-response-stream",
            "arn:aws:bedrock:us-east-1:1:provisioned-model/xyz",
        ),
        (
            b"/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.amazon.nova-lite-v1%3A0/converse",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-lite-v1:0",
        ),
    ],
)
def test_a_model_in_the_path_is_read_whole(path: bytes, model: str) -> None:
    assert find(b"POST", path).path_model(path) == model


@pytest.mark.parametrize(
    ("model", "searches"), [("gpt-4o-search-preview-2025-03-11", 1), ("gpt-5-search-api", 1), ("gpt-4o", None)]
)
def test_a_chat_model_that_searches_before_each_answer_searched_once(model: str, searches: int | None) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    choice = {"index": 0, "message": {"content": "hi"}, "delta": {"content": "hi"}, "finish_reason": "stop"}
    answer = {"id": "c", "object": "chat.completion", "model": model, "choices": [choice], "usage": usage}
    assert read("/v1/chat/completions", answer).web_search_requests == searches
    quick = find(b"POST", b"/v1/chat/completions").whole(
        Prepared(body=b""), Answer(status=200, content_type=b"application/json"), "openai", msgspec.json.encode(answer)
    )
    assert (quick is None) is (searches == 1)
    streamed = read("/v1/chat/completions", sse(answer, b"[DONE]"), content_type=b"text/event-stream")
    assert streamed.web_search_requests == searches
    refused = {"error": {"message": "no"}, "model": model}
    assert read("/v1/chat/completions", refused, status=400).web_search_requests is None
    assert read("/v1/chat/completions", refused).web_search_requests is None
