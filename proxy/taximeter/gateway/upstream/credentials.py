"""Whose credential goes upstream, and in which header: the operator's, the client's, or none; never both.

And what never goes there: a proxy key, the admin token or a dashboard session of ours, wherever a client put it.
Pure. The header names are those of each provider's own API reference.
"""

from __future__ import annotations

import re
from base64 import b64decode
from urllib.parse import unquote_to_bytes

from taximeter.core.errors import BadRequest
from taximeter.keys.rule import PREFIX, SESSION_COOKIE, matches

HEADERS = frozenset({b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"})
"""Headers in which clients send credentials."""
LOOKED_INTO = HEADERS | {b"cookie"}
"""Headers that may hold one of ours although `tm-` is not in them."""
PROXY_KEY = PREFIX.encode()

_MADE = rb"tm-[0-9a-f]{64}"
"""A key as we make them is one wherever it stands (OpenAI's `openai-insecure-api-key.…` among WebSocket protocols)."""
_begins_a_key = re.compile(rb"(?<![\w.~-])tm-|" + _MADE).search
"""`tm-` at the beginning of a word: in a credential's place that is a proxy key."""
_is_a_key = re.compile(rb"(?<![\w.~-])tm-[\w.~-]{20,}|" + _MADE).search
"""Elsewhere it has to be as long as a key: `tm-client/1.0` is somebody's name."""
_for_credentials = re.compile(rb"(?i)key|token|auth|secret|password|credential").search
"""Names of query parameters in whose values `tm-` begins a key; in others it is anybody's (`?team=tm-blue`)."""
_SESSION = SESSION_COOKIE.encode() + b"="
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


class Screen:
    """Keeps secrets of ours from going upstream; anything else stays byte for byte what it was."""

    __slots__ = ("_admin_token_sha256", "others")

    def __init__(self, admin_token_sha256: str = "") -> None:
        self._admin_token_sha256 = admin_token_sha256
        self.others: tuple[bytes, ...] = () if admin_token_sha256 else (b"Bearer ",)
        """How an `authorization` begins that holds none of ours if `tm-` is not in it; an admin token shows only when
        it is hashed."""

    def header(self, name: bytes, value: bytes) -> bytes | None:
        """What of a header's value may go on; None: nothing. To be asked where `tm-` is in it or LOOKED_INTO has it."""
        if name == b"cookie":
            return self._cookies(value)
        if name not in HEADERS:
            return None if _is_a_key(value) else value
        if PROXY_KEY in value and _begins_a_key(value):
            return None
        scheme, _, token = value.partition(b" ") if name == b"authorization" else (b"", b"", value)
        if scheme.lower() == b"basic":
            return None if self._in_basic(token) else value
        return None if self._admin_token_sha256 and self._is_admin_token(token.strip()) else value

    def query(self, query: bytes, provider: str, *, forward: bool) -> bytes:
        """The query without parameters that hold one of ours, and without a `key=` that must not go on (Google's)."""
        if PROXY_KEY not in query and b"%" not in query and b"=" not in query:
            return query
        return b"&".join(part for part in query.split(b"&") if not self._is_withheld(part, provider, forward))

    def path(self, path: bytes) -> None:
        """Raises BadRequest where the path holds a proxy key: it cannot be left out."""
        if (PROXY_KEY in path or b"%" in path) and _is_a_key(unquote_to_bytes(path)):
            raise BadRequest("The path holds a proxy key of Taximeter, which must reach no upstream.", param="path")

    def _is_withheld(self, part: bytes, provider: str, forward: bool) -> bool:
        if b"%" in part:
            part = unquote_to_bytes(part)
        name, _, value = part.partition(b"=")
        if PROXY_KEY in part and (_is_a_key(part) or (_for_credentials(name) and _begins_a_key(value))):
            return True
        if name == b"key" and provider in _GOOGLE and not forward:
            return True
        return (b"key" in name or b"token" in name) and self._is_admin_token(value)

    def _cookies(self, value: bytes) -> bytes | None:
        if _SESSION not in value and PROXY_KEY not in value and b"%" not in value:
            return value
        kept = [each for each in value.split(b";") if not self._is_our_cookie(each)]
        return b";".join(kept).strip() or None

    def _is_our_cookie(self, cookie: bytes) -> bool:
        if b"%" in cookie:
            cookie = unquote_to_bytes(cookie)
        return cookie.strip().startswith(_SESSION) or _begins_a_key(cookie) is not None

    def _in_basic(self, token: bytes) -> bool:
        """Whether a `Basic` credential has one of ours as its user or password."""
        try:
            user, _, password = b64decode(token.strip() + b"==").partition(b":")
        except ValueError:
            return False
        return any(each.startswith(PROXY_KEY) or self._is_admin_token(each) for each in (user, password))

    def _is_admin_token(self, token: bytes) -> bool:
        return matches(token, self._admin_token_sha256)  # never where none is set
