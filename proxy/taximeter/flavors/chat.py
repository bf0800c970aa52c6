"""`/chat/completions`: OpenAI's chat API and everybody who speaks it.

Where the usage stands: `usage` of the body, or of the last chunks (any chunk; the latest figure of each member counts),
`x_groq.usage` (Groq), `choices[].usage` (Moonshot), inside envelopes: `data` (Kinetica), `result` (Cloudflare),
`orchestration_result` and `final_result` (SAP).
"""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.json_flavor import JsonFlavor, RequestMembers
from taximeter.flavors.meter import Countable, Prepared
from taximeter.flavors.text import extract
from taximeter.flavors.text.splice import include_usage
from taximeter.flavors.usage import openai as openai_usage
from taximeter.flavors.usage import usual
from taximeter.flavors.usage.counts import Fields, Members, decode, fields, items
from taximeter.flavors.usage.reader import UsageReader, Verdict

_WRAPPERS = ("data", "result", "orchestration_result", "final_result")


class ChatReader(UsageReader):
    """Chat completions, whole or streamed."""

    usage_keys = ("usage",)
    envelopes = ("x_groq", *_WRAPPERS)
    watched = ((b'"usage"', b'"usage":null'), (b'"finish_reason"', b'"finish_reason":null'))

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        super().take(found)
        if "base_resp" in found and fields(decode(found["base_resp"])).get("status_code"):
            self.failed = True  # MiniMax tells its errors with status 200
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
        plain = openai_usage.usual_shape(self.raw, self.provider) if self.raw else None
        return plain or openai_usage.read(self.usage, self.provider, self.model)

    def output_text(self, event: Fields) -> Iterable[str]:
        for _ in range(2):  # Kinetica wraps its answer twice
            event = next((inner for name in _WRAPPERS if (inner := fields(event.get(name)))), event)
        return extract.chat_output(event)


class Chat(JsonFlavor):
    """Flavor of `/chat/completions`."""

    api = "chat"
    operation = Operation.LLM
    reader = ChatReader

    def add_to(self, prepared: Prepared, found: RequestMembers, *, inject: bool) -> None:
        if inject and prepared.stream:
            asking = include_usage(prepared.body, bytes(found.stream_options))
            if asking is not None:
                prepared.body, prepared.injected = asking, True

    def usual(self, body: bytes, provider: str) -> Reading | None:
        """As OpenAI and most who speak its API answer."""
        return None if provider in openai_usage.REASONING_BESIDE else usual.chat(body)

    def input(self, body: bytes) -> Countable:
        return extract.chat_input(body)


def _has_object(found: Members, name: str) -> bool:
    return name in found and bytes(found[name])[:1] == b"{"


CHAT = Chat()
