"""Exchanges that people reported as read wrongly elsewhere, or whose shape a provider documents: a row each, with where
it stands and what has to be read. What is not named in a row may be anything."""

from __future__ import annotations

from typing import Any

import pytest

from answers import read, sse
from taximeter.flavors import find
from taximeter.flavors.dialects import UNMETERED

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
STREAM = b"text/event-stream"
USED: dict[str, object] = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
RESPONSE: dict[str, object] = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
BOTH: dict[str, object] = {"input_tokens": 1000, "output_tokens": 100}


def _chat(usage: object, **more: object) -> dict[str, object]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage, **more}


def _events(*usages: object) -> bytes:
    """A chat stream that tells its usage several times."""
    delta = {"index": 0, "delta": {"content": "hi"}}
    return sse(*({"id": "c", "model": "m", "choices": [delta], "usage": usage} for usage in usages), b"[DONE]")


def _gemini(*usages: object) -> bytes:
    candidate = {"content": {"parts": [{"text": "hi"}]}}
    return sse(*({"candidates": [candidate], "modelVersion": "gemini-3-flash", "usageMetadata": one} for one in usages))


def _grounded(**told: object) -> dict[str, object]:
    usage = {"promptTokenCount": 1000, "candidatesTokenCount": 100, "totalTokenCount": 1100}
    return {"candidates": [{"groundingMetadata": told}], "modelVersion": "gemini-3.1-flash", "usageMetadata": usage}


def _claude(usage: object) -> dict[str, object]:
    return {"id": "m", "type": "message", "model": "claude-haiku-4-5-20251001", "content": [], "usage": usage}


GENERATE, STREAMED = "/v1beta/models/gemini-3-flash:generateContent", "/v1beta/models/g:streamGenerateContent?alt=sse"
CONVERSE = "/model/us.anthropic.claude-3-5-haiku-20241022-v1:0/converse"
PASS: dict[str, object] = {"input_tokens": 823, "output_tokens": 531}

REPORTED: list[tuple[str, str, str, object, dict[str, object]]] = [
    # where, path, provider, the answer (bytes: a stream), what is read
    # -- a zero that is told later
    ("envoyproxy/ai-gateway 1631", STREAMED, "google", _gemini(
        {"promptTokenCount": 20, "candidatesTokenCount": 30, "totalTokenCount": 50},
        {"promptTokenCount": 20, "candidatesTokenCount": 0, "totalTokenCount": 20},
    ), {"input_tokens": 20, "output_tokens": 30, "inconsistent": False}),
    ("envoyproxy/ai-gateway 1631", STREAMED, "google", _gemini(
        {"promptTokenCount": 20, "candidatesTokenCount": 1, "totalTokenCount": 21},
        {"promptTokenCount": 0, "candidatesTokenCount": 30, "totalTokenCount": 30},
    ), {"input_tokens": 20, "output_tokens": 30, "inconsistent": False}),
    ("router-for-me/CLIProxyAPI 3077", CHAT, "openai", _events(
        {"prompt_tokens": 15, "completion_tokens": 1, "total_tokens": 16},
        {"prompt_tokens": 0, "completion_tokens": 30, "total_tokens": 30},
    ), {"input_tokens": 15, "output_tokens": 30, "inconsistent": False}),
    ("router-for-me/CLIProxyAPI 3077", CHAT, "openai", _events(
        {"prompt_tokens": 15, "completion_tokens": 1, "total_tokens": 16},
        {"prompt_tokens": 0, "completion_tokens": 30, "total_tokens": 45},
    ), {"input_tokens": 15, "output_tokens": 30, "inconsistent": False}),
    ("sgl-project/sglang 20830", CHAT, "openai", _events(
        {"prompt_tokens": 15, "completion_tokens": 7, "total_tokens": 22},
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    ), {"input_tokens": 15, "output_tokens": 7, "inconsistent": False}),
    ("docs.x.ai, reasoning beside the completion", CHAT, "xai", _events(
        {"prompt_tokens": 82, "completion_tokens": 1, "total_tokens": 83},
        {"prompt_tokens": 0, "completion_tokens": 320, "total_tokens": 788,
         "completion_tokens_details": {"reasoning_tokens": 468}},
    ), {"input_tokens": 82, "output_tokens": 788, "inconsistent": False}),
    ("a total that says nothing", CHAT, "openai", _events(
        {"prompt_tokens": 15, "completion_tokens": 1, "total_tokens": 16},
        {"prompt_tokens": 0, "completion_tokens": 30, "total_tokens": 0},
    ), {"input_tokens": 15, "output_tokens": 30, "inconsistent": False}),
    ("microsoft/vscode 330547", CHAT, "openai", _events(USED).removesuffix(b"data: [DONE]\n\n").rstrip(), BOTH),
    # -- what a price depends on
    ("docs.aws.amazon.com, latency-optimized-inference", CONVERSE, "bedrock", {
        "usage": {"inputTokens": 1000, "outputTokens": 100, "totalTokens": 1100},
        "performanceConfig": {"latency": "optimized"},
    }, {**BOTH, "speed": "optimized"}),
    ("ai.google.dev, interactions: Usage.grounding_tool_count", "/v1beta/interactions", "google", {
        "model": "gemini-3-flash",
        "usage": {"total_input_tokens": 1000, "total_output_tokens": 100, "total_tokens": 1100,
                  "grounding_tool_count": [
            {"type": "google_search", "count": 2},
            {"type": "google_maps", "count": 3},
            {"type": "retrieval", "count": 1},
        ]},
    }, {**BOTH, "web_search_requests": 2, "maps_requests": 1}),
    ("the same, billed by the prompt", "/v1beta/interactions", "google", {
        "model": "gemini-2.5-flash",
        "usage": {"total_input_tokens": 1000, "grounding_tool_count": [{"type": "google_search", "count": 2}]},
    }, {"web_search_requests": 1}),
    ("ai.google.dev, GroundingMetadata", GENERATE, "google",
     _grounded(webSearchQueries=["a"], imageSearchQueries=["b"]),
     {**BOTH, "web_search_requests": 2, "priced_in_part": False}),
    ("cloud.google.com, grounding with your data", GENERATE, "vertex", _grounded(retrievalQueries=["a"]),
     {**BOTH, "web_search_requests": None, "priced_in_part": True}),
    ("volcengine, responses: usage.tool_usage", RESPONSES, "volcengine",
     {"usage": {**RESPONSE, "tool_usage": {"web_search": 2}}}, {**BOTH, "web_search_requests": 2}),
    ("help.aliyun.com, responses: usage.x_tools", RESPONSES, "dashscope",
     {"usage": {**RESPONSE, "x_tools": {"web_search": {"count": 3}}}}, {**BOTH, "web_search_requests": 3}),
    ("help.aliyun.com, chat: usage.plugins", CHAT, "dashscope",
     _chat({**USED, "plugins": {"search": {"count": 1, "strategy": "turbo"}}}), {**BOTH, "web_search_requests": 1}),
    ("docs.perplexity.ai, agents", RESPONSES, "perplexity", {"usage": {
        **RESPONSE, "cost": {"total_cost": 0.007}, "tool_calls_details": {"search_web": {"invocation": 1}},
    }}, {**BOTH, "web_search_requests": 1, "upstream_cost_nusd": 7_000_000}),
    ("docs.x.ai, responses: what is told stands over the items", RESPONSES, "xai", {
        "output": [{"type": "web_search_call", "action": {"type": "search"}}],
        "usage": dict(RESPONSE, server_side_tool_usage_details={"web_search_calls": 2, "x_search_calls": 1}),
    }, {**BOTH, "web_search_requests": 3}),
    ("docs.z.ai, web search in chat", CHAT, "zai", _chat(USED, web_search=[{"title": "t", "link": "l"}]),
     {**BOTH, "web_search_requests": 1}),
    ("docs.z.ai, nothing found", CHAT, "zai", _chat(USED, web_search=[]), {**BOTH, "web_search_requests": None}),
    ("docs.x.ai, live search", CHAT, "xai", _chat({**USED, "num_sources_used": 5}), {**BOTH, "priced_in_part": True}),
    ("BerriAI/litellm 37407", CHAT, "xai", _chat({
        "prompt_tokens": 2461, "completion_tokens": 303, "total_tokens": 2764, "num_sources_used": 0,
        "prompt_tokens_details": {"text_tokens": 1319, "image_tokens": 1142, "cached_tokens": 2432},
        "cost_in_usd_ticks": 49100000,
    }), {"input_tokens": 2461, "cached_input_tokens": 2432, "priced_in_part": False, "upstream_cost_nusd": 4_910_000}),
    ("platform.claude.com, advisor tool", MESSAGES, "anthropic", _claude({
        **BOTH, "iterations": [
            {"type": "message", **BOTH}, {"type": "advisor_message", "model": "claude-opus-4-8", **PASS},
        ],
    }), {**BOTH, "priced_in_part": True}),
    ("the same, of an advisor that was not asked", MESSAGES, "anthropic", _claude({
        **BOTH, "iterations": [{"type": "advisor_message", "input_tokens": 0, "output_tokens": 0}],
    }), {**BOTH, "priced_in_part": False}),
    ("platform.claude.com, server-side fallback", MESSAGES, "anthropic", _claude({**BOTH, "iterations": [
        {"type": "message", "model": "claude-opus-4-8", **PASS},
        {"type": "fallback_message", "model": "claude-haiku-4-5", **BOTH},
    ]}), {**BOTH, "priced_in_part": True}),
    ("the same model all the time", MESSAGES, "anthropic", _claude({**BOTH, "iterations": [
        {"type": "message", "model": "claude-haiku-4-5", **BOTH}, {"type": "message", **PASS},
    ]}), {**BOTH, "priced_in_part": False}),
    ("platform.minimaxi.com, a total alone", "/v1/text/chatcompletion_v2", "minimax",
     _chat({"total_tokens": 249, "total_characters": 0}), {"input_tokens": None, "output_tokens": None}),
    # -- shapes
    ("srtab/daiv 1159: parts above their whole", MESSAGES, "anthropic", _claude({
        **BOTH, "cache_creation_input_tokens": 0, "cache_creation": {"ephemeral_1h_input_tokens": 3000},
    }), {"inconsistent": True}),
    ("bgeneto/open-webui-cost-tracker 6", "/chat/completions", "perplexity", _chat({
        "prompt_tokens": 108, "completion_tokens": 3256, "total_tokens": 3364, "citation_tokens": 7299,
        "num_search_queries": 74, "reasoning_tokens": 73248,
    }), {"input_tokens": 108, "output_tokens": 3256 + 73248, "web_search_requests": 74, "inconsistent": False}),
    ("tailcallhq/forgecode 1641", CHAT, "openrouter", _chat({
        **USED, "cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.0360795},
    }), {**BOTH, "service_tier": "byok"}),
    ("PostHog/posthog 45801", GENERATE, "google", {"usageMetadata": {
        "promptTokenCount": 10, "candidatesTokenCount": 1300, "totalTokenCount": 1310,
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}, {"modality": "TEXT", "tokenCount": 10}],
    }}, {"output_tokens": 1300, "image_output_tokens": 1290}),
    ("BerriAI/litellm 31142", "/v1/images/edits", "openai", {"data": [{"b64_json": "AAAA"}], "usage": {
        "input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100,
        "input_tokens_details": {"text_tokens": 200, "image_tokens": 800},
    }}, {**BOTH, "image_input_tokens": 800, "image_output_tokens": None, "images": 1}),
    ("langchain-ai/langchain-aws 1098", CONVERSE, "bedrock", {"usage": {
        "inputTokens": 100, "outputTokens": 5, "totalTokens": 605, "cacheWriteInputTokens": 500,
        "cacheDetails": [{"inputTokens": 300, "ttl": "5m"}, {"inputTokens": 200, "ttl": "1h"}],
    }}, {"input_tokens": 600, "cache_write_input_tokens_5m": 300, "cache_write_input_tokens_1h": 200}),
    ("platform.openai.com, diarized_json", "/v1/audio/transcriptions", "openai", {
        "task": "transcribe", "duration": 27.4, "text": "x", "segments": [],
        "usage": {"type": "tokens", "input_tokens": 274, "output_tokens": 50, "total_tokens": 324,
                  "input_token_details": {"audio_tokens": 274, "text_tokens": 0}},
    }, {"input_tokens": 274, "audio_input_tokens": 274, "output_tokens": 50, "seconds": None}),
    ("docs.voyageai.com, multimodal", "/v1/multimodalembeddings", "voyageai",
     {"data": [], "usage": {"text_tokens": 5, "image_pixels": 2_000_000, "total_tokens": 3576}},
     {"input_tokens": 3576}),
    ("docs.cohere.com, images alone", "/v2/embed", "cohere",
     {"embeddings": {}, "meta": {"billed_units": {"images": 1}}}, {"input_tokens": None}),
    ("docs.sglang.ai, /generate", "/generate", "sglang",
     {"text": "x", "meta_info": {"prompt_tokens": 11, "completion_tokens": 7, "cached_tokens": 3}},
     {"input_tokens": 11, "output_tokens": 7, "cached_input_tokens": 3}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "provider", "answer", "told"), [row[1:] for row in REPORTED], ids=[row[0] for row in REPORTED]
)
def test_what_others_read_wrongly(path: str, provider: str, answer: object, told: dict[str, object]) -> None:
    kind = {"content_type": STREAM} if isinstance(answer, bytes) else {}
    reading = read(path, answer, provider=provider, **kind)
    assert {name: getattr(reading, name) for name in told} == told


@pytest.mark.parametrize(
    ("path", "head", "told"),
    [
        (GENERATE, (b"x-gemini-service-tier", b"priority"), {"service_tier": "priority"}),
        ("/v1beta/interactions", (b"x-gemini-service-tier", b"flex"), {"service_tier": "flex"}),
        (CONVERSE.replace("converse", "invoke"), (b"x-amzn-bedrock-performanceconfig-latency", b"optimized"),
         {"speed": "optimized"}),
    ],
)  # fmt: skip
def test_what_the_answers_head_alone_tells(path: str, head: tuple[bytes, bytes], told: dict[str, Any]) -> None:
    reading = read(path, {"usage": {}, "usageMetadata": {"promptTokenCount": 1}}, headers=[head])
    assert {name: getattr(reading, name) for name in told} == told


def test_a_model_asked_for_online_searches_once_unless_the_answer_says_how_often() -> None:
    asked = {"model": "openai/gpt-4o:online", "messages": []}
    assert read(CHAT, _chat(USED), provider="openrouter", asked=asked).web_search_requests == 1
    told = {**USED, "server_tool_use": {"web_search_requests": 3}}
    assert read(CHAT, _chat(told), provider="openrouter", asked=asked).web_search_requests == 3
    assert read(CHAT, {"error": {"code": 402}}, provider="openrouter", asked=asked).web_search_requests is None


def test_counting_tokens_at_vertex_uses_nothing() -> None:
    path = b"/v1/projects/p/locations/us-east5/publishers/anthropic/models/count-tokens:rawPredict"
    assert find(b"POST", path) is UNMETERED
