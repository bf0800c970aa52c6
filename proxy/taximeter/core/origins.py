"""Pages in browsers: which origins may call, what their preflights are told, and what they may read of an answer. Pure.

The rules are those of the Fetch standard (https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from taximeter.core.globs import glob

Headers = list[tuple[bytes, bytes]]

ORIGIN = b"origin"
ASKS_FOR = b"access-control-request-method"
"""What makes an OPTIONS with an Origin a preflight."""
PREFLIGHT_S = 600
"""How long a browser may remember what it was told; Chromium takes at most 7,200 s, Safari 600 s."""

_is_origin = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@]*").fullmatch
_VARIES = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


class Origins:
    """The origins of a list: `https://ui.example.org`, `https://*.example.org`, `http://10.0.0.7:*`, `file://`, `null`
    (what browsers say of a page from a file and of a sandboxed frame), or `*` for any."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._matches = [glob(pattern.lower()) for pattern in allowed]

    def __contains__(self, origin: bytes) -> bool:
        said = origin.decode("latin-1").lower()
        return any(matches(said) for matches in self._matches)


def problem(pattern: str) -> str:
    """What is wrong with an entry of such a list; empty: nothing."""
    if pattern in ("*", "null") or _is_origin(pattern.lower()):
        return ""
    if _is_origin(pattern.lower().rstrip("/")):
        return "an origin ends with its host or port: leave out the last /"
    return 'an origin is scheme://host[:port] without a path, "null", or "*" for any'


def is_wide(pattern: str) -> bool:
    """Whether any page on the web can be of such an origin."""
    return pattern == "null" or any(b"%b://any.page" % scheme in Origins([pattern]) for scheme in (b"http", b"https"))


def is_preflight(head: Mapping[bytes, bytes]) -> bool:
    """Whether an OPTIONS request is a browser's question if a page may make a call. It never carries a credential."""
    return ASKS_FOR in head and ORIGIN in head


def permission(head: Mapping[bytes, bytes]) -> Headers:
    """The answer to a preflight of an origin that may call: yes, to whatever it asks."""
    told = [
        (b"access-control-allow-origin", head[ORIGIN]),
        (b"access-control-allow-methods", head[ASKS_FOR]),
        (b"access-control-max-age", b"%d" % PREFLIGHT_S),
        (b"vary", _VARIES),
    ]
    if asked := head.get(b"access-control-request-headers"):
        told.append((b"access-control-allow-headers", asked))
    if head.get(b"access-control-request-private-network") == b"true":
        told.append((b"access-control-allow-private-network", b"true"))
    return told


def readable(origin: bytes, headers: Headers) -> Headers:
    """An answer's headers so that a page of this origin may read it, and all of them; the upstream's own CORS goes."""
    kept = [field for field in headers if not field[0].startswith(b"access-control-")]
    return [
        *kept,
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"Origin"),
    ]


def readable_if_ours(origin: bytes, headers: Headers) -> Headers:
    """The same for an error of our own alone: else a page would learn no more than that its call failed."""
    names = {name for name, _ in headers}
    ours = b"x-taximeter-error" in names and b"access-control-allow-origin" not in names
    return readable(origin, headers) if ours else headers
