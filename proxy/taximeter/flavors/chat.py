"""`/chat/completions`: OpenAI's chat API and everybody who speaks it.

Where the usage stands: `usage` of the body, or of the last chunks (any chunk; the latest figure of each member counts),
`x_groq.usage` (Groq), `choices[].usage` (Moonshot), inside `data`/`result` envelopes (Kinetica, Cloudflare).
"""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors import openai_usage, spoken
from taximeter.flavors.counts import Fields, Members, decode, fields, items
from taximeter.flavors.json_flavor import Asked, JsonFlavor
from taximeter.flavors.meter import Countable, Prepared
from taximeter.flavors.splice import include_usage
from taximeter.flavors.tally import Tally, Verdict


class ChatTally(Tally):
    """Chat completions, whole or streamed."""

    usage_keys = ("usage",)
    envelopes = ("x_groq", "data", "result")
    watched = ((b'"usage"', b'"usage":null'), (b'"finish_reason"', b'"finish_reason":null'))

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        super().take(found)
        choices = bytes(found["choices"]) if "choices" in found else None
        if choices is None:
            return Verdict.TAKEN
        if choices in (b"[]", b"null") or not choices.strip(b"[] \t\r\n"):
            return Verdict.USAGE_ONLY if _has_object(found, "usage") else Verdict.TAKEN
        if b'"usage"' in choices and not _has_object(found, "usage"):
            for choice in items(decode(choices)):
                usage = fields(fields(choice).get("usage"))
                if usage:
                    self.report(usage, b"")
        return Verdict.TAKEN

    def convert(self) -> Reading:
        return openai_usage.read(self.usage, self.provider, self.model)

    def said(self, event: Fields) -> Iterable[str]:
        for _ in range(2):  # Kinetica wraps its answer twice
            event = fields(event.get("data")) or event
        return spoken.chat_output(event)


class Chat(JsonFlavor):
    """Flavor of `/chat/completions`."""

    api = "chat"
    operation = Operation.LLM
    tally = ChatTally

    def ask(self, prepared: Prepared, found: Asked, *, inject: bool) -> None:
        if inject and prepared.stream:
            asking = include_usage(prepared.body, bytes(found.stream_options))
            if asking is not None:
                prepared.body, prepared.injected = asking, True

    def input(self, body: bytes) -> Countable:
        return spoken.chat_input(body)


def _has_object(found: Members, name: str) -> bool:
    return name in found and bytes(found[name])[:1] == b"{"


CHAT = Chat()
