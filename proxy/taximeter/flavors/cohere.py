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
from taximeter.flavors.json_flavor import JsonFlavor, RequestMembers
from taximeter.flavors.meter import Countable, Prepared
from taximeter.flavors.text import extract
from taximeter.flavors.usage import cohere as cohere_usage
from taximeter.flavors.usage import openai as openai_usage
from taximeter.flavors.usage.counts import Fields, Members, decode, fields, first, items
from taximeter.flavors.usage.reader import UsageReader, Verdict

_FLAT = "num_tokens_prompt_total"


class CohereReader(UsageReader):
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


class CohereChat(JsonFlavor):
    """Flavor of `/v1/chat`, `/v2/chat` and `/v1/generate`."""

    api = "chat"
    operation = Operation.LLM
    reader = CohereReader

    def input(self, body: bytes) -> Countable:
        if items(extract.request(body).get("messages")):
            return extract.chat_input(body)
        names = ("message", "prompt", "preamble", "chat_history", "input", "system_prompt", "chatRequest")
        return extract.input_of(body, *names, structured=("tools", "documents"))


class CohereEmbed(JsonFlavor):
    """Flavor of `/embed`."""

    api = "embeddings"
    operation = Operation.EMBEDDING
    reader = CohereReader

    def add_to(self, prepared: Prepared, found: RequestMembers, *, inject: bool) -> None:
        asked = extract.request(prepared.reading or prepared.body)
        prepared.embedding_inputs = next(
            (len(given) for name in ("texts", "inputs", "images") if (given := items(asked.get(name)))), None
        )

    def input(self, body: bytes) -> Countable:
        return extract.embedding_input(body, "texts", "inputs", "prompt")


COHERE_CHAT = CohereChat()
COHERE_EMBED = CohereEmbed()
