"""Dialects no recording of ours holds: answers written from each provider's published shapes, one row each.

A row is path, answer, what must be read. Its comment names where the shape is published.
"""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from answers import known, metered, read, sse
from taximeter.core.record import Operation
from taximeter.flavors import find
from taximeter.flavors.meter import Answer

STREAM = b"text/event-stream"
SERVICES = "/api/v1/services/"
OPENAI = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
BOTH = {"input_tokens": 11, "output_tokens": 7}
INPUT = {"input_tokens": 11}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
LLM, EMBEDDING, RERANK, OTHER = Operation.LLM, Operation.EMBEDDING, Operation.RERANK, Operation.OTHER

UNARY = {
    # help.aliyun.com/en/model-studio, DashScope API reference
    "dashscope text": (
        "/api/v1/services/aigc/text-generation/generation",
        {"output": {"choices": [CHOICE]}, "request_id": "r",
         "usage": {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18,
                   "prompt_tokens_details": {"cached_tokens": 4}}},
        LLM, {**BOTH, "cached_input_tokens": 4},
    ),
    "dashscope multimodal": (
        "/api/v1/services/aigc/multimodal-generation/generation",
        {"output": {"choices": [CHOICE]}, "usage": {"input_tokens": 11, "output_tokens": 7, "image_tokens": 5}},
        LLM, BOTH,
    ),
    "dashscope embeddings": (
        "/api/v1/services/embeddings/text-embedding/text-embedding",
        {"output": {"embeddings": []}, "usage": {"total_tokens": 11}, "request_id": "r"}, EMBEDDING, INPUT,
    ),
    "dashscope rerank": (
        "/api/v1/services/rerank/text-rerank/text-rerank",
        {"output": {"results": []}, "usage": {"total_tokens": 11}, "request_id": "r"}, RERANK, INPUT,
    ),
    # docs.mistral.ai/api
    "mistral agents": ("/v1/agents/completions", {"choices": [CHOICE], "usage": OPENAI}, LLM, BOTH),
    "mistral fim": ("/v1/fim/completions", {"choices": [CHOICE], "usage": OPENAI}, LLM, BOTH),
    "mistral conversation": (
        "/v1/conversations/conv_1",
        {"outputs": [], "usage": {"prompt_tokens": 177, "completion_tokens": 134, "total_tokens": 4240,
                                  "connector_tokens": 3929, "connectors": {"web_search": 1}}},
        LLM, {"input_tokens": 177 + 3929, "output_tokens": 134, "web_search_requests": 1},
    ),
    "mistral ocr": ("/v1/ocr", {"pages": [], "model": "m", "usage_info": {"pages_processed": 3}}, OTHER,
                    {"pages": 3}),
    "mistral moderation": ("/v1/moderations", {"results": [], "usage": OPENAI}, OTHER, BOTH),
    # developers.cloudflare.com/workers-ai
    "cloudflare chat": (
        "/client/v4/accounts/a/ai/run/@cf/meta/llama-3.1-8b-instruct",
        {"result": {"response": "hi", "usage": OPENAI}, "success": True, "errors": [], "messages": []}, LLM, BOTH,
    ),
    "cloudflare embeddings": (
        "/client/v4/accounts/a/ai/run/@cf/baai/bge-m3",
        {"result": {"shape": [1, 2], "data": [[0.5, 1]], "usage": {"prompt_tokens": 11, "total_tokens": 11}}},
        EMBEDDING, INPUT,
    ),
    "cloudflare rerank": (
        "/client/v4/accounts/a/ai/run/@cf/baai/bge-reranker-base",
        {"result": {"response": [{"id": 0, "score": 0.1}]}, "success": True}, RERANK, {},
    ),
    # docs.databricks.com, "Foundation model REST API reference"; docs.aws.amazon.com/sagemaker
    "databricks chat": ("/serving-endpoints/my-llama/invocations", {"choices": [CHOICE], "usage": OPENAI}, LLM, BOTH),
    "databricks embeddings": (
        "/serving-endpoints/databricks-gte-large-en/invocations",
        {"data": [], "usage": {"prompt_tokens": 11, "total_tokens": 11}}, EMBEDDING, INPUT,
    ),
    "sagemaker": ("/endpoints/my-vllm/invocations", {"choices": [CHOICE], "usage": OPENAI}, LLM, BOTH),
    # docs.snowflake.com, Cortex REST API
    "snowflake complete": ("/api/v2/cortex/inference:complete", {"choices": [CHOICE], "usage": OPENAI}, LLM, BOTH),
    "snowflake embed": (
        "/api/v2/cortex/inference:embed", {"data": [], "usage": {"total_tokens": 11}}, EMBEDDING, INPUT,
    ),
    # help.sap.com, generative AI hub, orchestration (v1 and v2)
    "sap orchestration": (
        "/v2/inference/deployments/d/completion",
        {"request_id": "r", "module_results": {"llm": {"usage": {"prompt_tokens": 99}}},
         "orchestration_result": {"id": "c", "model": "gpt-4o", "choices": [CHOICE], "usage": OPENAI}},
        LLM, BOTH,
    ),
    "sap orchestration v2": (
        "/v2/inference/deployments/d/v2/completion", {"final_result": {"choices": [CHOICE], "usage": OPENAI}}, LLM, BOTH
    ),
    # docs.oracle.com, GenerativeAiInference, GenericChatResponse.usage
    "oracle": (
        "/20231130/actions/chat",
        {"modelId": "m", "chatResponse": {"apiFormat": "GENERIC", "choices": [CHOICE], "usage": {
            "promptTokens": 11, "completionTokens": 7, "totalTokens": 18,
            "completionTokensDetails": {"reasoningTokens": 2}, "promptTokensDetails": {"cachedTokens": 3}}}},
        LLM, {**BOTH, "reasoning_output_tokens": 2, "cached_input_tokens": 3},
    ),
    # yandex.cloud/docs/foundation-models: counts are strings, as protobuf's JSON writes 64-bit integers
    "yandex": (
        "/foundationModels/v1/completion",
        {"result": {"usage": {"inputTextTokens": "11", "completionTokens": "7", "totalTokens": "18"}}},
        LLM, BOTH,
    ),
    # cloud.baidu.com/doc/WENXINWORKSHOP
    "baidu": ("/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/ernie-4.0", {"result": "hi", "usage": OPENAI}, LLM, BOTH),
    "baidu embeddings": (
        "/rpc/2.0/ai_custom/v1/wenxinworkshop/embeddings/bge_large_zh", {"data": [], "usage": OPENAI}, EMBEDDING, BOTH,
    ),
    # platform.minimax.io
    "minimax": ("/v1/text/chatcompletion_v2", {"choices": [CHOICE], "usage": OPENAI}, LLM, BOTH),
    # ibm.com/docs, watsonx.ai text embeddings and rerank
    "watsonx chat": ("/ml/v1/text/chat", {"choices": [CHOICE], "usage": OPENAI}, LLM, BOTH),
    "watsonx embeddings": (
        "/ml/v1/text/embeddings", {"model_id": "slate", "results": [], "input_token_count": 11}, EMBEDDING, INPUT,
    ),
    "watsonx rerank": (
        "/ml/v1/text/rerank", {"model_id": "m", "results": [], "input_token_count": 11}, RERANK, INPUT,
    ),
    # docs.voyageai.com
    "voyage multimodal": (
        "/v1/multimodalembeddings", {"data": [], "usage": {"text_tokens": 5, "image_pixels": 99, "total_tokens": 11}},
        EMBEDDING, INPUT,
    ),
    "voyage contextualized": (
        "/v1/contextualizedembeddings", {"data": [], "usage": {"total_tokens": 11}}, EMBEDDING, INPUT,
    ),
    # api.jina.ai/redoc
    "jina embeddings": (
        "/v1/embeddings", {"model": "j", "usage": {"total_tokens": 11, "prompt_tokens": 11}, "data": []},
        EMBEDDING, INPUT,
    ),
    "jina multi-vector": (
        "/v1/multi-vector", {"data": [], "usage": {"total_tokens": 11}}, EMBEDDING, INPUT,
    ),
    # docs.vllm.ai, online serving
    "vllm score": (
        "/score", {"data": [{"score": 1}], "usage": {"prompt_tokens": 11, "total_tokens": 11, "completion_tokens": 0}},
        RERANK, {"input_tokens": 11, "output_tokens": 0},
    ),
    "vllm pooling": ("/pooling", {"data": [], "usage": {"prompt_tokens": 11, "total_tokens": 11}}, EMBEDDING, INPUT),
    "vllm rerank": ("/v2/rerank", {"results": [], "usage": {"total_tokens": 11}}, RERANK, INPUT),
    "vllm classify": ("/classify", {"data": [], "usage": {"prompt_tokens": 11, "total_tokens": 11}}, OTHER, INPUT),
    # inference.readthedocs.io (Xinference); docs.siliconflow.com; docs.nvidia.com/nim
    "xinference rerank": ("/v1/rerank", {"results": [], "meta": {"tokens": {"input_tokens": 11}}}, RERANK, INPUT),
    "siliconflow rerank": ("/v1/rerank", {"results": [], "tokens": {"input_tokens": 11}}, RERANK, INPUT),
    "nim ranking": (
        "/v1/ranking", {"rankings": [], "usage": {"prompt_tokens": 11, "total_tokens": 11}}, RERANK, INPUT,
    ),
    # docs.ai21.com; docs.aleph-alpha.com
    "aleph alpha embedding": (
        "/semantic_embed", {"model_version": "v", "embedding": [], "num_tokens_prompt_total": 11}, EMBEDDING, INPUT,
    ),
    "cohere summarize": (
        "/v1/summarize", {"meta": {"billed_units": {"input_tokens": 11, "output_tokens": 7}}}, LLM, BOTH,
    ),
    # lmstudio.ai/docs/developer/rest
    "lm studio v0": ("/api/v0/chat/completions", {"choices": [CHOICE], "usage": OPENAI, "stats": {}}, LLM, BOTH),
    "lm studio v1": (
        "/api/v1/chat",
        {"model_instance_id": "m", "output": [{"type": "message", "content": "hi"}],
         "stats": {"input_tokens": 11, "total_output_tokens": 7, "reasoning_output_tokens": 2}},
        LLM, {**BOTH, "reasoning_output_tokens": 2},
    ),
    # github.com/ggml-org/llama.cpp, tools/server: prompt_n leaves out what was cached, tokens_evaluated does not
    "llama.cpp completion": (
        "/completion",
        {"content": "hi", "tokens_evaluated": 11, "tokens_predicted": 7, "timings": {"prompt_n": 1, "predicted_n": 7}},
        LLM, BOTH,
    ),
    "llama.cpp infill": ("/infill", {"content": "hi", "tokens_evaluated": 11, "tokens_predicted": 7}, LLM, BOTH),
    # github.com/LostRuins/koboldcpp
    # huggingface.co/docs/api-inference, before the router
    "hugging face": (
        "/models/bigcode/starcoder", [{"generated_text": "hi", "details": {"generated_tokens": 7, "tokens": []}}], LLM,
        {"output_tokens": 7},
    ),
    "hugging face embeddings": ("/models/BAAI/bge-large", [[0.5]], EMBEDDING, {}),
    "koboldcpp": (
        "/api/v1/generate", {"results": [{"text": "hi", "prompt_tokens": 11, "completion_tokens": 7}]}, LLM, BOTH,
    ),
    # docs.anthropic.com behind other fronts
    "foundry claude": (
        "/anthropic/v1/messages", {"type": "message", "usage": {"input_tokens": 11, "output_tokens": 7}}, LLM, BOTH,
    ),
    "vertex mistral": (
        "/v1/projects/p/locations/l/publishers/mistralai/models/mistral-large:rawPredict",
        {"choices": [CHOICE], "usage": OPENAI}, LLM, BOTH,
    ),
    # deepinfra.com/docs
    "deepinfra": (
        "/v1/openai/chat/completions", {"choices": [CHOICE], "usage": {**OPENAI, "estimated_cost": 3.4e-07}}, LLM,
        {**BOTH, "upstream_cost_nusd": 340},
    ),
    "deepinfra native": (
        "/v1/inference/meta-llama/Llama-3", {"results": [], "inference_status": {
            "status": "succeeded", "cost": 1e-06, "tokens_input": 11, "tokens_generated": 7}},
        OTHER, {**BOTH, "upstream_cost_nusd": 1000},
    ),
    # replicate.com/docs, `Prefer: wait`
    "replicate": (
        "/v1/models/meta/llama/predictions",
        {"id": "p", "metrics": {"input_token_count": 11, "output_token_count": 7, "predict_time": 1.5}},
        OTHER, BOTH,
    ),
    # platform.openai.com, legacy
    "openai edits": ("/v1/edits", {"choices": [{"text": "hi"}], "usage": OPENAI}, LLM, BOTH),
    "volcengine": ("/api/v3/chat/completions", {"choices": [CHOICE], "usage": OPENAI}, LLM, BOTH),
    "volcengine multimodal": (
        "/api/v3/embeddings/multimodal", {"data": {}, "usage": {"prompt_tokens": 11, "total_tokens": 11}},
        EMBEDDING, INPUT,
    ),
    "imagen": ("/v1/publishers/google/models/imagen-4.0:predict", {"predictions": []}, OTHER, {"images": 0}),
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_an_answer_in_its_published_shape(name: str) -> None:
    path, body, operation, want = UNARY[name]
    for prefix in ("", "/gateway"):
        assert find(b"POST", (prefix + path).encode()).operation is operation
        reading = read(prefix + path, body)
        assert known(reading) == want
        assert not reading.inconsistent
        assert not reading.failed


STREAMS = {
    "dashscope repeats a growing usage": (
        "/api/v1/services/aigc/text-generation/generation",
        sse(*({"output": {"choices": [{"message": {"content": word}, "finish_reason": end}]},
               "usage": {"input_tokens": 11, "output_tokens": out, "total_tokens": 11 + out}}
              for word, end, out in (("h", "null", 3), ("i", "stop", 7)))),
        BOTH, "hi",
    ),
    "cloudflare": (
        "/client/v4/accounts/a/ai/run/@cf/meta/llama-3.1-8b-instruct",
        sse({"response": "h", "p": "x"}, {"response": "i", "usage": OPENAI}, b"[DONE]"), BOTH, "hi",
    ),
    "mistral conversation": (
        "/v1/conversations",
        sse({"type": "conversation.response.started", "conversation_id": "c"},
            {"type": "message.output.delta", "content": "hi"},
            {"type": "conversation.response.done", "usage": {**OPENAI, "connector_tokens": None}}),
        BOTH, "hi",
    ),
    "sap": (
        "/v2/inference/deployments/d/completion",
        sse({"orchestration_result": {"choices": [{"delta": {"content": "hi"}}]}},
            {"orchestration_result": {"choices": [], "usage": OPENAI}}, b"[DONE]"), BOTH, "hi",
    ),
    "databricks": (
        "/serving-endpoints/m/invocations",
        sse({"choices": [{"delta": {"content": "hi"}}], "usage": {"prompt_tokens": 11, "completion_tokens": None}},
            {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": OPENAI}, b"[DONE]"), BOTH, "hi",
    ),
    "lm studio": (
        "/api/v1/chat",
        sse({"type": "chat.start"}, {"type": "message.delta", "content": "hi"},
            {"type": "chat.end", "result": {"output": [], "stats": {"input_tokens": 11, "total_output_tokens": 7}}}),
        BOTH, "hi",
    ),
    "llama.cpp": (
        "/completion",
        sse({"content": "hi", "stop": False}, {"content": "", "stop": True, "tokens_evaluated": 11,
                                               "tokens_predicted": 7}), BOTH, "hi",
    ),
    "koboldcpp tells nothing and is counted": (
        "/api/extra/generate/stream", sse({"token": "h"}, {"token": "i", "finish_reason": "stop"}), {}, "hi",
    ),
    "unknown": ("/v9/of/tomorrow", sse({"delta": "hi"}, {"type": "done", "usage": OPENAI}), BOTH, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_in_its_published_shape(name: str) -> None:
    path, body, want, said = STREAMS[name]
    meter = metered(path, body, content_type=STREAM)
    assert known(meter.reading()) == want
    assert "".join(meter.output().texts) == said


@settings(deadline=None)
@given(name=st.sampled_from(sorted(STREAMS)), at=st.lists(st.integers(0, 600), max_size=6))
def test_a_stream_is_read_the_same_at_any_cut(name: str, at: list[int]) -> None:
    path, body, want, said = STREAMS[name]
    places = [0, *sorted({place % len(body) for place in at} - {0}), len(body)]
    assert _fed(path, [body[start:end] for start, end in pairwise(places)]) == (want, said)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted([*UNARY, *STREAMS])))
def test_a_spoilt_answer_never_raises(data: st.DataObject, name: str) -> None:
    if name in UNARY:
        path, body, *_ = UNARY[name]
        whole = bytearray(json.dumps(body).encode())
    else:
        path, body, *_ = STREAMS[name]
        whole = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        start, end = sorted(data.draw(st.integers(0, len(whole))) for _ in "ab")
        whole[start : min(end, start + 30)] = data.draw(
            st.sampled_from([b"", b"null", b"-1", b"[", b'"x"', b"{}", b"1e9"])
        )
    figures, _ = _fed(path, [bytes(whole)])
    assert all(value >= 0 for value in figures.values())


def _fed(path: str, pieces: list[bytes]) -> tuple[dict[str, Any], str]:
    flavor = find(b"POST", path.encode())
    answer = Answer(status=200, content_type=STREAM)
    meter = flavor.meter(flavor.prepare(b"", path.encode(), inject=False), answer, "openai")
    for piece in pieces:
        assert meter.feed(piece) is piece
    assert meter.finish() == b""
    return known(meter.reading()), "".join(meter.output().texts)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        # a bare array tells nothing; the head does (huggingface.co/docs/text-embeddings-inference)
        ("/embed", [[0.5, 0.25]]),
        ("/embed_sparse", [[{"index": 1, "value": 0.5}]]),
        ("/rerank", [{"index": 0, "score": 0.9}]),
        ("/v1/embeddings", {"data": []}),
        ("/hf-inference/models/BAAI/bge-m3/pipeline/feature-extraction", [[0.5]]),
    ],
)
def test_tei_tells_its_tokens_in_the_head(path: str, body: object) -> None:
    assert known(read(path, body, headers=[(b"x-compute-tokens", b"11")])) == INPUT
    assert known(read(path, body)) == {}


def test_what_reads_back_or_prepares_work_is_never_counted() -> None:
    poll = {"id": "x", "object": "batch", "usage": OPENAI}
    for path in ("/v1/batches", "/v1/batches/b/cancel", "/v1/responses/r/cancel", "/v1beta/cachedContents", "/v1/files",
                 "/v1/threads/t/runs/r/cancel", "/v1/vector_stores/v/search", "/tokenize",
                 "/v1/messages/batches", "/v1beta/models/g:batchGenerateContent", "/v1/count_tokens"):  # fmt: skip
        reading = read(path, {**poll, "usageMetadata": {"totalTokenCount": 9}, "input_tokens": 5})
        assert known(reading) == {}, path
        assert bytes(reading.usage) == b"null"


def test_thoughts_hidden_in_the_total_are_found_behind_any_gateway() -> None:
    usage = {"prompt_tokens": 66, "completion_tokens": 6, "total_tokens": 100}
    for provider, model in (("google", "models/x"), ("some-gateway", "google/gemini-3-pro"), ("other", "gemini-2.5")):
        reading = read("/v1/chat/completions", {"model": model, "choices": [CHOICE], "usage": usage}, provider=provider)
        assert known(reading) == {"input_tokens": 66, "output_tokens": 34, "reasoning_output_tokens": 28}
    odd = read("/v1/chat/completions", {"model": "llama", "choices": [CHOICE], "usage": usage}, provider="some-gateway")
    assert (known(odd), odd.inconsistent) == ({"input_tokens": 66, "output_tokens": 6}, True)


@pytest.mark.parametrize(
    ("path", "asked", "model", "embedded", "texts"),
    [
        ("/client/v4/accounts/a/ai/run/@cf/meta/llama", {"prompt": "one"}, "@cf/meta/llama", None, ["one"]),
        (
            "/client/v4/accounts/a/ai/run/@cf/meta/llama",
            {"messages": [{"content": "one"}]},
            "@cf/meta/llama",
            None,
            ["one"],
        ),
        (
            "/client/v4/accounts/a/ai/run/@cf/baai/bge-m3",
            {"text": ["one", "two"]},
            "@cf/baai/bge-m3",
            2,
            ["one", "two"],
        ),
        ("/client/v4/accounts/a/ai/run/@cf/baai/bge-m3", {"text": "one"}, "@cf/baai/bge-m3", 1, ["one"]),
        ("/serving-endpoints/my-llama/invocations", {"stream": True, "messages": []}, "my-llama", None, []),
        ("/serving-endpoints/gte-large/invocations", {"input": ["one", "two"]}, "gte-large", 2, ["one", "two"]),
        ("/v1/multimodalembeddings", {"model": "v", "inputs": [{"content": [{"text": "one"}]}]}, "v", 1, ["one"]),
        (SERVICES + "embeddings/text-embedding/text-embedding", {"input": {"texts": ["one"]}}, None, 1, ["one"]),
        (
            SERVICES + "aigc/text-generation/generation",
            {"input": {"messages": [{"content": "one"}]}},
            None,
            None,
            ["one"],
        ),
        (SERVICES + "aigc/text-generation/generation", {"model": "q", "input": {"prompt": "one"}}, "q", None, ["one"]),
        ("/v1/conversations", {"inputs": "one"}, None, None, ["one"]),
        ("/v1/conversations", {"model": "m", "inputs": [{"role": "user", "content": "one"}]}, "m", None, ["one"]),
        ("/api/v1/chat", {"model": "m", "input": "one"}, "m", None, ["one"]),
        ("/infill", {"input_prefix": "one"}, None, None, ["one"]),
        ("/studio/v1/j2-ultra/complete", {"prompt": "one"}, None, None, ["one"]),
    ],
)
def test_a_request_in_its_published_shape(
    path: str, asked: object, model: str | None, embedded: int | None, texts: list[str]
) -> None:
    flavor = find(b"POST", path.encode())
    body = json.dumps(asked).encode()
    prepared = flavor.prepare(body, path.encode(), inject=True)
    assert (prepared.body, prepared.model, prepared.embedding_inputs) == (body, model, embedded)
    assert flavor.input(body).texts == texts


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/score", {"text_1": "q", "text_2": ["a", "b"]}),
        ("/v1/ranking", {"query": {"text": "q"}, "passages": [{"text": "a"}, {"text": "b"}]}),
        ("/ml/v1/text/rerank", {"query": "q", "inputs": [{"text": "a"}, {"text": "b"}]}),
        (SERVICES + "rerank/text-rerank/text-rerank", {"input": {"query": "q", "documents": ["a", "b"]}}),
    ],
)
def test_a_rerank_request_in_its_published_shape(path: str, asked: object) -> None:
    flavor, body = find(b"POST", path.encode()), json.dumps(asked).encode()
    assert flavor.prepare(body, path.encode(), inject=True).rerank_documents == 2
    assert flavor.input(body).texts == ["q", "a", "q", "b"]


def test_minimax_tells_its_errors_with_status_200() -> None:
    for code, failed in ((0, False), (1004, True)):
        answer = {"choices": None, "base_resp": {"status_code": code, "status_msg": "login fail"}}
        assert read("/v1/text/chatcompletion_v2", answer).failed is failed


def test_the_documented_dialects_are_the_tested_ones() -> None:
    page = Path(__file__).parents[2] / "docs" / "metering.md"
    before, begin, rest = page.read_text(encoding="utf-8").partition("<!-- dialects: begin -->\n")
    shown, end, after = rest.partition("<!-- dialects: end -->")
    lines = ["| dialect | path | recorded as | what is read |", "|---|---|---|---|"]
    for name, (path, _, operation, want) in sorted(UNARY.items()):
        read_here = ", ".join(part.replace("_tokens", "").replace("_", " ") for part in want) or "nothing is reported"
        lines.append(f"| {name} | `{path}` | {find(b'POST', path.encode()).api} ({operation}) | {read_here} |")
    table = "\n".join(lines) + "\n"
    if os.environ.get("TAXIMETER_WRITE_DOCS") == "1":
        page.write_text(before + begin + table + end + after, encoding="utf-8")
        return
    assert shown == table, "docs/metering.md is stale: run this test with TAXIMETER_WRITE_DOCS=1"


def test_images_cohere_bills_are_input_too() -> None:
    billed = {"billed_units": {"input_tokens": 4, "image_tokens": 1000}}
    assert known(read("/v2/embed", {"meta": billed})) == {"input_tokens": 1004, "image_input_tokens": 1000}
    assert known(read("/v2/embed", {"meta": {"billed_units": {"images": 1}}})) == {}


def test_a_unary_conversation_says_what_its_outputs_hold() -> None:
    outputs = [{"type": "tool.execution", "arguments": "{}"}, {"type": "message.output", "content": [{"text": "hi"}]}]
    assert metered("/v1/conversations", {"outputs": outputs}).output().texts == ["hi"]
    refused = metered("/v1/conversations", sse({"type": "conversation.response.error"}), content_type=STREAM)
    assert refused.reading().failed


def test_text_embedded_by_bedrock_and_asked_of_ollama_is_found() -> None:
    for path, asked in (
        ("/model/amazon.titan-embed-text-v2:0/invoke", {"inputText": "one"}),
        ("/model/cohere.embed-english-v3/invoke", {"texts": ["one"]}),
        ("/model/cohere.rerank-v3-5:0/invoke", {"query": "one"}),
        ("/api/generate", {"prompt": "one"}),
        ("/v2/embed", {"texts": ["one"]}),
    ):
        assert find(b"POST", path.encode()).input(json.dumps(asked).encode()).texts == ["one"]
