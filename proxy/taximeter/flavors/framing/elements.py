"""Taking the elements of one array out of a JSON object as it passes: each by itself, and what is left of the object.

Bounded, however many elements there are and however long one is. It must not know what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from taximeter.flavors.framing.bounded import Bounded

_STRUCTURE = re.compile(rb'["{}\[\]]').search
_REST_OF_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL).match
_NAME_BYTES = 64


class Elements:
    """The objects in the array that stands under one of these names, so deep in the object."""

    __slots__ = ("_depth", "_element", "_escaped", "_found", "_in_array", "_inside", "_keys", "_level", "_name", "rest")

    def __init__(self, keys: tuple[str, ...], level: int, found: Callable[[Bounded], None]) -> None:
        """`level`: of the object that has the array; the outermost is 1. `found` is given each element, whole or in
        part."""
        self.rest = Bounded()
        """The object, with the array empty."""
        self._keys, self._level, self._found = {f'{key}"'.encode() for key in keys}, level, found
        self._depth = 0
        self._inside = self._escaped = False
        """Within a string; behind a backslash whose partner comes with the next piece."""
        self._name = b""
        """The last string, with its closing quote, as far as it is as short as a name."""
        self._in_array = False
        self._element: Bounded | None = None

    def feed(self, piece: bytes) -> None:
        """The next piece of the object."""
        at = kept = 0
        while at < len(piece):
            if self._inside:
                at = self._string(piece, at)
                continue
            match = _STRUCTURE(piece, at)
            if match is None:
                break
            at = match.end()
            if match[0] == b'"':
                self._inside, self._name = True, b""
            elif match[0] in b"{[":
                kept = self._opened(match[0], piece, kept, at)
            else:
                kept = self._closed(piece, kept, at)
        self._keep(piece[kept:])

    def _string(self, piece: bytes, at: int) -> int:
        """Where the string that goes on ends in this piece, or the piece does."""
        if self._escaped:
            self._escaped = False
            return at + 1
        match = _REST_OF_STRING(piece, at)
        end = len(piece) if match is None else match.end()
        if len(self._name) < _NAME_BYTES:
            self._name += piece[at : min(end, at + _NAME_BYTES)]
        self._inside = match is None
        if match is None:
            text = piece[at:]
            self._escaped = (len(text) - len(text.rstrip(b"\\"))) % 2 == 1
        return end

    def _opened(self, bracket: bytes, piece: bytes, kept: int, at: int) -> int:
        """A bracket that ends at `at` opens; returns from where on the piece is still to be kept."""
        self._depth += 1
        if not self._in_array and bracket == b"[" and self._depth == self._level + 1 and self._name in self._keys:
            self._keep(piece[kept:at])
            self._in_array = True
            return at
        if self._in_array and self._depth == self._level + 2:
            self._element = Bounded()
            return at - 1
        return kept

    def _closed(self, piece: bytes, kept: int, at: int) -> int:
        self._depth -= 1
        if self._in_array and self._depth == self._level + 1 and self._element is not None:
            self._keep(piece[kept:at])
            element, self._element = self._element, None
            self._found(element)
            return at
        if self._in_array and self._depth == self._level:
            self._in_array = False
            return at - 1
        return kept

    def _keep(self, data: bytes) -> None:
        """Of an element, or of the rest; what stands between elements is nothing."""
        if self._element is not None:
            self._element.add(data)
        elif not self._in_array:
            self.rest.add(data)
