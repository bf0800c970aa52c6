"""Whose credential goes upstream, and in which header: the operator's, the client's, or none; never both.

Pure. The header names are those of each provider's own API reference.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from taximeter.core.keys import PREFIX, bearer

HEADERS = frozenset({b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"})
"""Headers in which clients send credentials."""

_PROXY_KEY = PREFIX.encode()
_ANTHROPIC = frozenset({"anthropic"})
_AZURE = frozenset({"azure", "azure-openai"})
_GOOGLE = frozenset({"google", "gemini", "google-gla"})


def header_for(provider: str, target: bytes, key: bytes) -> tuple[bytes, bytes]:
    """The header in which `provider` wants `key` for a request to `target` (the path at the upstream).

    Anthropic and Google take `Authorization: Bearer` on their OpenAI-compatible paths, their own header elsewhere.
    """
    if provider in _ANTHROPIC and b"/chat/completions" not in target:
        return b"x-api-key", key
    if provider in _GOOGLE and b"/openai/" not in target:
        return b"x-goog-api-key", key
    if provider in _AZURE:
        return b"api-key", key
    return b"authorization", b"Bearer " + key


def is_proxy_key(value: bytes) -> bool:
    """Whether a credential header holds a proxy key of ours, which must reach no upstream."""
    if _PROXY_KEY not in value:
        return False
    return value.startswith(_PROXY_KEY) or (bearer(value) or b"").startswith(_PROXY_KEY)


def strip_query(query: bytes, provider: str, *, forward: bool) -> bytes:
    """The query without a `key=` that must not go on: Google's API takes a credential there."""
    if b"=" not in query or (b"key" not in query and b"%" not in query):
        return query
    return b"&".join(part for part in query.split(b"&") if not _is_withheld(part, provider, forward))


def _is_withheld(part: bytes, provider: str, forward: bool) -> bool:
    name, _, value = part.partition(b"=")
    if unquote_to_bytes(name) != b"key":
        return False
    return unquote_to_bytes(value).startswith(_PROXY_KEY) or (provider in _GOOGLE and not forward)
