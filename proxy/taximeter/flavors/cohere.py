"""Cohere's own API: `/v1/chat`, `/v2/chat`, `/embed` and the legacy `/generate`, and who shares these paths.

v1 keeps its usage in `meta` (streamed: `response.meta` of `stream-end`, NDJSON or SSE), v2 in `usage` (streamed:
`delta.usage` of `message-end`, which may be empty); `token_count` beside it counts the hidden preamble too and is no
bill. `/chat` is also Writer's and Reka's (OpenAI's shape), LM Studio's (`stats`, streamed in the `result` of
`chat.end`) and Oracle's (`chatResponse`); `/embed` is also TEI's (a bare array; the head tells) and Aleph Alpha's
(`num_tokens_prompt_total`).
"""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.json_flavor import Asked, JsonFlavor
from taximeter.flavors.meter import Countable, Prepared
from taximeter.flavors.text import spoken
from taximeter.flavors.usage import cohere as cohere_usage
from taximeter.flavors.usage import openai as openai_usage
from taximeter.flavors.usage.counts import Fields, Members, decode, fields, first, items
from taximeter.flavors.usage.tally import Tally, Verdict

_FLAT = "num_tokens_prompt_total"


class CohereTally(Tally):
    """A chat, generation or embedding answer."""

    usage_keys = ("meta", "usage", "stats")
    envelopes = ("response", "delta", "result", "chatResponse")
    kind_keys = ("type", "event_type")
    terminal_kinds = frozenset(("message-end", "stream-end", "chat.end"))
    watched = (
        (b'"usage"', b'"usage":null'),
        (b'"meta"', b'"meta":null'),
        (b'"stats"', b'"stats":null'),
        (b'"finish_reason"', b'"finish_reason":null'),
    )
    marks = (b"[DONE]", b"error", b"-end", b"chat.end")

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        if _FLAT in found:
            self.report({_FLAT: decode(found[_FLAT])}, b"")
        return super().take(found)

    def convert(self) -> Reading:
        if cohere_usage.is_cohere(self.usage):
            return cohere_usage.read(self.usage)
        reading = openai_usage.read(self.usage, self.provider, self.model)
        if reading.input_tokens is None:
            reading.input_tokens = first(self.usage, _FLAT)
        if reading.input_tokens is None:
            reading.input_tokens = self.head_count(b"x-compute-tokens")
        return reading

    def said(self, event: Fields) -> Iterable[str]:
        if event.get("event_type") == "stream-end":
            return  # repeats what was streamed
        delta = fields(event.get("delta"))
        yield from spoken.walked([event.get("text"), event.get("message"), delta.get("message"), delta.get("text")])
        yield from spoken.walked([fields(one).get("text") for one in items(event.get("generations"))])
        for call in map(fields, items(event.get("tool_calls"))):
            yield from spoken.walked([call.get("name")])
        if event.get("type") in ("message.delta", "reasoning.delta"):
            yield from spoken.walked(event.get("content"))
        yield from spoken.walked([fields(one).get("content") for one in items(event.get("output"))])
        yield from spoken.chat_output(fields(event.get("chatResponse")) or event)


class CohereChat(JsonFlavor):
    """Flavor of `/v1/chat`, `/v2/chat` and `/v1/generate`."""

    api = "chat"
    operation = Operation.LLM
    tally = CohereTally

    def input(self, body: bytes) -> Countable:
        if items(spoken.request(body).get("messages")):
            return spoken.chat_input(body)
        names = ("message", "prompt", "preamble", "chat_history", "input", "system_prompt", "chatRequest")
        return spoken.input_of(body, *names, structured=("tools", "documents"))


class CohereEmbed(JsonFlavor):
    """Flavor of `/embed`."""

    api = "embeddings"
    operation = Operation.EMBEDDING
    tally = CohereTally

    def ask(self, prepared: Prepared, found: Asked, *, inject: bool) -> None:
        asked = spoken.request(prepared.reading or prepared.body)
        prepared.embedding_inputs = next(
            (len(given) for name in ("texts", "inputs", "images") if (given := items(asked.get(name)))), None
        )

    def input(self, body: bytes) -> Countable:
        return spoken.embedding_input(body, "texts", "inputs", "prompt")


COHERE_CHAT = CohereChat()
COHERE_EMBED = CohereEmbed()
