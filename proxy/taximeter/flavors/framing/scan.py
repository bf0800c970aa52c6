"""Finding a few top-level members in a JSON object that is too long to be kept: usage may stand anywhere in it.

Fed as the body passes; keeps a bounded piece of each member found and where in the object it is, nothing else. Strings
are skipped by one regular expression and brackets are counted, so a megabyte costs some milliseconds. It must not know
what the members mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL).sub
_REST_OF_STRING = re.compile(rb'(?:[^"\\]|\\.)*"', re.DOTALL).match
_ESCAPE = re.compile(rb"\\.", re.DOTALL).sub
_NAME_AT_END = re.compile(rb'"(?:[^"\\]|\\.)*"\s*:?\s*\Z', re.DOTALL).search


class TopMembers:
    """The members with these names of the outermost object; of one that stands there twice, the last."""

    __slots__ = ("_carried", "_depth", "_found", "_inside", "_key", "_longest", "_piece_bytes", "_taking")

    def __init__(self, names: Iterable[str], piece_bytes: int) -> None:
        """`piece_bytes`: how much of a member's value is kept."""
        keys = [name.encode() for name in names]
        self._key = re.compile(rb'"(' + b"|".join(map(re.escape, keys)) + rb')"\s*:\s*').finditer
        self._longest = max(map(len, keys)) + 64  # a name with its quotes, blanks and colon
        self._piece_bytes = piece_bytes
        self._depth = 0
        self._inside = False
        """Within a string that began in an earlier piece."""
        self._carried = b""
        self._found: dict[str, bytearray] = {}
        self._taking: bytearray | None = None
        """The member whose value goes on in the next piece."""

    def feed(self, piece: bytes) -> None:
        """The next piece of the body."""
        if self._taking is not None:
            self._taking += piece[: self._piece_bytes - len(self._taking)]
            if len(self._taking) >= self._piece_bytes:
                self._taking = None
        seen, self._carried = self._carried + piece, b""
        if self._inside:
            ended = _REST_OF_STRING(seen)
            if ended is None:
                self._carried = _odd_backslash(seen)
                return
            seen, self._inside = seen[ended.end() :], False
        whole, seen = seen, self._cut_short(seen)
        at = 0
        for match in self._key(seen):
            self._depth += _depth_of(seen[at : match.start()])
            at = match.start()
            if self._depth == 1:
                value = bytearray(whole[match.end() : match.end() + self._piece_bytes])
                self._found[match.group(1).decode()] = value
                self._taking = value if len(value) < self._piece_bytes else None
        self._depth += _depth_of(seen[at:])

    def found(self) -> dict[str, bytes]:
        """By name, what follows each name's colon: its value and whatever stands behind it."""
        return {name: bytes(value) for name, value in self._found.items()}

    def _cut_short(self, seen: bytes) -> bytes:
        """Without a name or a string that goes on in the next piece."""
        bare = _ESCAPE(b"__", seen)
        if bare.count(b'"') % 2:  # a string without its end
            start = bare.rfind(b'"')
            if len(seen) - start <= self._longest:
                self._carried = seen[start:]
            else:
                self._inside, self._carried = True, _odd_backslash(seen)
            return seen[:start]
        name = _NAME_AT_END(seen[-self._longest :])
        if name is not None:
            self._carried = name.group()
        return seen[: len(seen) - len(self._carried)]


def _depth_of(text: bytes) -> int:
    """By how much it opens more objects and arrays than it closes; it begins and ends outside of strings."""
    bare = _STRING(b"", text)
    return bare.count(b"{") + bare.count(b"[") - bare.count(b"}") - bare.count(b"]")


def _odd_backslash(text: bytes) -> bytes:
    """A backslash at the end whose partner comes with the next piece."""
    return b"\\" if (len(text) - len(text.rstrip(b"\\"))) % 2 else b""
