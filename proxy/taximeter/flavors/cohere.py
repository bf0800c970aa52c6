"""Cohere's own API: `/v1/chat`, `/v2/chat`, `/embed` and the legacy `/generate`; Writer's `/v1/chat` shares the path.

v1 keeps its usage in `meta` (streamed: `response.meta` of `stream-end`, NDJSON or SSE), v2 in `usage` (streamed:
`delta.usage` of `message-end`, which may be empty). Writer answers in OpenAI's shape.
"""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors import cohere_usage, openai_usage, spoken
from taximeter.flavors.counts import Fields, fields, items
from taximeter.flavors.json_flavor import Asked, JsonFlavor
from taximeter.flavors.meter import Countable, Prepared
from taximeter.flavors.tally import Tally


class CohereTally(Tally):
    """A chat, generation or embedding answer."""

    usage_keys = ("meta", "usage")
    envelopes = ("response", "delta")
    kind_keys = ("type", "event_type")
    terminal_kinds = frozenset(("message-end", "stream-end"))
    watched = (
        (b'"usage"', b'"usage":null'),
        (b'"meta"', b'"meta":null'),
        (b'"finish_reason"', b'"finish_reason":null'),
    )
    marks = (b"[DONE]", b"error", b"-end")

    __slots__ = ()

    def convert(self) -> Reading:
        if cohere_usage.is_cohere(self.usage):
            return cohere_usage.read(self.usage)
        return openai_usage.read(self.usage, self.provider, self.model)

    def said(self, event: Fields) -> Iterable[str]:
        if event.get("event_type") == "stream-end":
            return  # repeats what was streamed
        delta = fields(event.get("delta"))
        yield from spoken.walked([event.get("text"), event.get("message"), delta.get("message"), delta.get("text")])
        yield from spoken.walked([fields(one).get("text") for one in items(event.get("generations"))])
        for call in map(fields, items(event.get("tool_calls"))):
            yield from spoken.walked([call.get("name")])
        yield from spoken.chat_output(event)


class CohereChat(JsonFlavor):
    """Flavor of `/v1/chat`, `/v2/chat` and `/v1/generate`."""

    api = "chat"
    operation = Operation.LLM
    tally = CohereTally

    def input(self, body: bytes) -> Countable:
        if items(spoken.request(body).get("messages")):
            return spoken.chat_input(body)
        return spoken.input_of(body, "message", "prompt", "preamble", "chat_history", structured=("tools", "documents"))


class CohereEmbed(JsonFlavor):
    """Flavor of `/embed`."""

    api = "embeddings"
    operation = Operation.EMBEDDING
    tally = CohereTally

    def ask(self, prepared: Prepared, found: Asked, *, inject: bool) -> None:
        asked = spoken.request(prepared.body)
        prepared.embedding_inputs = next(
            (len(given) for name in ("texts", "inputs", "images") if (given := items(asked.get(name)))), None
        )

    def input(self, body: bytes) -> Countable:
        return spoken.embedding_input(body, "texts", "inputs")


COHERE_CHAT = CohereChat()
COHERE_EMBED = CohereEmbed()
