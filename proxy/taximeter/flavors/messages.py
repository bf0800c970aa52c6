"""Anthropic's `/v1/messages`, also behind Vertex (`:rawPredict`) and gateways.

`input_tokens` EXCLUDES cache reads and writes, so they are added (docs.anthropic.com, "Prompt caching": total input is
the sum of the three). Streamed, `message_start` tells the input and `message_delta` the rest; the delta's figures are
cumulative and replace the start's, member by member. Thinking is inside `output_tokens`.
"""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.meter import Answer, Prepared
from taximeter.flavors.text import extract
from taximeter.flavors.usage import conventions
from taximeter.flavors.usage.counts import Fields
from taximeter.flavors.usage.reader import UsageReader
from taximeter.flavors.usage.row import Row

_CACHE = ("cache_read_input_tokens", "cache_creation_input_tokens")


class MessagesReader(UsageReader):
    """A message, whole or streamed."""

    __slots__ = ("_partial",)

    def __init__(self, row: Row, prepared: Prepared, answer: Answer, provider: str) -> None:
        super().__init__(row, prepared, answer, provider)
        self._partial = False

    def kind(self, kind: str) -> None:
        super().kind(kind)
        if kind == "message_start":
            self._partial = True
        elif kind in ("message_delta", "message_stop"):
            self._partial = False

    def convert(self) -> Reading:
        reading = super().convert()
        if self._partial:
            reading.output_tokens = None  # message_start's is the first token's, not the answer's
        return reading

    def report(self, usage: Fields, raw: bytes) -> None:
        all_cached = any(usage.get(name) and not self.usage.get(name) for name in _CACHE)
        if usage.get("iterations") or (usage.get("input_tokens") == 0 and all_cached):
            # its zeros are meant: passes are told one by one, or what the start called input was found in the cache
            self.usage = {name: value for name, value in self.usage.items() if usage.get(name) != 0}
        super().report(usage, raw)

    def output_text(self, event: Fields) -> Iterable[str]:
        if "content" in event:
            return extract.texts_in(event["content"])
        if event.get("type") == "content_block_start":
            return extract.texts_in(event.get("content_block"))
        return extract.texts_in(event.get("delta"))


MESSAGES = Dialect(
    source="https://docs.anthropic.com/en/api/messages",
    api="messages",
    operation=Operation.LLM,
    dialect="messages",
    reader=MessagesReader,
    envelopes=("message",),
    read=conventions.anthropic,
    ends=frozenset(("message_stop",)),
    marks=(b'"message_stop"', b"error"),
    messages="messages",
)
