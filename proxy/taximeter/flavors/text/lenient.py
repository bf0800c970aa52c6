"""A request body as the most lenient provider reads it, in plain JSON that every reader of ours reads alike.

Servers accept what the standard forbids: a byte order mark, UTF-16, a lone surrogate (as JavaScript's `slice` leaves
one in an emoji), invalid UTF-8, NaN. One reader for routing, allow-lists, budgets and metering, so that none of them
sees another request than the others. What no server is known to read, none of ours reads either.
"""

from __future__ import annotations

import json
import math
import re

import msgspec

from taximeter.flavors.usage.usual import UNREADABLE

MOST_MEMBERS = 100_000
"""In all objects of a body together: each is looked at, on the event loop, in about 5 µs."""
_UTF8_MARK = b"\xef\xbb\xbf"
_decode = msgspec.json.Decoder().decode
_surrogates = re.compile("[\ud800-\udfff]").sub
Pairs = list[tuple[str, object]]


class Unreadable(ValueError):
    """The body is no JSON that any provider is known to read; the message says why, in words for a client."""


def plain(body: bytes) -> bytes:
    """The body as JSON in UTF-8 that msgspec decodes; the very same object where it is that already.

    NaN and infinities become the strings "NaN", "Infinity" and "-Infinity"; what is no character becomes U+FFFD.
    Raises Unreadable.
    """
    try:
        _decode(body)
    except UNREADABLE:
        return _rewritten(body)
    return body


def unambiguous(body: bytes) -> object:
    """The value of a `plain` body. Raises Unreadable where an object has a member twice, or there are too many."""
    members = 0

    def checked(pairs: Pairs) -> dict[str, object]:
        nonlocal members
        members += len(pairs)
        if members > MOST_MEMBERS:
            raise Unreadable(f"it has more than {MOST_MEMBERS:,} members")
        return _once(pairs)

    try:
        return json.loads(body, object_pairs_hook=checked)
    except RecursionError:
        raise Unreadable("it nests too deep") from None


def _rewritten(body: bytes) -> bytes:
    text = body.removeprefix(_UTF8_MARK).decode(json.detect_encoding(body).removesuffix("-sig"), "replace")
    try:
        value = json.loads(
            text.removeprefix("\ufeff"), parse_constant=str, parse_float=_number, object_pairs_hook=_once
        )
        rewritten = _surrogates("\ufffd", json.dumps(value, ensure_ascii=False)).encode()
        _decode(rewritten)
    except Unreadable:
        raise
    except RecursionError:
        raise Unreadable("it nests too deep") from None
    except json.JSONDecodeError as error:
        raise Unreadable(f"it is not JSON: {error.msg} at character {error.pos}") from None
    except ValueError as error:  # a number of more digits than Python reads
        raise Unreadable(f"it cannot be read: {error}") from None
    return rewritten


def _number(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else ("-" if number < 0 else "") + "Infinity"


def _once(pairs: Pairs) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Unreadable(f"it has more than one {twice[:40]!r} member in one object")
    return members
