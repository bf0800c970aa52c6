"""The text of a streamed answer, kept for local counting: raw bytes while they are few, extracted text beyond.

It must not know any API: how an event's text is found is given to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from taximeter.flavors.meter import Countable
from taximeter.flavors.usage.counts import Fields, decode

RAW_BYTES = 32 * 1024
"""Kept as it came before text is extracted: a hundred chunks cost nothing, and a slow stream stays below 50 KiB."""
TEXT_CHARS = 1024 * 1024
"""Most text kept: twice the longest output any model gives today."""
LINE_BYTES = 256 * 1024
"""Longest incomplete line kept; longer ones hold images or audio, not text."""

OutputText = Callable[[Fields], Iterable[str]]


class Transcript:
    """Keeps the text of a stream: raw chunks of `data:` or NDJSON lines by `keep`, or decoded events by `add`."""

    __slots__ = ("_bytes", "_chars", "_chunks", "_output_text", "_texts", "events", "truncated")

    def __init__(self, output_text: OutputText) -> None:
        self._output_text = output_text
        self._chunks: list[bytes] = []
        self._bytes = 0
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
            self._extract()

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
        return self.events + b"".join(self._chunks).count(b"\n\n")

    def countable(self) -> Countable:
        """All text kept; the stream is over. Where none was seen, what was written is not known to be nothing:
        reasoning may be hidden, and work in the background has yet to begin."""
        self._chunks.append(b"\n")
        self._extract()
        if not self._texts:
            return Countable(truncated=True)
        return Countable(texts=["".join(self._texts)], truncated=self.truncated)

    def _extract(self) -> None:
        lines = b"".join(self._chunks).splitlines(keepends=True)
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        if len(rest) > LINE_BYTES:
            rest, self.truncated = b"", True
        self._chunks = [rest] if rest else []
        self._bytes = len(rest) if len(rest) <= RAW_BYTES else 0  # a long line is not joined again at every chunk
        for line in lines:
            payload = line.strip().removeprefix(b"data:").lstrip()
            if payload.startswith(b"{"):
                self.add(decode(payload))
