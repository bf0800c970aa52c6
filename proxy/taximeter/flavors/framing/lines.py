"""Metering streams made of lines: Server-Sent Events and NDJSON, at any cut of the bytes.

A chunk that surely says nothing about usage is passed after a microsecond. Where an injected usage event has to be
taken out again, an incomplete line is held (at most HELD_LINE_BYTES) and nothing else. Lines end in LF, CRLF or CR, as
the SSE standard has it. It must not know any API's names.
"""

from __future__ import annotations

from typing import ClassVar

from taximeter.core.usage import Reading
from taximeter.flavors.framing.bounded import WHOLE_BYTES, Bounded
from taximeter.flavors.meter import HELD_LINE_BYTES, Countable
from taximeter.flavors.text.transcript import Transcript
from taximeter.flavors.usage.reader import UsageReader, Verdict

_BOM = b"\xef\xbb\xbf"
_ENDS = (b"\n", b"\r")
_LIST_ITEM_BYTES = 64
"""What a kept piece costs beside its bytes, so that a bound on many tiny ones holds."""
_NAMELESS_EVENTS = 8
"""So many events are decoded in search of the model's name; then it is taken as not told."""


class LineMeter:
    """What SSE and NDJSON share: cutting lines, holding them, passing what can be skipped."""

    quiet_ends: ClassVar[tuple[bytes, ...]] = _ENDS
    """After a chunk that ends so, nothing is open that the next chunk could continue."""

    __slots__ = (
        "_after_cr", "_begun", "_dropped", "_held", "_held_bytes", "_line", "_looked", "_passed", "_quiet", "_reader",
        "_strip", "_transcript", "terminal",
    )  # fmt: skip

    def __init__(self, reader: UsageReader, *, strip: bool) -> None:
        self.terminal = False
        self._reader = reader
        self._transcript = Transcript(reader.output_text)
        self._strip = strip
        self._quiet = False
        self._looked = 0
        self._begun = False
        self._line = Bounded()  # the incomplete line, for reading
        self._held: list[bytes] = []  # the same line's bytes not yet passed, where an event may have to be taken out
        self._held_bytes = 0
        self._passed = False  # the incomplete line's begin has been passed already
        self._after_cr = False
        self._dropped = False

    def feed(self, chunk: bytes) -> bytes:
        """See `Meter.feed`."""
        if self._quiet and chunk.endswith(self.quiet_ends) and self._reader.skippable(chunk):
            self._transcript.keep(chunk)
            return chunk
        return self._read(chunk)

    def finish(self) -> bytes:
        """See `Meter.finish`."""
        held = b"".join(self._held)
        if self._line.size:
            held = b"" if self._take_line() else held
        self._held, self._held_bytes = [], 0
        self.end()
        self.terminal = self._reader.terminal
        return held

    def reading(self) -> Reading:
        """See `Meter.reading`."""
        return self._reader.reading()

    def output(self) -> Countable:
        """See `Meter.output`."""
        return self._transcript.countable()

    def progress_tokens(self) -> int | None:
        """See `Meter.progress_tokens`: the provider's own running figure, else about one token an event."""
        reported = self._reader.convert().output_tokens
        return reported if reported is not None else self._transcript.progress()

    # -- a framing's own part

    def line(self, content: bytes) -> bool:
        """A complete line without its end; True: it must not reach the client."""
        raise NotImplementedError

    def long_line(self, head: bytes, tail: bytes) -> None:
        """A line of which only the ends were kept."""
        raise NotImplementedError

    def idle(self) -> bool:
        """Nothing is open between two lines."""
        return True

    def end(self) -> None:
        """The stream is over."""

    def read_event(self, payload: bytes, name: bytes = b"") -> Verdict:
        """Decode an event, unless it can be skipped."""
        reader = self._reader
        named = reader.model is not None or self._looked >= _NAMELESS_EVENTS
        if named and payload[:1] == b"{" and payload[-1:] == b"}" and name != b"error" and reader.skippable(payload):
            return Verdict.TAKEN
        self._looked += 1
        return reader.event(payload, name)

    # -- lines

    def _read(self, chunk: bytes) -> bytes:
        self._transcript.keep(chunk)
        pieces = chunk.splitlines(keepends=True)
        same = not self._held
        out: list[bytes] = []
        if self._after_cr and chunk[:1] == b"\n":  # the second half of a CRLF shares the fate of the first
            same = same and not self._dropped
            if not self._dropped:
                out.append(b"\n")
            del pieces[0]
        self._after_cr = chunk[-1:] == b"\r" if chunk else self._after_cr
        for piece in pieces:
            if not piece.endswith(_ENDS):
                self._hold(piece, out)
                break
            self._line.add(piece)
            self._dropped = self._take_line()
            if self._dropped:
                same = False
            else:
                out += self._held
                out.append(piece)
            self._held.clear()
            self._held_bytes = 0
            self._passed = False
        self._quiet = (
            not self._line.size
            and not self._after_cr
            and self.idle()
            and (self._reader.model is not None or self._looked >= _NAMELESS_EVENTS)
        )
        self.terminal = self._reader.terminal
        if not self._strip or (same and not self._held):
            return chunk
        return b"".join(out)

    def _hold(self, piece: bytes, out: list[bytes]) -> None:
        self._line.add(piece)
        if not self._strip:
            return
        if self._passed:
            out.append(piece)
            return
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes > HELD_LINE_BYTES:
            out += self._held
            self._held, self._held_bytes, self._passed = [], 0, True

    def _take_line(self) -> bool:
        """Read the line now complete; True: it must not reach the client."""
        content = self._line.whole()
        head, tail = (b"", b"") if content is not None else self._line.ends()
        self._line.clear()
        if content is None:
            self.long_line(head, tail)
            return False
        content = content.rstrip(b"\r\n")
        if not self._begun:
            self._begun = True
            content = content.removeprefix(_BOM)
        return self.line(content)


class NdjsonMeter(LineMeter):
    """Every line is an event."""

    __slots__ = ()

    def line(self, content: bytes) -> bool:
        if content.strip():
            self.read_event(content.strip())
        return False

    def long_line(self, head: bytes, tail: bytes) -> None:
        self._reader.event_in_part(head, tail)


class SseMeter(LineMeter):
    """Server-Sent Events: `data:` with or without a space, over several lines, between comments, ids and names.

    A `data:` line that is whole JSON is read as soon as the line is complete, before the blank line that ends its
    event, so the terminal event is known with the chunk that holds it.
    """

    quiet_ends = (b"\n\n", b"\n\r\n", b"\r\r")

    __slots__ = ("_fields", "_name", "_parts", "_parts_bytes", "_swallow")

    def __init__(self, reader: UsageReader, *, strip: bool) -> None:
        super().__init__(reader, strip=strip)
        self._name = b""
        self._parts: list[bytes] = []  # data lines that are no whole JSON yet
        self._parts_bytes = 0
        self._fields = False  # the open event has lines that were passed
        self._swallow = False  # the blank line after an event taken out goes with it

    def idle(self) -> bool:
        return not (self._parts or self._name or self._fields or self._swallow)

    def line(self, content: bytes) -> bool:
        if not content:
            swallow = self._swallow
            self.end()
            return swallow
        self._swallow = False
        if content[:1] == b":":
            return False
        field, _, value = content.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            return self._data(value)
        if field == b"event":
            self._name = value.strip()
        self._fields = True
        return False

    def long_line(self, head: bytes, tail: bytes) -> None:
        self._fields = True
        if head.startswith(b"data:"):
            self._reader.event_in_part(head, tail)

    def end(self) -> None:
        if len(self._parts) > 1:
            self.read_event(b"\n".join(self._parts), self._name)
        self._parts.clear()
        self._parts_bytes = 0
        self._name = b""
        self._fields = self._swallow = False

    def _data(self, value: bytes) -> bool:
        verdict = Verdict.UNREADABLE if self._parts else self.read_event(value, self._name)
        if verdict is Verdict.USAGE_ONLY and self._strip and not self._passed:
            self._swallow = not self._fields
            return True
        if verdict is Verdict.UNREADABLE and self._parts_bytes + len(value) < WHOLE_BYTES:
            self._parts.append(value)  # read at the event's end
            self._parts_bytes += len(value) + _LIST_ITEM_BYTES
        self._fields = True
        return False
