"""AWS event streams: binary frames with a JSON payload, metered at any cut of the bytes.

A frame is total length, header length and their CRC (4 bytes each, big endian), headers, payload, CRC
(https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html). InvokeModel wraps the model's own event as base64
in `bytes`. It must not know any model's names.
"""

from __future__ import annotations

import binascii
import struct
import zlib

from taximeter.core.usage import Reading
from taximeter.flavors.framing.bounded import Bounded
from taximeter.flavors.meter import Countable
from taximeter.flavors.text.transcript import Transcript
from taximeter.flavors.usage.counts import decode, members, raw_text
from taximeter.flavors.usage.reader import UsageReader

_PRELUDE = struct.Struct(">III")
_TRAILER_BYTES = 4
MAX_FRAME_BYTES = 24 * 1024 * 1024
"""AWS allows 16 MiB of payload; anything longer is not a frame."""


class FrameMeter:
    """Meters frames as they pass; never holds a byte back."""

    __slots__ = ("_frame", "_lost", "_missing", "_reader", "_transcript", "terminal")

    def __init__(self, reader: UsageReader) -> None:
        self.terminal = False
        self._reader = reader
        self._transcript = Transcript(reader.output_text)
        self._frame = Bounded()
        self._missing = _PRELUDE.size
        self._lost = False

    def feed(self, chunk: bytes) -> bytes:
        """See `Meter.feed`: always the very same chunk."""
        at = 0
        while at < len(chunk) and not self._lost:
            piece = chunk[at : at + self._missing]
            at += len(piece)
            self._frame.add(piece)
            self._missing -= len(piece)
            if not self._missing:
                self._grow()
        self.terminal = self._reader.terminal
        return chunk

    def finish(self) -> bytes:
        """See `Meter.finish`: nothing is ever held."""
        return b""

    def reading(self) -> Reading:
        """See `Meter.reading`."""
        return self._reader.reading()

    def output(self) -> Countable:
        """See `Meter.output`."""
        return self._transcript.countable()

    def progress_tokens(self) -> int | None:
        """See `Meter.progress_tokens`: the provider's own running figure, else about one token an event."""
        reported = self._reader.convert().output_tokens
        return reported if reported is not None else self._transcript.events

    def _grow(self) -> None:
        """The prelude is there, or the whole frame."""
        if self._frame.size == _PRELUDE.size:
            head = self._frame.ends()[0]
            total, headers, crc = _PRELUDE.unpack(head)
            self._missing = total - _PRELUDE.size
            fits = _PRELUDE.size + headers + _TRAILER_BYTES <= total <= MAX_FRAME_BYTES
            self._lost = not fits or zlib.crc32(head[:8]) != crc
            return
        head, tail = self._frame.ends()
        start = _PRELUDE.size + _PRELUDE.unpack(head[: _PRELUDE.size])[1]
        whole = not self._frame.overflowed
        self._frame.clear()
        self._missing = _PRELUDE.size
        names = head[_PRELUDE.size : start]
        if b":exception-type" in names or b":error-code" in names:
            self._reader.failed = True
        if whole:
            self._event(head[start:-_TRAILER_BYTES], _header(names, b":event-type"))
        else:
            self._reader.event_in_part(head[start:], tail[:-_TRAILER_BYTES])

    def _event(self, payload: bytes, name: bytes) -> None:
        found = members(payload)
        if found and "bytes" in found:
            try:
                payload = binascii.a2b_base64(raw_text(found["bytes"]) or "")
            except ValueError:
                return
        self._reader.event(payload, name)
        event = decode(payload)
        # an agent's chunks are plain text
        self._transcript.add({"text": payload.decode("utf-8", "replace")} if event is None else event)


def _header(headers: bytes, name: bytes) -> bytes:
    """The value of a string header, b"" where there is none: name length, name, type 7, value length, value."""
    marked = bytes((len(name),)) + name + b"\x07"
    at = headers.find(marked)
    if at < 0:
        return b""
    at += len(marked)
    return headers[at + 2 : at + 2 + int.from_bytes(headers[at : at + 2])]
