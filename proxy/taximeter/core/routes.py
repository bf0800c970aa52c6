"""From a raw request path to tags, upstream name and the path the provider will see.

    /w/<workspace>/t/<track>/d/<document>/k/<task>/u/<upstream>/v1/chat/completions

Each part is optional, in this order. Works on raw (still percent-encoded) bytes, so what is relayed is what came.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import msgspec

from taximeter.core.errors import BadRequest
from taximeter.core.tags import PATH_MARKS, parse

_ORDER = b"wtdku"
_climbs = re.compile(
    rb"(?i)(?:^|/)(?:\.|%2e){2}(?:[/;]|%3b|$)|(?:\\|%2f|%5c)(?:\.|%2e){2}|(?:\.|%2e){2}(?:\\|%2f|%5c)"
).search
_forbidden = re.compile(rb"[\x00-\x20\x7f#]").search


class Route(msgspec.Struct, frozen=True):
    """Where a path leads: `tags` from the path by name, the upstream it names, and the rest, which starts with /."""

    path: bytes
    tags: dict[str, str] = {}
    upstream: str | None = None
    region: str | None = None
    """Where the path names one: Vertex' `/locations/<region>/`."""


def resolve(raw_path: bytes) -> Route:
    """Split a raw path. Raises BadTag on a bad tag, BadRequest on a path that could leave the upstream's base."""
    if (b"." in raw_path or b"%" in raw_path) and _climbs(raw_path):
        raise BadRequest("The path must not contain '..' segments.", param="path")
    if not raw_path.startswith(b"/") or _forbidden(raw_path):
        raise BadRequest("The path must start with / and hold no spaces, control characters or #.")
    if raw_path[2:3] != b"/" or raw_path[1:2] not in _ORDER:
        return Route(path=raw_path, region=region_in(raw_path))
    segments = raw_path.split(b"/")
    tags: dict[str, str] = {}
    upstream = None
    at, rank = 1, -1
    while at + 1 < len(segments):
        mark = segments[at]
        place = _ORDER.find(mark) if len(mark) == 1 else -1
        if place <= rank:
            break
        name = PATH_MARKS[mark]
        value = parse(segments[at + 1], f"path /{mark.decode()}/<{name}>")
        if name == "upstream":
            upstream = value
        else:
            tags[name] = value
        at, rank = at + 2, place
    path = b"/" + b"/".join(segments[at:])
    return Route(path=path, tags=tags, upstream=upstream, region=region_in(path))


def region_in(url: bytes) -> str | None:
    """The region that a path or base URL names, of those whose prices differ by region: Vertex' locations
    (https://cloud.google.com/vertex-ai/generative-ai/docs/learn/locations), OpenAI's regional hosts
    (https://developers.openai.com/api/docs/guides/data-residency). None: none, or none that is known."""
    found = _region(url)
    return None if found is None else found[found.lastindex or 0].decode().lower()


_region = re.compile(
    rb"(?i)/locations/([a-z0-9-]{1,64})(?:/|$)|^https://([a-z]{2})\.api\.openai\.com(?:[:/]|$)"
    rb"|^https://([a-z0-9-]{1,64})-aiplatform\.googleapis\.com(?:[:/]|$)"
    rb"|^https://aiplatform\.([a-z]{2})\.rep\.googleapis\.com(?:[:/]|$)"
).search


def canonical(path: bytes) -> bytes:
    """The path as servers match it: one slash where several stand, none at the end, no `/./` and no `;parameters`.
    A backslash is a slash, as for browsers and for servers on Windows.

    Only to find out what a path means; what is relayed is what came. Case is left to who compares.
    """
    if b"\\" in path:
        path = path.replace(b"\\", b"/")
    if b";" in path:
        path = _parameters(b"", path)
    if b"//" in path or b"/./" in path or path.endswith((b"/", b"/.")):
        path = _slashes(b"/", path).rstrip(b"/")
    return path


def spellings(path: bytes) -> tuple[bytes, ...]:
    """The canonical paths that one with percent signs may stand for: all of them resolved, and all but `%2F`.

    A server that decodes before it matches also splits at `%2F`; one that matches first has a segment with a slash in
    it (the ARN of a Bedrock model). Decoded twice, as behind a proxy that decodes too.
    """
    path = canonical(path)
    if b"%" not in path:
        return (path,)
    kept = b"%2F".join(unquote_to_bytes(unquote_to_bytes(part)) for part in _slash_escapes(path))
    return canonical(unquote_to_bytes(unquote_to_bytes(path))), canonical(kept)


_slash_escapes = re.compile(rb"(?i)%(?:25)?2f").split
_parameters = re.compile(rb";[^/]*").sub
_slashes = re.compile(rb"/+(?:\./+|\.$)*").sub
