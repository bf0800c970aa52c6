"""What each path of the published APIs is that a POST goes to. The lists of OpenAI, Anthropic, Mistral and Cohere are
those of their SDKs as installed, so a new release with a path that stands in no row fails here."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from taximeter.flavors import of_path
from taximeter.flavors.dialects import UNKNOWN, UNMETERED
from taximeter.flavors.later import JOBS, VIDEOS

FREE, LATER, UNTOLD, OTHERWISE = "free", "later", "untold", "otherwise"
"""Nothing is billed; what it starts is done and billed later; likewise, and no answer tells by what; billed by
what no tokens tell (recorded, usage kept)."""

ROWS: dict[str, list[tuple[str, str]]] = {
    # provider -> (paths as one regular expression, what they are)
    "openai": [
        (r"/v1/chat/completions", "chat/llm"),
        (r"/v1/completions", "completions/llm"),
        (r"/v1/responses(/compact)?", "responses/llm"),
        (r"/v1/embeddings", "embeddings/embedding"),
        (r"/v1/images/(edits|generations|variations)", "images/other"),
        (r"/v1/audio/(speech|transcriptions|translations)", "audio/other"),
        (r"/v1/threads(/\w+)?/runs(/\w+/submit_tool_outputs)?", "other/llm"),
        (r"/v1/conversations(/\w+)?", "responses/llm"),  # without `inputs` free: see below
        (r"/v1/fine_tuning/jobs(/\w+/resume)?", UNTOLD),
        (r"/v1/evals/\w+/runs", "evals/llm"),
        (r"/v1/batches|/v1/videos(/edits|/extensions|/\w+/remix)?", LATER),
        (r"/v1/(realtime/calls|live/sessions(/\w+/fork)?|decisions|moderations)", OTHERWISE),
        (r"/v1/fine_tuning/alpha/graders/run", OTHERWISE),
        (r"/v1/agents/(automations/\w+/invocations|sessions(/\w+(/events)?)?)", OTHERWISE),
        (r"/v1/agents(/automations|/environments/templates(/\w+)?|/environments|/environments/\w+/files|/\w+)?", FREE),
        (r"/v1/agents/automations/\w+(/pause|/resume)?", FREE),
        (r"/v1/(assistants|organization|projects|skills|vaults|vector_stores|webhook_endpoints)(/.*)?", FREE),
        (r"/v1/(files|containers)(/.*)?", FREE),
        (r"/v1/(uploads|chatkit)/.*|/v1/uploads|/v1/audio/voice.*|/v1/content_provenance_checks", FREE),
        (r"/v1/chat/completions/\w+|/v1/conversations/\w+/items|/v1/evals(/\w+)?|/v1/evals/.*/cancel", FREE),
        (r"/v1/fine_tuning/(alpha/graders/validate|jobs/\w+/(cancel|pause))", FREE),
        (r"/v1/responses/(input_tokens|\w+/cancel)", FREE),
        (r"/v1/realtime/(client_secrets|sessions|transcription_sessions|translations/client_secrets)", FREE),
        (r"/v1/(realtime/calls|live/sessions)/\w+/(accept|hangup|refer|reject)|/v1/batches/\w+/cancel", FREE),
        (r"/v1/threads(/\w+)?|/v1/threads/\w+/(messages(/\w+)?|runs/\w+|runs/\w+/cancel)|/v1/videos/characters", FREE),
    ],
    "anthropic": [
        (r"/v1/messages", "messages/llm"),
        (r"/v1/messages/batches", LATER),
        (r"/v1/(deployments/\w+/run|dreams|sessions(/\w+/events)?)", OTHERWISE),
        (r"/v1/messages/(count_tokens|batches/\w+/cancel)|/v1/dreams/\w+/(archive|cancel)", FREE),
        (r"/v1/(agents|deployments)(/\w+(/archive|/pause|/unpause)?)?", FREE),
        (r"/v1/sessions/\w+(/archive|/resources(/\w+)?|/threads/\w+/archive)?", FREE),
        (r"/v1/(environments|files|memory_stores|organizations|skills|tunnels|user_profiles|vaults)(/.*)?", FREE),
    ],
    "mistral": [
        (r"(/v1|/models)/chat/completions", "chat/llm"),
        (r"/v1/agents/completions", "chat/llm"),
        (r"/v1/fim/completions", "completions/llm"),
        (r"/v1/conversations(/\w+(/restart)?)?", "responses/llm"),
        (r"/v1/responses", "responses/llm"),
        (r"/v1/embeddings", "embeddings/embedding"),
        (r"/v1/audio/(speech|transcriptions)", "audio/other"),
        (r"/v1/batch/jobs", LATER),
        (r"/v1/ocr|/providers/mistral/azure/ocr", "other/other"),
        (r"/v1/(chat/)?(classifications|moderations)", OTHERWISE),
        (r"/(raw|streamRaw)Predict", OTHERWISE),  # behind a model of Vertex' or Azure's: below
        (r"/v1/connectors/\w+/tools/\w+/call|/v1/workflows/(registrations/)?\w+/execute", OTHERWISE),
        (r"/v1/observability/(dataset-records|judges)/\w+/live-judging|/v1/observability/pipelines", OTHERWISE),
        (r"/v1/context/search-indexes/\w+/(search|summary_field/\w+)", OTHERWISE),
        (r"/v1/batch/jobs/\w+/cancel|/v1/responses/input_tokens|/v1/files|/v1/fine_tuning/.*|/v1/agents", FREE),
        (r"/v1/audio/(agents|sessions|voices)|/v1/client/sessions|/v1/(libraries|observability|triggers)(/.*)?", FREE),
        (r"/v1/(service-accounts|webhooks)|/v1/connectors(/.*)?|/v1/context/search-indexes(/.*)?", FREE),
        (r"/v1/workflows/(deployments|executions|schedules)(/.*)?|/v1/workflows/\w+/tags", FREE),
        (r"/v2/(prompts|skills)(/.*)?", FREE),
    ],
    "cohere": [
        (r"/v1/(chat|generate|summarize)|/v2/chat", "chat/llm"),
        (r"/v[12]/embed", "embeddings/embedding"),
        (r"/v[12]/rerank", "rerank/rerank"),
        (r"/v2/audio/transcriptions", "audio/other"),
        (r"/v1/embed-jobs|/v2/batches", LATER),
        (r"/v1/classify|/v2/parse", OTHERWISE),
        (r"/v1/(check-api-key|datasets|tokenize|detokenize|finetuning/finetuned-models|connectors(/.*)?)", FREE),
        (r"/v1/embed-jobs/\w+/cancel|/v2/batches/\w+:cancel", FREE),
    ],
}  # fmt: skip

WRITTEN = [
    # (provider, path, what it is), of those without a list to read: from their documentation
    ("gemini", "/v1beta/models/gemini-3-flash:generateContent", "generate/llm"),
    ("gemini", "/v1beta/models/gemini-3-flash:streamGenerateContent", "generate/llm"),
    ("gemini", "/v1beta/models/gemini-embedding-2:embedContent", "embeddings/embedding"),
    ("gemini", "/v1beta/models/gemini-embedding-2:batchEmbedContents", "embeddings/embedding"),
    ("gemini", "/v1beta/models/imagen-4.0:predict", "images/other"),
    ("gemini", "/v1beta/models/veo-3.0:predictLongRunning", LATER),
    ("gemini", "/v1beta/models/gemini-3-flash:batchGenerateContent", LATER),
    ("gemini", "/v1beta/models/gemini-3-flash:countTokens", FREE),
    ("gemini", "/v1beta/interactions", "generate/llm"),
    ("gemini", "/v1beta/files", FREE),
    ("gemini", "/upload/v1beta/files", FREE),
    ("gemini", "/v1beta/files:register", FREE),
    ("gemini", "/v1beta/fileSearchStores", FREE),
    ("gemini", "/v1beta/fileSearchStores/s1:importFile", OTHERWISE),
    ("gemini", "/v1beta/batches/b1:cancel", FREE),
    ("gemini", "/v1alpha/auth_tokens", FREE),
    ("vertex", "/v1/projects/p/locations/eu/publishers/google/models/gemini-3-flash:generateContent", "generate/llm"),
    ("vertex", "/v1/projects/p/locations/eu/publishers/anthropic/models/claude-opus-5:rawPredict", "messages/llm"),
    ("vertex", "/v1/projects/p/locations/eu/publishers/mistralai/models/mistral-large:rawPredict", "chat/llm"),
    ("vertex", "/v1/projects/p/locations/eu/publishers/google/models/embedding-5:predict", "embeddings/embedding"),
    ("vertex", "/v1/projects/p/locations/eu/endpoints/openapi/chat/completions", "chat/llm"),
    ("vertex", "/v1/projects/p/locations/global/rankingConfigs/c:rank", "rerank/rerank"),
    ("gemini", "/v1beta/tunedModels/t1:generateContent", "generate/llm"),
    ("gemini", "/v1beta/tunedModels/t1:transferOwnership", FREE),
    ("gemini", "/v1beta/cachedContents", FREE),
    ("vertex", "/v1/projects/p/locations/eu/publishers/google/models/gemini-3-flash:countTokens", FREE),
    ("vertex", "/v1/projects/p/locations/eu/publishers/google/models/gemini-3-flash:computeTokens", FREE),
    ("vertex", "/v1/projects/p/locations/eu/publishers/anthropic/models/count-tokens:rawPredict", FREE),
    ("vertex", "/v1/projects/p/locations/eu/publishers/google/models/veo-3.0:predictLongRunning", LATER),
    ("vertex", "/v1/projects/p/locations/eu/publishers/google/models/veo-3.0:fetchPredictOperation", FREE),
    ("vertex", "/v1/projects/p/locations/eu/batchPredictionJobs", LATER),
    ("vertex", "/v1/projects/p/locations/eu/batchPredictionJobs/1:cancel", FREE),
    *(
        (provider, path, FREE)
        for provider, paths in {
            "vllm": "/v1/chat/completions/render /v1/completions/render /reset_mm_cache /pause /resume /abort_requests",
            "sglang": "/flush_cache /release_memory_occupation /update_weights_from_disk /abort_request /open_session",
            "llama.cpp": "/apply-template /props /slots/0 /lora-adapters /models/load /models/unload",
            "lm studio": "/api/v1/models/load /api/v1/models/unload /api/v1/models/download",
            "openrouter": "/api/v1/keys /api/v1/auth/keys",
            "xai": "/v1/tokenize-text",
            "moonshot": "/v1/tokenizers/estimate-token-count",
            "volcengine": "/api/v3/tokenization",
            "zai": "/api/paas/v4/tokenizer",
            "azure": "/openai/realtimeapi/sessions",
        }.items()
        for path in paths.split()
    ),
    ("ollama", "/api/chat", "chat/llm"),
    ("ollama", "/api/generate", "generate/llm"),
    ("ollama", "/api/embed", "embeddings/embedding"),
    ("ollama", "/api/embeddings", "embeddings/embedding"),
    *(("ollama", f"/api/{verb}", FREE) for verb in ("create", "show", "copy", "pull", "push", "blobs/sha256:1", "me")),
    ("vllm", "/v1/chat/completions", "chat/llm"),
    ("vllm", "/v1/messages", "messages/llm"),
    ("vllm", "/pooling", "embeddings/embedding"),
    ("vllm", "/classify", OTHERWISE),
    ("vllm", "/score", "rerank/rerank"),
    ("vllm", "/v1/score", "rerank/rerank"),
    ("vllm", "/rerank", "rerank/rerank"),
    ("vllm", "/v2/rerank", "rerank/rerank"),
    ("vllm", "/v1/audio/transcriptions", "audio/other"),
    *(
        ("vllm", path, FREE)
        for path in ("/tokenize", "/detokenize", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/wake_up")
    ),
    ("azure", "/openai/deployments/d/chat/completions", "chat/llm"),
    ("azure", "/openai/deployments/d/completions", "completions/llm"),
    ("azure", "/openai/deployments/d/embeddings", "embeddings/embedding"),
    ("azure", "/openai/deployments/d/images/generations", "images/other"),
    ("azure", "/openai/deployments/d/audio/transcriptions", "audio/other"),
    ("azure", "/openai/v1/responses", "responses/llm"),
    ("azure", "/openai/v1/chat/completions", "chat/llm"),
    ("azure", "/models/chat/completions", "chat/llm"),
    ("azure", "/models/embeddings", "embeddings/embedding"),
    ("azure", "/openai/batches", LATER),
    ("azure", "/openai/files", FREE),
    ("bedrock", "/model/anthropic.claude-opus-5-v1:0/converse", "chat/llm"),
    ("bedrock", "/model/anthropic.claude-opus-5-v1:0/converse-stream", "chat/llm"),
    ("bedrock", "/model/anthropic.claude-opus-5-v1:0/invoke", "generate/llm"),
    ("bedrock", "/model/anthropic.claude-opus-5-v1:0/invoke-with-response-stream", "generate/llm"),
    ("bedrock", "/model/arn:aws:bedrock:eu-west-1:1:inference-profile/eu.amazon.nova-lite-v1:0/converse", "chat/llm"),
    ("bedrock", "/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Aprovisioned-model%2Fx/invoke", "generate/llm"),
    ("bedrock", "/model/amazon.titan-embed-text-v2:0/invoke", "embeddings/embedding"),
    ("bedrock", "/model/amazon.titan-embed-image-v1/invoke", "embeddings/embedding"),
    ("bedrock", "/model/amazon.nova-canvas-v1:0/invoke", "images/other"),
    ("bedrock", "/model/stability.stable-image-ultra-v1:1/invoke", "images/other"),
    ("bedrock", "/model/cohere.rerank-v3-5:0/invoke", "rerank/rerank"),
    ("bedrock", "/model/anthropic.claude-opus-5-v1:0/count-tokens", FREE),
    ("bedrock", "/openai/v1/chat/completions", "chat/llm"),
    ("bedrock", "/rerank", "rerank/rerank"),
    ("bedrock", "/agents/a/agentAliases/b/sessions/s/text", "other/llm"),
    ("bedrock", "/model-invocation-job", OTHERWISE),
    ("bedrock", "/async-invoke", OTHERWISE),
]  # fmt: skip

_SOURCES = {
    "openai": (r'self\._post\(\s*(?:path_template\()?\s*f?"([^"]+)"', "/v1"),
    "anthropic": (r'self\._post\(\s*(?:path_template\()?\s*f?"([^"]+)"', ""),
    "mistral": (r'method="POST",[\s\S]{0,80}?path="([^"]+)"', ""),
    "cohere": (r'\.(?:request|stream)\(\s*f?"([^"]+)",[\s\S]{0,160}?method="POST"', "/"),
}


def _published(provider: str) -> Iterator[str]:
    """Paths of POSTs in an SDK, names in braces made one name each."""
    pattern, prefix = _SOURCES[provider]
    spec = importlib.util.find_spec({"mistral": "mistralai"}.get(provider, provider))
    assert spec is not None
    assert spec.submodule_search_locations
    for file in sorted(Path(spec.submodule_search_locations[0]).rglob("*.py")):
        for path in re.findall(pattern, file.read_text("utf-8")):
            yield prefix + re.sub(r"\{[^}]*\}", "x1", re.split("[?#]", path)[0])


def _is(path: str) -> str:
    flavor = of_path(path.encode())
    if flavor is UNMETERED:
        return FREE
    if flavor is JOBS or flavor is VIDEOS:
        return LATER
    return OTHERWISE if flavor is UNKNOWN else f"{flavor.api}/{flavor.operation}"


@pytest.mark.parametrize("provider", sorted(ROWS))
def test_every_path_of_an_sdk_is_what_its_row_says(provider: str) -> None:
    paths = sorted(set(_published(provider)))
    assert len(paths) > 20, "the SDK's sources are not read any more"
    wrong = []
    for path in paths:
        what = next((what for pattern, what in ROWS[provider] if re.fullmatch(pattern, path)), "in no row")
        # what no answer tells is not metered when it is asked for, though a hard budget does not let it pass
        if _is(path) != (FREE if what is UNTOLD else what):
            wrong.append((path, what, _is(path)))
    assert not wrong


@pytest.mark.parametrize(("provider", "path", "what"), WRITTEN)
def test_every_path_without_an_sdk_is_what_it_is_documented_to_be(provider: str, path: str, what: str) -> None:
    assert _is(path) == (FREE if what is UNTOLD else what)


@pytest.mark.parametrize(
    ("body", "free"),
    [(b'{"items": []}', True), (b'{"metadata": {}}', True), (b'{"inputs": "hi", "model": "m"}', False), (b"", False)],
)
def test_a_conversation_that_is_only_written_down_uses_nothing(body: bytes, free: bool) -> None:
    for path in (b"/v1/conversations", b"/v1/conversations/c1"):
        assert of_path(path).prepare(body, path, inject=False).uses_nothing is free
