"""Asking for a stream's usage (`stream_options.include_usage`), or for a shorter answer, by splicing a request's bytes.

Nothing is re-serialised: every other byte of the body stays as the client wrote it, unknown stream options included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from taximeter.flavors.usage.counts import members

_INCLUDE = b'"include_usage":true'
_open_brace = re.compile(rb"^\s*\{\s*")


def include_usage(body: bytes, options: bytes) -> bytes | None:
    """`body` asking for usage, or None where it already does or cannot be changed safely.

    `options` is the value of the body's `stream_options`, b"" where it has none. An explicit false is turned into
    true: the client never sees the difference, because the event is taken out of the answer again.
    """
    if not options:
        return _insert(body, b'"stream_options":{' + _INCLUDE + b"}")
    if options == b"null":
        return _replaced(body, b"stream_options", options, b"{" + _INCLUDE + b"}")
    inner = members(options)
    if inner is None:
        return None  # not an object: let the upstream say so
    asked = bytes(inner["include_usage"]) if "include_usage" in inner else b""
    if asked == b"true":
        return None
    asking = _replaced(options, b"include_usage", asked, b"true") if asked else _insert(options, _INCLUDE)
    return None if asking is None else _replaced(body, b"stream_options", options, asking)


def with_number(body: bytes, path: tuple[str, ...], number: int) -> bytes | None:
    """`body` with a number at this path of members; None where it cannot be changed safely.

    The path is spelled as the body spells it; objects on it that are not there are made.
    """
    return _with(body, path, b"%d" % number)


def _with(body: bytes, path: tuple[str, ...], value: bytes) -> bytes | None:
    found = members(body)
    if found is None:
        return None
    name, rest = path[0], path[1:]
    old = bytes(found[name]) if name in found else b""
    if rest and old in (b"", b"null"):
        value = _nested(rest, value)
    elif rest:
        inner = _with(old, rest, value)
        if inner is None:
            return None
        value = inner
    if not old:
        return _insert(body, _nested((name,), value)[1:-1])
    return body if old == value else _replaced(body, name.encode(), old, value)


def _nested(path: tuple[str, ...], value: bytes) -> bytes:
    for name in reversed(path):
        value = b"{" + msgspec.json.encode(name) + b":" + value + b"}"
    return value


def _insert(body: bytes, member: bytes) -> bytes | None:
    """`body` with one more member, in front."""
    match = _open_brace.match(body)
    if match is None:
        return None
    comma = b"" if body[match.end() : match.end() + 1] == b"}" else b","
    return body[: match.end()] + member + comma + body[match.end() :]


def _replaced(body: bytes, name: bytes, old: bytes, new: bytes) -> bytes | None:
    """`body` with the top-level member `name`'s value exchanged.

    The same bytes may stand deeper in the body too, so each place is tried until a decoder agrees that it was the
    top-level one.
    """
    for start in _places(body, name, old):
        candidate = body[:start] + new + body[start + len(old) :]
        found = members(candidate)
        if found is not None and bytes(found.get(name.decode(), msgspec.Raw())) == new:
            return candidate
    return None


def _places(body: bytes, name: bytes, value: bytes) -> Iterator[int]:
    tries = 0
    for match in re.finditer(rb'"' + re.escape(name) + rb'"\s*:\s*', body):
        if body.startswith(value, match.end()):
            tries += 1
            if tries > 8:  # each try decodes the body once
                return
            yield match.end()
