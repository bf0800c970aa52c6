"""Each provider's convention becomes ours; what contradicts itself is recorded as it came and marked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from answers import known, metered, read, sse
from taximeter.core.usage import Reading

CHAT = "/v1/chat/completions"
STREAM = b"text/event-stream"


def chat(usage: object, provider: str = "openai", model: str = "m") -> Reading:
    return read(CHAT, {"model": model, "choices": [], "usage": usage}, provider=provider)


@pytest.mark.parametrize(
    ("provider", "model", "usage", "want"),
    [
        ("openai", "m", {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8,
                         "prompt_tokens_details": {"cached_tokens": 0}}, (5, 3, None, False)),
        ("xai", "grok", {"prompt_tokens": 468, "completion_tokens": 82, "total_tokens": 870,
                         "completion_tokens_details": {"reasoning_tokens": 320}}, (468, 402, 320, False)),
        ("xai", "grok", {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30,
                         "completion_tokens_details": {"reasoning_tokens": 15}}, (10, 20, 15, False)),
        ("mistral", "voxtral", {"prompt_tokens": 11, "completion_tokens": 15, "total_tokens": 401,
                                "prompt_tokens_details": {"audio_tokens": 375}}, (386, 15, None, False)),
        ("google", "gemini", {"prompt_tokens": 66, "completion_tokens": 6, "total_tokens": 100}, (66, 34, 28, False)),
        ("openai", "m", {"prompt_tokens": 66, "completion_tokens": 6, "total_tokens": 100}, (66, 6, None, True)),
        ("vercel-gateway", "google/g", {"prompt_tokens": 57, "completion_tokens": 10, "total_tokens": 67,
                                        "completion_tokens_details": {"reasoning_tokens": 37}}, (57, 47, 37, False)),
        ("doubleword", "q", {"prompt_tokens": 4865, "completion_tokens": 16, "total_tokens": 4881,
                             "completion_tokens_details": {"reasoning_tokens": 19}}, (4865, 16, 19, True)),
        ("azure", "grok", {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11,
                           "prompt_tokens_details": {"cached_tokens": 161}}, (10, 1, None, True)),
        ("perplexity", "sonar-deep-research", {"prompt_tokens": 33, "completion_tokens": 7163, "total_tokens": 7196,
                                               "reasoning_tokens": 73997}, (33, 81160, 73997, False)),
    ],
)  # fmt: skip
def test_openai_dialects(provider: str, model: str, usage: object, want: tuple[object, ...]) -> None:
    reading = chat(usage, provider, model)
    assert (reading.input_tokens, reading.output_tokens, reading.reasoning_output_tokens, reading.inconsistent) == want


def test_odd_values_are_unknown_and_spoil_nothing_else() -> None:
    odd: object
    for odd in ("12", -1, 2**54, 1.5, True, None, [1], {}):
        assert known(chat({"prompt_tokens": odd, "completion_tokens": 3.0})) == {"output_tokens": 3}


@pytest.mark.parametrize("usage", [None, {}, [], "x", 7, {"trafficType": "ON_DEMAND"}])
def test_no_usage_is_nothing_and_never_zero(usage: object) -> None:
    reading = chat(usage)
    assert known(reading) == {}
    assert not reading.reported
    assert reading.finished


def test_the_usage_object_is_kept_as_it_came() -> None:
    body = b'{"choices":[],"usage": {"prompt_tokens" : 1,"completion_tokens":2, "odd":[1e3]}}'
    assert bytes(read(CHAT, body).usage) == b'{"prompt_tokens" : 1,"completion_tokens":2, "odd":[1e3]}'
    huge = json.dumps({"usage": {"prompt_tokens": 1, "completion_tokens": 2, "odd": "x" * 50_000}}).encode()
    reading = read(CHAT, huge)
    assert reading.output_tokens == 2
    assert len(bytes(reading.usage)) < 20_000


@pytest.mark.parametrize(
    ("usage", "nusd"),
    [
        ({"cost": 3.4e-07}, 340),
        ({"cost": 0}, 0),
        ({"cost": "0.003938"}, 3_938_000),
        ({"cost": {"total_cost": 0.005}}, 5_000_000),
        ({"cost_in_usd_ticks": 709500}, 70950),
        ({"cost_in_usd_ticks": 15}, 2),
        ({"pydantic_ai_gateway": {"cost_estimate": 0.1}}, 100_000_000),
        ({"cost": -1}, None),
        ({"cost": "NaN"}, None),
        ({"cost": 1e30}, None),
        ({"cost": True}, None),
    ],
)
def test_the_cost_a_provider_states(usage: object, nusd: int | None) -> None:
    assert chat(usage).upstream_cost_nusd == nusd


def test_a_cost_in_the_head_is_read() -> None:
    reading = read(CHAT, {"usage": {"prompt_tokens": 1}}, headers=[(b"x-litellm-response-cost", b"2.5e-06")])
    assert reading.upstream_cost_nusd == 2500


def test_groq_tells_twice_and_counts_once() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    body = sse(
        {"model": "m", "choices": [{"delta": {}, "finish_reason": "stop"}], "x_groq": {"id": "r", "usage": usage}},
        {"model": "m", "choices": [], "usage": usage},
        b"[DONE]",
    )
    assert known(read(CHAT, body, content_type=STREAM)) == {"input_tokens": 5, "output_tokens": 3}


def test_cumulative_usage_is_replaced_member_by_member() -> None:
    body = sse(
        {"choices": [{}], "usage": {"prompt_tokens": 9, "completion_tokens": None, "total_tokens": None}},
        {"choices": [{}], "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}},
        {"choices": [], "usage": None},
    )
    assert known(read(CHAT, body, content_type=STREAM)) == {"input_tokens": 9, "output_tokens": 4}


def test_moonshots_usage_inside_a_choice_is_read() -> None:
    body = sse({"choices": [{"delta": {}, "usage": {"prompt_tokens": 9, "completion_tokens": 4, "cached_tokens": 2}}]})
    want = {"input_tokens": 9, "output_tokens": 4, "cached_input_tokens": 2}
    assert known(read(CHAT, body, content_type=STREAM)) == want


def anthropic(*events: object) -> Reading:
    return read("/v1/messages", sse(*events), content_type=STREAM, provider="anthropic")


START = {"type": "message_start", "message": {"model": "claude", "usage": {
    "input_tokens": 11, "cache_read_input_tokens": 1031, "cache_creation_input_tokens": 5, "output_tokens": 1,
}}}  # fmt: skip


def test_anthropic_input_includes_the_cache_and_the_delta_replaces() -> None:
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 40}}
    reading = anthropic(START, {"type": "ping"}, delta, {"type": "message_stop"})
    want = {"input_tokens": 1047, "cached_input_tokens": 1031, "cache_write_input_tokens": 5, "output_tokens": 40}
    assert known(reading) == want
    assert (reading.response_model, reading.finished) == ("claude", True)


def test_a_cut_anthropic_stream_does_not_report_the_first_tokens_count() -> None:
    assert anthropic(START).output_tokens is None
    assert anthropic(START).input_tokens == 1047
    assert anthropic(START, {"type": "message_stop"}).output_tokens == 1


def test_anthropic_vendors_split_the_cache_only_at_the_end() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 100, "output_tokens": 0}}}
    usage = {"input_tokens": 20, "cache_read_input_tokens": 80, "output_tokens": 7}
    reading = anthropic(start, {"type": "message_delta", "usage": usage})
    assert known(reading) == {"input_tokens": 100, "cached_input_tokens": 80, "output_tokens": 7}


def test_a_compaction_pass_is_billed_on_top() -> None:
    usage = {"input_tokens": 162, "output_tokens": 11, "iterations": [
        {"type": "compaction", "input_tokens": 99195, "output_tokens": 81},
        {"type": "message", "input_tokens": 162, "output_tokens": 11}]}  # fmt: skip
    assert known(read("/v1/messages", {"usage": usage})) == {"input_tokens": 99357, "output_tokens": 92}


def gemini(**usage: object) -> Reading:
    return read("/v1beta/models/g:generateContent", {"usageMetadata": usage}, provider="google")


def test_gemini_adds_thoughts_and_tool_prompts() -> None:
    reading = gemini(promptTokenCount=10, toolUsePromptTokenCount=4, candidatesTokenCount=3, thoughtsTokenCount=5,
                     totalTokenCount=22, cachedContentTokenCount=2)  # fmt: skip
    assert (reading.input_tokens, reading.output_tokens, reading.reasoning_output_tokens) == (14, 8, 5)
    assert reading.cached_input_tokens == 2
    assert not reading.inconsistent
    assert gemini(promptTokenCount=10, candidatesTokenCount=3, totalTokenCount=14).inconsistent


def test_gemini_leaves_zeros_out_and_the_total_tells() -> None:
    assert known(gemini(promptTokenCount=10, totalTokenCount=10)) == {"input_tokens": 10, "output_tokens": 0}
    assert known(gemini(candidatesTokenCount=10, totalTokenCount=15)) == {"input_tokens": 5, "output_tokens": 10}
    assert known(gemini(promptTokenCount=10)) == {"input_tokens": 10}
    assert known(gemini(trafficType="ON_DEMAND")) == {}


def test_geminis_last_counting_chunk_stands_as_a_whole() -> None:
    chunks = [
        {"usageMetadata": {"promptTokenCount": 20, "candidatesTokenCount": 21, "totalTokenCount": 41}},
        {"usageMetadata": {"promptTokenCount": 89, "thoughtsTokenCount": 9, "totalTokenCount": 98}},
        {"usageMetadata": {"trafficType": "ON_DEMAND"}},
    ]
    want = {"input_tokens": 89, "output_tokens": 9, "reasoning_output_tokens": 9}
    path = "/v1beta/models/g:streamGenerateContent"
    assert known(read(path, sse(*chunks), content_type=STREAM)) == want
    assert known(read(path, chunks)) == want  # without alt=sse: one array


def test_gemini_modalities_by_name_or_number() -> None:
    for audio, image in (("AUDIO", "IMAGE"), (4, 2)):
        reading = gemini(promptTokenCount=30, candidatesTokenCount=1, totalTokenCount=31, promptTokensDetails=[
            {"modality": audio, "tokenCount": 10}, {"modality": image, "tokenCount": 15}, {"modality": "TEXT"},
        ])  # fmt: skip
        assert (reading.audio_input_tokens, reading.image_input_tokens) == (10, 15)


def test_vertex_predictions_are_summed_at_any_length() -> None:
    one = {"embeddings": {"statistics": {"token_count": 7, "truncated": False}, "values": [0.123456789] * 768}}
    path = "/v1/publishers/google/models/text-embedding-004:predict"
    assert read(path, {"predictions": [one] * 3}).input_tokens == 21
    assert read(path, {"predictions": [one] * 250}).input_tokens == 1750


def test_cohere_is_read_by_what_it_bills() -> None:
    usage = {
        "billed_units": {"input_tokens": 24, "output_tokens": 63},
        "tokens": {"input_tokens": 553, "output_tokens": 64},
        "cached_tokens": 480,
    }
    assert known(read("/v2/chat", {"usage": usage})) == {"input_tokens": 24, "output_tokens": 63}
    body = sse({"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}}, b"[DONE]")
    meter = metered("/v2/chat", body, content_type=STREAM)
    assert meter.terminal
    assert known(meter.reading()) == {"input_tokens": 24, "output_tokens": 63}
    assert known(read("/v2/rerank", {"meta": {"billed_units": {"search_units": 1}}})) == {"search_units": 1}


@pytest.mark.parametrize(
    ("body", "want"),
    [
        ({"usage": {"total_tokens": 43}}, {"input_tokens": 43}),
        ({"usage": {"prompt_tokens": 9, "total_tokens": 9}}, {"input_tokens": 9}),
        ({"meta": {"tokens": {"input_tokens": 5, "output_tokens": 0}}}, {"input_tokens": 5, "output_tokens": 0}),
        ({"usage": {"total_tokens": 17, "cost": 3.4e-07}}, {"input_tokens": 17, "upstream_cost_nusd": 340}),
        ([{"index": 0, "score": 1}], {}),
    ],
)
def test_rerank_dialects(body: object, want: object) -> None:
    assert known(read("/v1/rerank", body)) == want


def test_ollama_without_a_prompt_count_knows_no_input() -> None:
    body = b'{"model":"l","message":{"content":"hi"},"done":false}\n{"model":"l","done":true,"eval_count":4}\n'
    meter = metered("/api/chat", body, content_type=b"application/x-ndjson")
    assert known(meter.reading()) == {"output_tokens": 4}
    assert meter.terminal
    assert meter.output().texts == ["hi"]


def test_responses_end_in_three_ways() -> None:
    usage = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8, "output_tokens_details": {"reasoning_tokens": 2}}
    for ending, failed in (("completed", False), ("incomplete", False), ("failed", True)):
        body = sse(
            {"type": "response.created", "response": {"model": "m", "usage": None, "error": None}},
            {"type": "response.output_text.delta", "delta": "hi"},
            {"type": f"response.{ending}", "response": {"model": "m", "usage": usage}},
        )
        meter = metered("/v1/responses", body, content_type=STREAM)
        assert known(meter.reading()) == {"input_tokens": 5, "output_tokens": 3, "reasoning_output_tokens": 2}
        assert (meter.terminal, meter.reading().failed) == (True, failed)
        assert meter.output().texts == ["hi"]


def test_a_completed_response_too_long_to_keep_is_still_metered() -> None:
    text = "x" * 600_000
    done = {"type": "response.completed", "response": {"model": "m", "output": [{"result": text}],
            "usage": {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}, "user": None}}  # fmt: skip
    meter = metered("/v1/responses", sse(done), content_type=STREAM)
    assert known(meter.reading()) == {"input_tokens": 5, "output_tokens": 3}
    assert meter.terminal


def test_audio_is_billed_by_tokens_or_by_time() -> None:
    path = "/v1/audio/transcriptions"
    tokens = {"type": "tokens", "input_tokens": 25, "output_tokens": 6, "total_tokens": 31,
              "input_token_details": {"text_tokens": 4, "audio_tokens": 21}}  # fmt: skip
    want = {"input_tokens": 25, "output_tokens": 6, "audio_input_tokens": 21}
    assert known(read(path, {"text": "x", "usage": tokens})) == want
    assert known(read(path, {"usage": {"type": "duration", "seconds": 6}})) == {"seconds": 6.0}
    assert known(read(path, b"1\n00:00:00 --> 00:00:01\nHello", content_type=b"text/plain")) == {}


def test_watsonx_counts_the_largest_and_tgi_reads_its_head() -> None:
    body = sse(*({"model_id": "g", "results": [{"generated_token_count": out, "input_token_count": into}]}
                 for out, into in ((0, 8), (5, 0), (11, 0))))  # fmt: skip
    assert known(read("/ml/v1/text/generation_stream", body, content_type=STREAM)) == {
        "input_tokens": 8,
        "output_tokens": 11,
    }
    tgi = [{"generated_text": "a", "details": {"generated_tokens": 75, "tokens": []}}]
    want = {"input_tokens": 12, "output_tokens": 75}
    assert known(read("/", tgi, headers=[(b"x-prompt-tokens", b"12"), (b"x-generated-tokens", b"75")])) == want
    sglang = {"text": "a", "meta_info": {"prompt_tokens": 4, "completion_tokens": 2}}
    assert known(read("/generate", sglang)) == {"input_tokens": 4, "output_tokens": 2}


def test_a_request_id_in_the_head_beats_the_bodys() -> None:
    body = {"id": "chatcmpl-1", "usage": {"prompt_tokens": 1}}
    assert read(CHAT, body).upstream_request_id == "chatcmpl-1"
    assert read(CHAT, body, headers=[(b"x-request-id", b"req_7")]).upstream_request_id == "req_7"


def test_the_kept_usage_fits_a_line_and_its_numbers_stay() -> None:
    body = b'{\r\n "usage": {\n  "prompt_tokens": 1,\n  "odd": 1.50,\n "big": 123456789012345678901234567890\n }\n}'
    kept = bytes(read(CHAT, body).usage)
    assert kept == b'{"prompt_tokens":1,"odd":1.50,"big":123456789012345678901234567890}'


def test_a_number_too_long_for_anything_harms_nothing() -> None:
    body = sse(*({"choices": [], "usage": {name: 10**30, "prompt_tokens": 3}} for name in "ab"))
    reading = read(CHAT, body, content_type=STREAM)
    assert known(reading) == {"input_tokens": 3}
    assert json.loads(bytes(reading.usage)) == {"a": 10**30, "b": 10**30, "prompt_tokens": 3}


def test_usage_that_keeps_growing_does_not_fill_memory() -> None:
    events = [{"choices": [], "usage": {f"k{number}": 1, "prompt_tokens": number}} for number in range(2000)]
    reading = read(CHAT, sse(*events), content_type=STREAM)
    assert reading.input_tokens == 1999
    assert len(bytes(reading.usage)) < 4096


def test_names_have_a_bound() -> None:
    reading = read(CHAT, {"id": "i" * 9999, "model": "m" * 9999, "service_tier": "t" * 9999, "usage": None})
    assert {len(str(one)) for one in (reading.upstream_request_id, reading.response_model, reading.service_tier)} == {
        256
    }


def streamed(path: str, *events: object, **kwargs: Any) -> dict[str, object]:
    return known(read(path, sse(*events), content_type=STREAM, **kwargs))


def test_qwens_cache_writes_stand_in_the_details() -> None:
    # help.aliyun.com/en/model-studio, context cache (explicit)
    details = {"cache_creation_input_tokens": 1889, "cache_type": "ephemeral", "cached_tokens": 0}
    usage = {"prompt_tokens": 2000, "completion_tokens": 10, "total_tokens": 2010, "prompt_tokens_details": details}
    assert chat(usage, "qwen").cache_write_input_tokens == 1889


@pytest.mark.parametrize("last", [
    {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    {"prompt_tokens": 0, "completion_tokens": 26, "total_tokens": 26},
    {"prompt_tokens": 30, "completion_tokens": 0, "total_tokens": 30,
     "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {}},
    {"prompt_tokens": 0.0, "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0}},
])  # fmt: skip
def test_a_later_zero_erases_no_count(last: dict[str, object]) -> None:
    usage = {
        "prompt_tokens": 30, "completion_tokens": 26, "total_tokens": 56, "prompt_tokens_details": {"cached_tokens": 9},
    }  # fmt: skip
    chunk = {"choices": [{"index": 0, "delta": {"content": "x"}}], "usage": usage}
    body = sse(chunk, {"choices": [], "usage": last}, b"[DONE]")
    reading = read(CHAT, body, content_type=STREAM)
    assert (reading.input_tokens, reading.output_tokens, reading.cached_input_tokens) == (30, 26, 9)
    assert not reading.inconsistent
    assert json.loads(bytes(reading.usage))["prompt_tokens"] == 30


def test_a_later_count_still_replaces_and_zeros_alone_are_zeros() -> None:
    first, later = ({"prompt_tokens": 9, "completion_tokens": out, "total_tokens": 9 + out} for out in (0, 4))
    assert streamed(CHAT, {"choices": [{}], "usage": first}, {"choices": [], "usage": later}) == {
        "input_tokens": 9,
        "output_tokens": 4,
    }
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert streamed(CHAT, {"choices": [], "usage": zeros}) == {"input_tokens": 0, "output_tokens": 0}


def test_anthropics_delta_may_repeat_the_input_as_zero() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 15, "output_tokens": 1}}}
    delta = {"type": "message_delta", "usage": {"input_tokens": 0, "output_tokens": 30}}
    assert known(anthropic(start, delta)) == {"input_tokens": 15, "output_tokens": 30}
    all_cached = {"type": "message_delta", "usage": {
        "input_tokens": 0, "cache_read_input_tokens": 15, "output_tokens": 30}}  # fmt: skip
    assert known(anthropic(start, all_cached)) == {
        "input_tokens": 15,
        "cached_input_tokens": 15,
        "output_tokens": 30,
    }


def test_other_dialects_zeros_erase_nothing_either() -> None:
    counts = {"promptTokenCount": 20, "candidatesTokenCount": 21, "totalTokenCount": 41}
    path = "/v1beta/models/g:streamGenerateContent"
    chunks = [{"usageMetadata": counts}, {"usageMetadata": dict.fromkeys(counts, 0)}]
    assert streamed(path, *chunks) == {"input_tokens": 20, "output_tokens": 21}
    assert streamed(path, chunks[1]) == {"input_tokens": 0, "output_tokens": 0}
    lines = b"".join(
        b'{"model":"l","done":%s,"prompt_eval_count":%d,"eval_count":%d}\n' % line
        for line in ((b"false", 7, 3), (b"true", 0, 0))
    )
    assert known(read("/api/chat", lines, content_type=b"application/x-ndjson")) == {
        "input_tokens": 7,
        "output_tokens": 3,
    }
    metrics = {"inputTokenCount": 0, "outputTokenCount": 0}
    body = {"usage": {"input_tokens": 5, "output_tokens": 3}, "amazon-bedrock-invocationMetrics": metrics}
    assert known(read("/model/m/invoke", body)) == {"input_tokens": 5, "output_tokens": 3}


def test_running_counts_of_each_choice_are_not_the_answers() -> None:
    def running(index: int, out: int) -> object:
        usage = {"prompt_tokens": 5, "completion_tokens": out, "total_tokens": 5 + out}
        return {"choices": [{"index": index, "delta": {"content": "x"}}], "usage": usage}

    chunks = [running(0, 1), running(1, 1), running(0, 2), running(1, 2)]
    assert streamed(CHAT, *chunks) == {"input_tokens": 5}
    total = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}}
    assert streamed(CHAT, *chunks, total) == {"input_tokens": 5, "output_tokens": 4}
    assert streamed(CHAT, running(0, 1), running(0, 2)) == {"input_tokens": 5, "output_tokens": 2}
    assert streamed(CHAT, running(1, 4)) == {"input_tokens": 5, "output_tokens": 4}
    whole = {"choices": [{"index": 0}, {"index": 1}], "usage": {"prompt_tokens": 5, "completion_tokens": 4}}
    assert known(read(CHAT, whole)) == {"input_tokens": 5, "output_tokens": 4}


@pytest.mark.parametrize("usage", [
    {"inputTokens": 5, "outputTokens": 3, "totalTokens": 8},
    {"promptTokenCount": 5, "candidatesTokenCount": 1, "thoughtsTokenCount": 2, "totalTokenCount": 8},
    {"input_tokens": 3, "cache_read_input_tokens": 2, "output_tokens": 3},
    {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8},
    {"billed_units": {"input_tokens": 5, "output_tokens": 3}},
    {"prompt_tokens": 5, "completion_tokens": 3},
])  # fmt: skip
def test_an_unknown_apis_convention_is_told_by_its_names(usage: dict[str, object]) -> None:
    reading = read("/v9/of/tomorrow", {"usage": usage})
    assert (reading.input_tokens, reading.output_tokens, reading.inconsistent) == (5, 3, False)
