"""Whose call it is where no model says so: by the header its credential is in, and by the shape of its path. Pure.

The shapes are those of each provider's own API reference; where several have one (`GET /v1/models`), it says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from taximeter.core.loops import gets_mark
from taximeter.gateway.upstream.credentials import HEADERS

_ANTHROPIC = frozenset({"anthropic"})
_AZURE = frozenset({"azure", "azure-openai"})
_BEDROCK = frozenset({"bedrock", "aws", "aws-bedrock"})
_COHERE = frozenset({"cohere"})
_GOOGLE = frozenset({"google", "gemini", "google-gla", "google-genai"})
_OLLAMA = frozenset({"ollama"})
_OPENAI = frozenset({"openai"})
_VERTEX = frozenset({"vertex", "vertexai", "google-vertex"})

_HEADERS = (
    (b"x-goog-api-key", _GOOGLE | _VERTEX),
    (b"anthropic-version", _ANTHROPIC),
    (b"api-key", _AZURE),
    (b"x-api-key", _ANTHROPIC),
)
"""What SDKs send their credential in, or always beside it."""
_BEARERS = (
    (b"Bearer sk-ant-", _ANTHROPIC), (b"Bearer sk-proj-", _OPENAI), (b"Bearer sk-svcacct-", _OPENAI),
    (b"Bearer sk-or-", frozenset({"openrouter"})), (b"Bearer gsk_", frozenset({"groq"})),
    (b"Bearer xai-", frozenset({"xai", "x-ai", "grok"})), (b"Bearer pplx-", frozenset({"perplexity"})),
    (b"Bearer nvapi-", frozenset({"nvidia"})), (b"Bearer hf_", frozenset({"huggingface"})),
    (b"Bearer csk-", frozenset({"cerebras"})), (b"Bearer fw_", frozenset({"fireworks"})),
    (b"Bearer ya29.", _VERTEX), (b"AWS4-HMAC-SHA256", _BEDROCK),
)  # fmt: skip
"""How credentials begin that are one provider's."""
_PATHS = tuple(
    (re.compile(rb"(?i)^/" + pattern.encode() + rb"(?:[/:?]|$)").match, providers)
    for pattern, providers in (
        (r"(?:v1(?:beta1?)?/projects|ws/google\.cloud\.aiplatform\.[^/]*)", _VERTEX),
        (r"(?:(?:upload/)?v1(?:alpha|beta)|ws/google\.ai\.generativelanguage\.[^/]*)", _GOOGLE),
        (r"(?:upload/)?v1/(?:models|tunedModels)/[^/?]+:[a-z]+", _GOOGLE),
        (r"openai/(?:deployments|models|files|batches|v1)", _AZURE),
        (r"(?:model|foundation-models|inference-profiles|async-invoke|guardrail|knowledgebases|agents)", _BEDROCK),
        (r"v2/(?:chat|embed|rerank)", _COHERE),
        (r"v1/(?:check-api-key|embed-jobs|connectors|datasets|finetuning)", _COHERE),
        (r"api/(?:tags|show|ps|version|pull|push|create|copy|delete|blobs|chat|generate|embed|embeddings)", _OLLAMA),
        (r"v1/(?:messages|complete|skills|organizations)", _ANTHROPIC),
        (
            r"v1/(?:responses|realtime|assistants|threads|vector_stores|uploads|fine_tuning|conversations|videos|containers|evals)",
            _OPENAI | _AZURE,
        ),
    )
)


def told(head: Mapping[bytes, bytes], path: bytes) -> Iterator[frozenset[str]]:
    """The providers that a call may be for, by each thing that says so, the surest first."""
    bearer = head.get(b"authorization", b"")
    yield from (providers for begins, providers in _BEARERS if bearer.startswith(begins))
    yield from (providers for name, providers in _HEADERS if name in head)
    yield from (providers for fits, providers in _PATHS if fits(path))


_TAKES_ITS_OWN = _ANTHROPIC | _AZURE | _COHERE | _GOOGLE | _OPENAI | _VERTEX | {"groq", "mistral", "openrouter"}
"""Providers that take a credential in no other header than their own and `authorization`."""


def foreign(provider: str, host: str, configured: Iterable[str]) -> frozenset[bytes]:
    """Headers with a credential that is another company's, and must not go to this upstream with a client's own.

    A header is another one's where an upstream of that provider is configured beside this one, or where this upstream's
    host is its provider's own. `configured`: the providers of all upstreams.
    """
    there, own_host = frozenset(configured), not gets_mark(host)
    return frozenset(
        name
        for name, providers in _HEADERS
        if provider in _TAKES_ITS_OWN and provider not in providers and (own_host or providers & there)
        if name in HEADERS
    )


_OPENAI_LIKE = re.compile(
    rb"(?:/v1beta/openai|/compatibility/v1|/compatible-mode/v1|/v1(?:beta1)?/projects/.+/endpoints/openapi)$"
).search
"""Base URLs of an API like OpenAI's, beside the provider's own: of Gemini, Cohere, Qwen, Vertex."""
_google_native = re.compile(rb"(?i)^/v1/(?:models|tunedModels)/[^/]+:[a-z]+$").match
_cohere_native = re.compile(
    rb"(?i)^/v1/(?:chat|embed|rerank|generate|classify|summarize|tokenize|detokenize|check-api-key|embed-jobs|connectors"
    rb"|datasets|finetuning)(?:/|$)"
).match
_chat_completions = re.compile(rb"(?i)^/v1/chat/").match


def native_base(base: bytes) -> bytes:
    """The path of a provider's own API, by that of its base URL for OpenAI's clients."""
    found = _OPENAI_LIKE(base)
    if found is not None:
        return base[: found.start()]
    return base.removesuffix(b"/v1")


def is_native(path: bytes, base: bytes) -> bool:
    """Whether a path of ours goes under `native_url`: it lacks /v1, or is one of the provider's own API all the same.

    `base`: the path of the base URL; only where it is that of an API like OpenAI's is there something to tell apart.
    """
    if not (path == b"/v1" or path.startswith(b"/v1/")):
        return True
    if base.endswith(b"/v1beta/openai"):
        return _google_native(path) is not None
    if base.endswith(b"/endpoints/openapi"):
        return path.startswith(b"/v1/projects/")
    return base.endswith(b"/compatibility/v1") and _cohere_native(path) is not None and not _chat_completions(path)
