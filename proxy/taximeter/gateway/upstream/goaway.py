"""GOAWAY frames (RFC 9113 §6.8), taken out of what an upstream sends before `h2` reads it. Pure.

A GOAWAY is how a server says goodbye: no new streams, those that run go on to their end. `h2` takes it for the end of
its connection and reads nothing behind it, so it must not see one.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from h2.exceptions import FrameTooLargeError

HEAD_BYTES = 9
"""Of a frame: length (3 bytes), type, flags, stream (4 bytes)."""
_TYPE = 7
_LEAST_BYTES = 8
_MOST_BYTES = 16_384
"""No frame may be longer, as we ask for no longer ones. `h2` would wait for all of it first."""


class Goaway(NamedTuple):
    """Nothing was done, nor will be, for streams above `last_stream_id`."""

    last_stream_id: int
    error_code: int
    """0: a graceful end."""


class Frames:
    """Splits one connection's bytes."""

    __slots__ = ("_held", "_left_bytes", "breach")

    def __init__(self) -> None:
        self._held = b""
        """The beginning of a frame of which it is not known what it is, or of a GOAWAY."""
        self._left_bytes = 0
        """Of a frame that has begun and is passed on."""
        self.breach: FrameTooLargeError | None = None
        """Why nothing behind what `feed` has returned can be read."""

    def feed(self, data: bytes) -> tuple[list[bytes], list[Goaway]]:
        """What is for `h2`, frame by frame, and the GOAWAYs between; up to a `breach`."""
        if self._held:
            data, self._held = self._held + data, b""
        at = begin = min(self._left_bytes, len(data))
        passed = [data[:at]] if at else []
        self._left_bytes -= at
        found: list[Goaway] = []
        while self.breach is None and not self._left_bytes and at + HEAD_BYTES <= len(data):
            length = int.from_bytes(data[at : at + 3], "big")
            end = at + HEAD_BYTES + length
            if length > _MOST_BYTES:
                self.breach = FrameTooLargeError(f"a frame of {length} bytes")
            elif data[at + 3] != _TYPE or length < _LEAST_BYTES:
                passed.append(data[at:end])
                self._left_bytes = max(0, end - len(data))
            elif end > len(data):
                break
            else:
                last, code = struct.unpack_from(">II", data, at + HEAD_BYTES)
                found.append(Goaway(last & 0x7FFF_FFFF, code))
            at = begin = end
        if not self._left_bytes:
            self._held = data[begin:]
        return passed, found
