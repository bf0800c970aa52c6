"""`/chat/completions`: OpenAI's chat API and everybody who speaks it.

Where the usage stands: `usage` of the body, or of the last chunks (any chunk; the latest figure of each member counts),
`x_groq.usage` (Groq), `choices[].usage` (Moonshot), inside envelopes: `data` (Kinetica), `result` (Cloudflare),
`orchestration_result` and `final_result` (SAP).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors import openai_usage, spoken
from taximeter.flavors.counts import NAME_CHARS, UNREADABLE, Fields, Members, decode, fields, items
from taximeter.flavors.json_flavor import Asked, JsonFlavor
from taximeter.flavors.meter import Answer, Countable, Prepared
from taximeter.flavors.splice import include_usage
from taximeter.flavors.tally import Tally, Verdict

_WRAPPERS = ("data", "result", "orchestration_result", "final_result")


class ChatTally(Tally):
    """Chat completions, whole or streamed."""

    usage_keys = ("usage",)
    envelopes = ("x_groq", *_WRAPPERS)
    watched = ((b'"usage"', b'"usage":null'), (b'"finish_reason"', b'"finish_reason":null'))

    __slots__ = ("_plain",)

    def __init__(self, prepared: Prepared, answer: Answer, provider: str) -> None:
        super().__init__(prepared, answer, provider)
        self._plain: Reading | None = None

    def whole(self, body: bytes) -> None:
        """A unary answer as OpenAI sends it is read in one typed decode; any other by the rules."""
        try:
            found = _plain_answer.decode(body)
        except UNREADABLE:
            super().whole(body)
            return
        self._plain = openai_usage.plain(found.usage, self.provider)
        if self._plain is None:
            super().whole(body)
            return
        self.model, self.id, self.tier = found.model, found.id, found.service_tier
        self.keep_raw(bytes(found.usage))
        self.finished = True

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
        plain = self._plain
        if plain is None and self.raw:
            plain = openai_usage.plain(self.raw, self.provider)
        return plain or openai_usage.read(self.usage, self.provider, self.model)

    def usage_raw(self) -> msgspec.Raw:
        return super().usage_raw() if self._plain is None else msgspec.Raw(self.raw)

    def said(self, event: Fields) -> Iterable[str]:
        for _ in range(2):  # Kinetica wraps its answer twice
            event = next((inner for name in _WRAPPERS if (inner := fields(event.get(name)))), event)
        return spoken.chat_output(event)


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARS)]


class _PlainAnswer(msgspec.Struct):
    """What OpenAI's own answer holds of interest; with any of the members typed None it is read by the rules."""

    model: Name
    usage: msgspec.Raw
    id: Name | None = None
    service_tier: Name | None = None
    error: None = None
    type: None = None
    x_groq: None = None
    data: None = None
    result: None = None
    orchestration_result: None = None
    final_result: None = None


_plain_answer = msgspec.json.Decoder(_PlainAnswer)


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
