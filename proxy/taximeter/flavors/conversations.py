"""Mistral's `/conversations`: a conversation kept by the provider, with connectors that bring text into the prompt.

`connector_tokens` stand beside prompt and completion (177 + 134 + 3929 = 4240) and are input. Streamed,
`conversation.response.done` carries the usage of all its turns. Source: https://docs.mistral.ai/api (Conversations).
"""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.json_flavor import JsonFlavor
from taximeter.flavors.meter import Countable
from taximeter.flavors.text import extract
from taximeter.flavors.usage import openai as openai_usage
from taximeter.flavors.usage.counts import Fields, fields, items
from taximeter.flavors.usage.reader import UsageReader


class ConversationReader(UsageReader):
    """A turn, whole or streamed."""

    terminal_kinds = frozenset(("conversation.response.done",))
    failed_kinds = frozenset(("error", "conversation.response.error"))
    marks = (b"error", b'"conversation.response.done"')

    __slots__ = ()

    def convert(self) -> Reading:
        return openai_usage.read(self.usage, self.provider, self.model)

    def output_text(self, event: Fields) -> Iterable[str]:
        if "outputs" in event:
            return extract.texts_in([fields(one).get("content") for one in items(event["outputs"])])
        if event.get("type") in ("message.output.delta", "function.call.delta"):
            return extract.texts_in([event.get("content"), event.get("name"), event.get("arguments")])
        return ()


class Conversations(JsonFlavor):
    """Flavor of starting, appending to and restarting a conversation."""

    api = "responses"
    operation = Operation.LLM
    reader = ConversationReader

    def input(self, body: bytes) -> Countable:
        countable = extract.input_of(body, "inputs", "instructions", structured=("tools",))
        countable.truncated = True  # the conversation itself is the provider's
        return countable


CONVERSATIONS = Conversations()
