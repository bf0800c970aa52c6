"""Cohere's own API: `/v1/chat`, `/v2/chat`, `/embed` and the legacy `/generate`, and who shares these paths.

v1 keeps its usage in `meta` (streamed: `response.meta` of `stream-end`, NDJSON or SSE), v2 in `usage` (streamed:
`delta.usage` of `message-end`, which may be empty); `token_count` beside it counts the hidden preamble too and is no
bill. `/chat` is also Writer's and Reka's (OpenAI's shape), LM Studio's (`stats`, streamed in the `result` of
`chat.end`) and Oracle's (`chatResponse`); `/embed` is also TEI's (a bare array; the head tells) and Aleph Alpha's
(`num_tokens_prompt_total`).
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from taximeter.core.record import Operation
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.text import extract
from taximeter.flavors.usage import conventions
from taximeter.flavors.usage.counts import Fields, fields, items
from taximeter.flavors.usage.reader import UsageReader


class CohereReader(UsageReader):
    """A chat or generation answer."""

    __slots__ = ()

    def output_text(self, event: Fields) -> Iterable[str]:
        if event.get("event_type") == "stream-end":
            return  # repeats what was streamed
        delta = fields(event.get("delta"))
        yield from extract.texts_in([event.get("text"), event.get("message"), delta.get("message"), delta.get("text")])
        yield from extract.texts_in([fields(one).get("text") for one in items(event.get("generations"))])
        for call in map(fields, items(event.get("tool_calls"))):
            yield from extract.texts_in([call.get("name")])
        if event.get("type") in ("message.delta", "reasoning.delta"):
            yield from extract.texts_in(event.get("content"))
        yield from extract.texts_in([fields(one).get("content") for one in items(event.get("output"))])
        yield from extract.chat_output(fields(event.get("chatResponse")) or event)


COHERE_CHAT = Dialect(
    source="https://docs.cohere.com/reference/chat",
    api="chat",
    operation=Operation.LLM,
    dialect="cohere",
    reader=CohereReader,
    usage=("meta", "usage", "stats"),
    envelopes=("response", "delta", "result", "chatResponse"),
    flat=("num_tokens_prompt_total",),
    heads=((b"x-compute-tokens", "input_tokens"),),
    read=conventions.cohere,
    kind=("type", "event_type"),
    ends=frozenset(("message-end", "stream-end", "chat.end")),
    watch=("finish_reason",),
    marks=(b"[DONE]", b"error", b"-end", b"chat.end"),
    messages="messages",
    prompt=("message", "prompt", "preamble", "chat_history", "input", "system_prompt", "chatRequest"),
    prompt_json=("tools", "documents"),
)
COHERE_EMBED = replace(
    COHERE_CHAT,
    source="https://docs.cohere.com/reference/embed",
    api="embeddings",
    operation=Operation.EMBEDDING,
    dialect="unknown",
    inputs=("texts", "inputs", "images"),
    messages="",
    prompt=("texts", "inputs", "prompt"),
    prompt_json=(),
)
