"""The text of a streamed answer, kept for local counting: raw bytes while they are few, compressed ones beyond.

Hardly any of it is ever looked at, so that is all that is done while a stream goes on: events are much alike, and zlib
takes a microsecond for one, decoding it ten. It must not know any API: how an event's text is found is given to it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

from taximeter.flavors.meter import Countable
from taximeter.flavors.usage.counts import Fields, decode

RAW_BYTES = 32 * 1024
"""Kept as it came before it is compressed: a hundred chunks cost nothing, and a slow stream stays below 50 KiB."""
FOLDED_BYTES = 1024 * 1024
"""Kept compressed, about twenty times as much as it came; images and audio fill it sooner. Of what comes behind it the
text is extracted at once."""
TEXT_CHARS = 1024 * 1024
"""Most text kept: twice the longest output any model gives today."""
LINE_BYTES = 256 * 1024
"""Longest incomplete line kept; longer ones hold images or audio, not text."""

_EVENT_END = b"\n\n"

OutputText = Callable[[Fields], Iterable[str]]


class Transcript:
    """Keeps the text of a stream: raw chunks of `data:` or NDJSON lines by `keep`, or decoded events by `add`."""

    __slots__ = (
        "_bytes", "_chars", "_chunks", "_folded", "_folded_bytes", "_folded_events", "_output_text", "_rest", "_texts",
        "_whole", "events", "truncated",
    )  # fmt: skip

    def __init__(self, output_text: OutputText) -> None:
        self._output_text = output_text
        self._chunks: list[bytes] = []
        self._bytes = 0
        self._folded: list[bytes] = []
        """What came before these chunks, compressed in parts."""
        self._folded_bytes = self._folded_events = 0
        self._whole = True
        """All that came before is compressed; False: up to the end of a line."""
        self._rest = b""
        """Of what is extracted at once: a line that is not complete."""
        self._texts: list[str] = []
        self._chars = 0
        self.events = 0
        """Events that carried text, as far as extracted."""
        self.truncated = False

    def keep(self, chunk: bytes) -> None:
        """Raw bytes of the stream, in order."""
        self._chunks.append(chunk)
        self._bytes += len(chunk)
        if self._bytes > RAW_BYTES:
            self._fold()

    def add(self, event: object) -> None:
        """One decoded event."""
        if not isinstance(event, dict):
            return
        texts = [text for text in self._output_text(event) if text]
        if not texts:
            return
        self.events += 1
        for text in texts:
            room = TEXT_CHARS - self._chars
            self.truncated = self.truncated or len(text) > room
            self._texts.append(text[:room])
            self._chars += min(len(text), room)
        if len(self._texts) > 1024:
            self._texts = ["".join(self._texts)]

    def progress(self) -> int:
        """About how many pieces of text have come; cheap."""
        return self.events + self._folded_events + b"".join(self._chunks).count(_EVENT_END)

    def countable(self) -> Countable:
        """All text kept; the stream is over. Where none was seen, what was written is not known to be nothing:
        reasoning may be hidden, and work in the background has yet to begin. Of a long stream it takes a while."""
        last = b"".join([self._rest, *self._chunks, b"\n"])
        later, self._texts = self._texts, []
        rest = b""
        for block in map(zlib.decompress, self._folded):
            rest = self._extract(rest + block)
        if self._whole:
            last = rest + last
        elif rest:
            self._extract(rest + b"\n")
        self._texts += later
        self._extract(last)
        self._folded, self._chunks = [], []
        self._folded_bytes = self._bytes = 0
        self._rest = b""
        if not self._texts:
            return Countable(truncated=True)
        return Countable(texts=["".join(self._texts)], truncated=self.truncated)

    def _fold(self) -> None:
        block = b"".join(self._chunks)
        self._chunks, self._bytes = [], 0
        if self._whole and self._folded_bytes >= FOLDED_BYTES:
            block = self._end_folded(block)
        elif self._whole:
            self._keep_folded(block)
        if not self._whole:
            self._rest = self._extract(self._rest + block)

    def _keep_folded(self, block: bytes) -> None:
        self._folded_events += block.count(_EVENT_END)
        self._folded.append(zlib.compress(block, 1))
        self._folded_bytes += len(self._folded[-1])

    def _end_folded(self, block: bytes) -> bytes:
        """The last line goes with what is compressed, unless it is too long; returns what is behind it."""
        end = block.find(b"\n") + 1
        if end or self._folded_bytes < FOLDED_BYTES + LINE_BYTES:
            self._keep_folded(block[:end] if end else block)
        else:
            self.truncated = True
        self._whole = not end and not self.truncated
        return block[end:] if end else b""

    def _extract(self, block: bytes) -> bytes:
        """The text of whole lines; returns what is left of the last one."""
        lines = block.splitlines(keepends=True)
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        if len(rest) > LINE_BYTES:
            rest, self.truncated = b"", True
        for line in lines:
            payload = line.strip().removeprefix(b"data:").lstrip()
            if payload.startswith(b"{"):
                self.add(decode(payload))
        return rest
