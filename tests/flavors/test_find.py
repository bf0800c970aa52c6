"""Which flavor a path leads to, whatever prefix its provider puts before it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core.record import Operation
from taximeter.flavors import FLAVORS, find

LLM, EMBEDDING, RERANK, OTHER = Operation.LLM, Operation.EMBEDDING, Operation.RERANK, Operation.OTHER

PATHS = [
    ("/v1/chat/completions", "chat", LLM),
    ("/chat/completions", "chat", LLM),
    ("/api/v1/chat/completions", "chat", LLM),
    ("/openai/v1/chat/completions", "chat", LLM),
    ("/v1beta/openai/chat/completions", "chat", LLM),
    ("/compatible-mode/v1/chat/completions", "chat", LLM),
    ("/serving-endpoints/chat/completions", "chat", LLM),
    ("/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21", "chat", LLM),
    ("/v1/projects/p/locations/l/endpoints/openapi/chat/completions", "chat", LLM),
    ("/v1/completions", "completions", LLM),
    ("/v1/fim/completions", "completions", LLM),
    ("/v1/complete", "completions", LLM),
    ("/v1/embeddings", "embeddings", EMBEDDING),
    ("/api/v1/embeddings", "embeddings", EMBEDDING),
    ("/api/embed", "embeddings", EMBEDDING),
    ("/v2/embed", "embeddings", EMBEDDING),
    ("/v1/responses", "responses", LLM),
    ("/backend-api/codex/responses", "responses", LLM),
    ("/v1/responses/compact", "responses", LLM),
    ("/v2/rerank", "rerank", RERANK),
    ("/api/v1/services/rerank/text-rerank/text-rerank", "rerank", RERANK),
    ("/v1/messages", "messages", LLM),
    ("/anthropic/v1/messages", "messages", LLM),
    ("/v1/projects/p/locations/l/publishers/anthropic/models/claude@1:streamRawPredict", "messages", LLM),
    ("/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", "generate", LLM),
    ("/v1beta/models/e:batchEmbedContents", "embeddings", EMBEDDING),
    ("/v1/publishers/google/models/text-embedding-004:predict", "embeddings", EMBEDDING),
    ("/v1beta/interactions", "generate", LLM),
    ("/model/us.anthropic.claude%3A0/converse-stream", "chat", LLM),
    ("/model/amazon.nova/invoke-with-response-stream", "generate", LLM),
    ("/model/amazon.titan-embed-text-v2%3A0/invoke", "embeddings", EMBEDDING),
    ("/model/cohere.rerank-v3-5%3A0/invoke", "rerank", RERANK),
    ("/v1/chat", "chat", LLM),
    ("/v2/chat", "chat", LLM),
    ("/api/chat", "chat", LLM),
    ("/api/generate", "generate", LLM),
    ("/v1/images/generations", "images", OTHER),
    ("/v1/audio/transcriptions", "audio", OTHER),
    ("/ml/v1/text/generation_stream", "generate", LLM),
    ("/generate", "generate", LLM),
    ("/v1/threads/t/runs", "other", LLM),
]

NOT_METERED = [
    "/v1/messages/count_tokens",
    "/v1/messages/batches",
    "/v1/threads/t/messages",
    "/v1/batches",
    "/v1/files",
    "/v1/moderations",
    "/v1/responses/input_tokens",
    "/v1/responses/resp_1/cancel",
    "/v1beta/models/g:countTokens",
    "/v1beta/models/g:batchGenerateContent",
    "/v1beta/cachedContents",
    "/v1/threads/t/runs/r/cancel",
    "/model/m/count-tokens",
    "/v1/tokenize",
    "/v1/whatever",
]


@pytest.mark.parametrize(("path", "api", "operation"), PATHS)
def test_a_path_leads_to_its_flavor_under_any_prefix(path: str, api: str, operation: Operation) -> None:
    for prefix in ("", "/some/gateway"):
        flavor = find(b"POST", (prefix + path).encode())
        assert (flavor.api, flavor.operation) == (api, operation)


@pytest.mark.parametrize("path", NOT_METERED)
def test_what_is_no_inference_is_not_metered(path: str) -> None:
    assert find(b"POST", path.encode()).api == "other"
    assert find(b"POST", path.encode()).operation is OTHER


@pytest.mark.parametrize("method", [b"GET", b"DELETE", b"HEAD"])
def test_only_a_post_uses_anything(method: bytes) -> None:
    assert find(method, b"/v1/chat/completions") is find(method, b"/nowhere")


def test_many_different_paths_do_not_fill_memory() -> None:
    from taximeter import flavors

    for number in range(3000):
        find(b"POST", b"/openai/deployments/%d/chat/completions" % number)
    assert len(flavors._found) <= flavors._FOUND_MAX
    assert len(FLAVORS) < 60


def test_models_in_paths_are_told() -> None:
    for path, model in (
        (b"/openai/deployments/my-gpt/chat/completions", "my-gpt"),
        (b"/v1beta/models/gemini-2.5-flash:generateContent", "gemini-2.5-flash"),
        (b"/model/amazon.nova-lite-v1%3A0/converse", "amazon.nova-lite-v1:0"),
        (b"/v1/projects/p/locations/l/publishers/anthropic/models/claude@1:rawPredict", "claude@1"),
    ):
        assert find(b"POST", path).prepare(b"{}", path, inject=True).model == model
        assert find(b"POST", path).prepare(b"", path, inject=True).model == model


@pytest.mark.parametrize(
    "path",
    [b"/v1beta/models/g:streamGenerateContent", b"/model/m/converse-stream", b"/api/chat", b"/x:streamRawPredict"],
)
def test_streams_that_the_path_asks_for_are_told(path: bytes) -> None:
    path = path.replace(b"/x:", b"/publishers/anthropic/models/x:")
    assert find(b"POST", path).prepare(b"{}", path, inject=True).stream


SLASHES = st.sampled_from(["/", "//", "/./", "%2F", "%2f", "%252F", ";v=1/"])


@st.composite
def spelled(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A path, and the same in other letters: any case, doubled slashes, percent signs."""
    plain = draw(st.sampled_from([path for path, api, _ in PATHS if api != "other" and "?" not in path]))
    letters = [
        draw(st.sampled_from([letter, letter.swapcase(), f"%{ord(letter):02x}"])) if letter != "/" else draw(SLASHES)
        for letter in plain[1:]
    ]
    return plain.encode(), ("/" + "".join(letters) + draw(st.sampled_from(["", "/", "//", ";x"]))).encode()


@given(spelled())
def test_a_path_is_matched_as_the_most_lenient_provider_would(paths: tuple[bytes, bytes]) -> None:
    plain, other = paths
    assert find(b"POST", other) is find(b"POST", plain)
