"""Bytes kept up to a bound: the whole while it fits, afterwards only its head and its tail.

It must not know what the bytes mean.
"""

from __future__ import annotations

WHOLE_BYTES = 256 * 1024
"""Most that is kept whole: every usual chat answer, and embedding answers of a few dozen inputs."""
HEAD_BYTES = 16 * 1024
"""Kept of the head beyond that: `model`, and the usage of providers that write it first (Jina)."""
TAIL_BYTES = 64 * 1024
"""Kept of the tail: in OpenAI-shaped answers usage follows the data, and little follows usage."""


class Bounded:
    """Collects pieces; never holds more than WHOLE_BYTES and one piece."""

    __slots__ = ("_buffer", "_head", "size")

    def __init__(self) -> None:
        self.size = 0
        """Bytes added in all."""
        self._buffer = bytearray()
        self._head: bytes | None = None

    def add(self, piece: bytes) -> None:
        self._buffer += piece
        self.size += len(piece)
        if self._head is None:
            if self.size > WHOLE_BYTES:
                self._head = bytes(self._buffer[:HEAD_BYTES])
                del self._buffer[:-TAIL_BYTES]
        elif len(self._buffer) > WHOLE_BYTES:
            del self._buffer[:-TAIL_BYTES]

    @property
    def overflowed(self) -> bool:
        """More was added than is kept."""
        return self._head is not None

    def whole(self) -> bytes | None:
        """All bytes, or None once the bound was passed."""
        return None if self._head is not None else bytes(self._buffer)

    def ends(self) -> tuple[bytes, bytes]:
        """Head and tail as far as kept; while nothing is lost, everything is head."""
        if self._head is None:
            return bytes(self._buffer), b""
        return self._head, bytes(self._buffer)

    def clear(self) -> None:
        """Forget everything."""
        self.size = 0
        self._head = None
        self._buffer.clear()
