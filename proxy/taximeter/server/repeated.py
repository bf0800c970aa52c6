"""Heads that come again: on its connections a client sends the same one with every request, but for `content-length`.

Bytes that were parsed and judged once are judged the same the next time, so they are compared instead: only where a
whole request came in one read, its body ends where the bytes end, and the parser stands between two messages. Anything
else is parsed. Who works with a head keeps what it has learned in `Head.memo`, shared by all requests that repeat it.
"""

from __future__ import annotations

import re
from typing import Final

from taximeter.server.head import Head

HEAD_BYTES: Final = 8 * 1024
BODY_BYTES: Final = 64 * 1024
"""Longer heads and bodies are parsed: there a parser costs little beside the rest."""
REMEMBERED: Final = 256
"""Heads of one server; more, and it begins anew."""
TRIES: Final = 8
"""A connection whose heads differ so often in a row is one of a client that does not repeat itself."""

_length = re.compile(rb"(?i)\r\ncontent-length:[ \t]*([0-9]{1,12})\r\n").search
_NAME: Final = b"content-length"


class Repeated:
    """One head, as bytes before and behind the digits of its length."""

    __slots__ = ("_before", "_behind", "_body_bytes", "_digits", "_head")

    def __init__(self, head: Head, before: bytes, digits: bytes, behind: bytes, body_bytes: int) -> None:
        """`body_bytes`: the longest body that may come with it."""
        self._head = head
        self._body_bytes = body_bytes
        self._before = before
        self._digits = digits
        self._behind = behind

    def read(self, data: bytes) -> tuple[Head, bytes] | None:
        """Head and body where `data` is just one request with this head; None: to be parsed."""
        before, behind = self._before, self._behind
        if not data.startswith(before):
            return None
        start = len(before)
        end = data.find(b"\r", start, start + 13)
        if not data.startswith(behind, end):
            return None
        digits, body = data[start:end], data[end + len(behind) :]
        if digits == self._digits:
            return (self._head, body) if int(digits) == len(body) else None
        if not digits.isdigit() or int(digits) != len(body) or not 0 < len(body) <= self._body_bytes:
            return None
        return self._head.with_length(digits), body


class Heads:
    """Of one server: what its clients' connections share."""

    __slots__ = ("_known", "body_bytes", "latest")

    def __init__(self, body_bytes: int = BODY_BYTES) -> None:
        """`body_bytes`: requests with a longer body are parsed."""
        self._known: dict[tuple[bytes, bytes], Repeated] = {}
        self.body_bytes = min(body_bytes, BODY_BYTES)
        self.latest: Repeated | None = None
        """What a new connection is likely to bring."""

    def remember(self, head: Head, raw: bytes) -> Repeated | None:
        """A head that was parsed, with what came but for as many bytes as its body has; None: it is always parsed.

        It has a body of known length that came with it and ended what came (a parser passes over line ends behind it:
        then `raw` would not be the head), keeps its connection, and asks for nothing but an answer.
        """
        plain = len(raw) <= HEAD_BYTES and head.keep_alive and not head.expects_continue
        found = _length(raw) if plain and raw.find(b"\r\n\r\n") == len(raw) - 4 else None
        if found is None:
            return None
        start, end = found.span(1)
        key = raw[:start], raw[end:]
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            known = self._known[key] = Repeated(head, key[0], found[1], key[1], self.body_bytes)
        self.latest = known
        return known
