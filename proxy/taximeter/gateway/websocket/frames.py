"""RFC 6455's frames in bytes that only pass through: where each begins and ends, and what it says.

Libraries hand over whole frames and forget the bytes they came in. Here each piece keeps its own bytes, so that they go
on as they came; a frame of any length is read in the pieces in which it comes. Pure.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_CONTINUATION, _CONTROL = 0x0, 0x8
_CONTROL_BYTES = 125


class _Malformed(Exception):
    """These bytes are no frames."""


class Piece(NamedTuple):
    """As much of one frame as has come. The `raw` of all pieces are, one behind the other, the bytes that came."""

    raw: bytes
    """Its header, where it begins here, and its payload, masked or not."""
    opcode: int
    """Of its message: TEXT or BINARY also where its frame continues one; or of a control frame."""
    body: bytes
    """Its payload as it came."""
    mask: bytes
    """What `body` is masked with, from its first byte on; b"": it is not."""
    first: bool
    """Its message begins here."""
    last: bool
    """Its message ends here."""

    @property
    def payload(self) -> bytes:
        """What it says; unmasked when it is asked for, which the rest of a long message seldom is."""
        return _unmasked(self.body, self.mask) if self.mask else self.body

    @property
    def control(self) -> bool:
        """A ping, pong or close, which may stand between the frames of a message."""
        return self.opcode >= _CONTROL


class Frames:
    """Reads one direction of a connection."""

    __slots__ = ("_carried", "_fin", "_first", "_left_bytes", "_mask", "_masked", "_message", "_opcode", "broken")

    def __init__(self, *, masked: bool) -> None:
        """`masked`: as a client's frames are (§5.3)."""
        self._masked = masked
        self._carried = b""
        """Of a header that is not complete."""
        self._mask = b""
        self._left_bytes = 0
        """Of the payload of the frame being read."""
        self._opcode = 0
        self._message = 0
        """The opcode of the message being read; 0: none is."""
        self._fin = self._first = False
        self.broken: str | None = None
        """Why what comes is no frames; then nothing of it can be read any more."""

    @property
    def between_frames(self) -> bool:
        """Whether what was fed ends with a frame: another one may follow it."""
        return not self._left_bytes and not self._carried

    @property
    def between_messages(self) -> bool:
        """Whether it ends with a message, too."""
        return self.between_frames and not self._message

    def feed(self, data: bytes) -> list[Piece]:
        """The pieces in what came, up to where it is no frames (see `broken`)."""
        pieces: list[Piece] = []
        if self._carried:
            data, self._carried = self._carried + data, b""
        at, end = 0, len(data)
        while at < end and not self.broken:
            start = at
            if not self._left_bytes:
                try:
                    header_bytes = self._header(data, at)
                except _Malformed as error:
                    self.broken = str(error)
                    break
                if not header_bytes:
                    self._carried = data[at:]
                    break
                at += header_bytes
            took = min(self._left_bytes, end - at)
            body, mask = data[at : at + took], self._mask
            self._left_bytes -= took
            at += took
            if mask and took % 4:
                self._mask = mask[took % 4 :] + mask[: took % 4]
            last = not self._left_bytes and self._fin
            pieces.append(Piece(data[start:at], self._opcode, body, mask, self._first, last))
            self._first = False
            if last and self._opcode < _CONTROL:
                self._message = 0
        return pieces

    def _header(self, data: bytes, at: int) -> int:
        """Read the header that stands there and return its length; 0: it is not complete."""
        if len(data) - at < 2:
            return 0
        one, two = data[at], data[at + 1]
        opcode, length, size = one & 0x0F, two & 0x7F, 2
        if one & 0x70 or bool(two & 0x80) is not self._masked:
            raise _Malformed("an extension nobody agreed on, or a mask where none belongs")
        more = {126: 2, 127: 8}.get(length, 0)
        size += more + (4 if self._masked else 0)
        if len(data) - at < size:
            return 0
        if more:
            (length,) = struct.unpack_from("!H" if more == 2 else "!Q", data, at + 2)
        self._fin = bool(one & 0x80)
        if opcode >= _CONTROL:
            if opcode > PONG or not self._fin or length > _CONTROL_BYTES:
                raise _Malformed("no control frame looks so")
            self._opcode, self._first = opcode, True
        else:
            self._begin_data(opcode)
        self._left_bytes = length
        self._mask = data[at + size - 4 : at + size] if self._masked else b""
        return size

    def _begin_data(self, opcode: int) -> None:
        if opcode > BINARY or (opcode == _CONTINUATION) is not bool(self._message):
            raise _Malformed("a message within another, or the rest of none")
        self._first = opcode != _CONTINUATION
        self._message = self._message or opcode
        self._opcode = self._message


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    pad = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")


def text_frame(payload: bytes) -> bytes:
    """One unmasked text message: what a server sends."""
    return _framed(TEXT, payload)


def close_frame(code: int, *, masked: bool = False) -> bytes:
    """A close with this code (§7.4); `masked`: as a client sends it."""
    payload = code.to_bytes(2, "big")
    if not masked:
        return _framed(CLOSE, payload)
    return bytes((0x80 | CLOSE, 0x80 | len(payload))) + b"\0\0\0\0" + payload  # a mask of zeros changes nothing


def _framed(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size <= _CONTROL_BYTES:
        length = bytes((size,))
    elif size < 1 << 16:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes((0x80 | opcode,)) + length + payload
