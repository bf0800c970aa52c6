"""Anthropic's `/v1/messages`, also behind Vertex (`:rawPredict`) and gateways.

`input_tokens` EXCLUDES cache reads and writes, so they are added (docs.anthropic.com, "Prompt caching": total input is
the sum of the three). Streamed, `message_start` tells the input and `message_delta` the rest; the delta's figures are
cumulative and replace the start's, member by member. Thinking is inside `output_tokens`.
"""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.json_flavor import JsonFlavor
from taximeter.flavors.meter import Answer, Countable, Prepared
from taximeter.flavors.text import extract
from taximeter.flavors.usage.counts import Fields, added, count, fields, first, items, text
from taximeter.flavors.usage.openai import cost_nusd
from taximeter.flavors.usage.reader import UsageReader
from taximeter.flavors.usage.usual import exceeds, parts_exceed

_PASSES_APART = frozenset(("compaction",))
"""Passes in `iterations` that the top-level figures leave out though they are billed (docs.anthropic.com, "Compaction":
sum the iterations). An advisor's pass is left to the raw usage: it runs on another model, at another price."""


def read(usage: Fields) -> Reading:
    """Anthropic's usage object in our convention."""
    passes = [usage, *(one for one in map(fields, items(usage.get("iterations"))) if one.get("type") in _PASSES_APART)]
    reads = [count(one.get("cache_read_input_tokens")) for one in passes]
    writes = [count(one.get("cache_creation_input_tokens")) for one in passes]
    split = [fields(one.get("cache_creation")) for one in passes]
    fresh = [count(one.get("input_tokens")) for one in passes]
    tools = fields(usage.get("server_tool_use"))
    reading = Reading(
        input_tokens=added(*fresh, *reads, *writes) if added(*fresh) is not None or added(*reads, *writes) else None,
        cached_input_tokens=added(*reads),
        cache_write_input_tokens=added(*writes),
        cache_write_input_tokens_5m=added(*(first(one, "ephemeral_5m_input_tokens") for one in split)),
        cache_write_input_tokens_1h=added(*(first(one, "ephemeral_1h_input_tokens") for one in split)),
        output_tokens=added(*(count(one.get("output_tokens")) for one in passes)),
        reasoning_output_tokens=first(fields(usage.get("output_tokens_details")), "thinking_tokens"),
        web_search_requests=first(tools, "web_search_requests"),
        service_tier=text(usage.get("service_tier")),
        upstream_cost_nusd=cost_nusd(usage),
    )
    split_total = added(reading.cache_write_input_tokens_5m, reading.cache_write_input_tokens_1h)
    reading.inconsistent = parts_exceed(reading) or exceeds(split_total, reading.cache_write_input_tokens)
    return reading


class MessagesReader(UsageReader):
    """A message, whole or streamed."""

    envelopes = ("message",)
    terminal_kinds = frozenset(("message_stop",))
    marks = (b'"message_stop"', b"error")

    __slots__ = ("_partial",)

    def __init__(self, prepared: Prepared, answer: Answer, provider: str) -> None:
        super().__init__(prepared, answer, provider)
        self._partial = False

    def kind(self, kind: str) -> None:
        super().kind(kind)
        if kind == "message_start":
            self._partial = True
        elif kind in ("message_delta", "message_stop"):
            self._partial = False

    def convert(self) -> Reading:
        reading = read(self.usage)
        if self._partial:
            reading.output_tokens = None  # message_start's is the first token's, not the answer's
        return reading

    def output_text(self, event: Fields) -> Iterable[str]:
        if "content" in event:
            return extract.texts_in(event["content"])
        if event.get("type") == "content_block_start":
            return extract.texts_in(event.get("content_block"))
        return extract.texts_in(event.get("delta"))


class Messages(JsonFlavor):
    """Flavor of `/messages`."""

    api = "messages"
    operation = Operation.LLM
    reader = MessagesReader

    def path_streams(self, path: bytes) -> bool:
        return b":streamrawpredict" in path.lower()

    def input(self, body: bytes) -> Countable:
        return extract.chat_input(body)


MESSAGES = Messages()
