"""Metering answers that are one JSON body, and what stands around any framing: wrong labels, nothing to read.

It must not know any API's names.
"""

from __future__ import annotations

from collections.abc import Callable

from taximeter.core.usage import Reading
from taximeter.flavors.framing.bounded import WHOLE_BYTES, Bounded
from taximeter.flavors.framing.lines import LineMeter, NdjsonMeter, SseMeter
from taximeter.flavors.framing.scan import TopMembers
from taximeter.flavors.meter import Countable, Meter
from taximeter.flavors.text.transcript import Transcript
from taximeter.flavors.usage.counts import decode, items, members
from taximeter.flavors.usage.reader import UsageReader
from taximeter.flavors.usage.usual import USAGE_RAW_BYTES

_JSON_STARTS = (b"{", b"[")
_SSE_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
_LEADING = b"\xef\xbb\xbf \t\r\n"


class BodyMeter:
    """One JSON body, read once it is whole; beyond the bound what is read of it is looked for as it passes."""

    __slots__ = ("_body", "_ended", "_events", "_reader", "_top", "terminal")

    def __init__(self, reader: UsageReader) -> None:
        self.terminal = False
        self._reader = reader
        self._body = Bounded()
        self._ended = False
        self._events: LineMeter | None = None
        self._top: TopMembers | None = None

    def feed(self, chunk: bytes) -> bytes:
        """See `Meter.feed`: always the very same chunk."""
        body = self._body
        if self._top is not None:
            self._top.feed(chunk)
            self._reader.passing(chunk)
        elif body.size + len(chunk) > WHOLE_BYTES:
            self._top = TopMembers(self._reader.names(), USAGE_RAW_BYTES)
            for piece in (body.whole() or b"", chunk):
                self._top.feed(piece)
                self._reader.passing(piece)
        body.add(chunk)
        return chunk

    def finish(self) -> bytes:
        """See `Meter.finish`: nothing is ever held."""
        if not self._ended:
            self._ended = True
            whole = self._body.whole()
            if whole is None:
                self._reader.read_in_part(*self._body.ends(), {} if self._top is None else self._top.found())
                self._reader.finished = self._body.ends()[1].rstrip()[-1:] in (b"}", b"]")
            elif (lines := _lines(whole, self._reader)) is not None:
                self._events = lines
                lines.feed(whole)
                lines.finish()
            elif whole.strip():
                self._reader.whole(whole.removeprefix(b"\xef\xbb\xbf"))
        return b""

    def reading(self) -> Reading:
        """See `Meter.reading`."""
        return self._reader.reading()

    def output(self) -> Countable:
        """See `Meter.output`."""
        if self._events is not None:
            return self._events.output()
        whole = self._body.whole()
        decoded = None if whole is None else decode(whole)
        if decoded is None:
            return Countable(texts=self._reader.salvaged_text(*self._body.ends()), truncated=True)
        transcript = Transcript(self._reader.output_text)
        for event in items(decoded) or (decoded,):
            transcript.add(event)
        return transcript.countable()

    def progress_tokens(self) -> int | None:
        """See `Meter.progress_tokens`: a body says nothing before its end."""
        return None


def _lines(whole: bytes, reader: UsageReader) -> LineMeter | None:
    """The meter for a body that is no JSON but a stream nobody labelled or asked for; None where it is none."""
    if whole.lstrip(_LEADING).startswith(_SSE_STARTS):
        return SseMeter(reader, strip=False)
    first, _, rest = whole.partition(b"\n")
    if rest.strip() and members(first) is not None and decode(whole) is None:
        return NdjsonMeter(reader, strip=False)
    return None


class SniffingMeter:
    """Looks at an answer's first byte before it believes the content type: events come labelled as JSON, JSON errors
    as event streams, and some answers are not labelled at all. No JSON begins as an SSE line does."""

    __slots__ = ("_body", "_chosen", "_stream", "terminal")

    def __init__(self, *, stream: Callable[[], Meter], body: Callable[[], Meter]) -> None:
        self.terminal = False
        self._stream = stream
        self._body = body
        self._chosen: Meter | None = None

    def feed(self, chunk: bytes) -> bytes:
        """See `Meter.feed`."""
        chosen = self._chosen
        if chosen is None:
            start = chunk.lstrip(_LEADING)
            if not start:
                return chunk  # blank lines before the first event say nothing
            chosen = self._chosen = self._body() if start[:1] in _JSON_STARTS else self._stream()
        passed = chosen.feed(chunk)
        self.terminal = chosen.terminal
        return passed

    def finish(self) -> bytes:
        """See `Meter.finish`."""
        held = self._inner().finish()
        self.terminal = self._inner().terminal
        return held

    def reading(self) -> Reading:
        """See `Meter.reading`."""
        return self._inner().reading()

    def output(self) -> Countable:
        """See `Meter.output`."""
        return self._inner().output()

    def progress_tokens(self) -> int | None:
        """See `Meter.progress_tokens`."""
        return self._inner().progress_tokens()

    def _inner(self) -> Meter:
        if self._chosen is None:
            self._chosen = self._body()
        return self._chosen


def chosen(meter: Meter) -> Meter:
    """The meter for the rest of an answer that has begun: the one that a `SniffingMeter` has found to be right."""
    return meter._inner() if isinstance(meter, SniffingMeter) and meter._chosen is not None else meter


class HeadMeter:
    """Meters nothing but the answer's head: an encoding that cannot be read, or an answer that is no inference."""

    __slots__ = ("_reader", "terminal")

    def __init__(self, reader: UsageReader) -> None:
        self.terminal = False
        self._reader = reader

    def feed(self, chunk: bytes) -> bytes:
        """See `Meter.feed`: always the very same chunk."""
        return chunk

    def finish(self) -> bytes:
        """See `Meter.finish`: nothing is ever held."""
        return b""

    def reading(self) -> Reading:
        """See `Meter.reading`."""
        return self._reader.reading()

    def output(self) -> Countable:
        """See `Meter.output`: nothing is known."""
        return Countable(truncated=True)

    def progress_tokens(self) -> int | None:
        """See `Meter.progress_tokens`: nothing is known."""
        return None
