"""One file per API flavor: bytes in, `Reading` out. Pure; imports core only. One line each in FLAVORS."""

from __future__ import annotations

import re

from taximeter.flavors.chat import CHAT
from taximeter.flavors.completions import COMPLETIONS
from taximeter.flavors.embeddings import EMBEDDINGS
from taximeter.flavors.meter import Flavor
from taximeter.flavors.opaque import OPAQUE
from taximeter.flavors.rerank import RERANK
from taximeter.flavors.responses import RESPONSES

FLAVORS: tuple[tuple[str, Flavor], ...] = (
    # how the path of a POST ends (providers put their own prefixes before it), the flavor; the first match counts
    (r"/chat/completions", CHAT),
    (r"/completions", COMPLETIONS),
    (r"/responses(/compact)?", RESPONSES),
    (r"/embeddings", EMBEDDINGS),
    (r"/rerank(ing)?", RERANK),
)

_matchers = [(re.compile(pattern.encode() + rb"/?$").search, flavor) for pattern, flavor in FLAVORS]
_found: dict[bytes, Flavor] = {}
_FOUND_MAX = 1024
"""Paths remembered; Azure deployments and Bedrock models stand in the path, so there may be many."""


def find(method: bytes, path: bytes) -> Flavor:
    """The flavor of a request. `path` is raw, tags taken out, query allowed; what nothing matches is `OPAQUE`.

    Only POST uses anything: a GET reads back what another call used.
    """
    if method != b"POST":
        return OPAQUE
    path = path.partition(b"?")[0]
    flavor = _found.get(path)
    if flavor is None:
        flavor = next((flavor for matches, flavor in _matchers if matches(path)), OPAQUE)
        if len(_found) >= _FOUND_MAX:
            _found.clear()
        _found[path] = flavor
    return flavor
