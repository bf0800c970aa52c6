"""`/responses`: OpenAI's Responses API (Azure, xAI, DeepSeek, OpenRouter, Bedrock, vLLM … speak it too).

A stream tells its usage in `response.usage` of its last event, which is `response.completed`, but also
`response.incomplete` or `response.failed`; there is no `[DONE]` and nothing may be injected. `tool_usage` beside it
tells what the provider's tools were used for, where it is missing the items of the output do (`uses`).
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.meter import Answer, Countable, Prepared
from taximeter.flavors.text import extract
from taximeter.flavors.usage.counts import Fields, Members, decode, duration_s, fields, items, raw_text
from taximeter.flavors.usage.reader import UsageReader, Verdict
from taximeter.flavors.usage.row import Row
from taximeter.flavors.usage.uses import ToolUses

_ITEM_DONE = "response.output_item.done"


class ResponsesReader(UsageReader):
    """A response, whole or streamed."""

    beside = ("tool_usage",)
    __slots__ = ("_tools", "background", "status")

    def __init__(self, row: Row, prepared: Prepared, answer: Answer, provider: str) -> None:
        super().__init__(row, prepared, answer, provider)
        self._tools = ToolUses()
        self.status: str | None = None
        """The last that it told: queued | in_progress | completed | incomplete | failed | cancelled."""
        self.background: bool | None = None
        """It goes on without whoever reads it; None: it does not say."""

    def take(self, found: Members) -> Verdict:
        if "item" in found and raw_text(found.get("type")) == _ITEM_DONE:
            self._tools.item(fields(decode(found["item"])))
        return super().take(found)

    def passing(self, piece: bytes) -> None:
        """See `UsageReader.passing`."""
        self._tools.passing(piece)

    def event_in_part(self, head: bytes, tail: bytes) -> None:
        """See `UsageReader.event_in_part`."""
        self._tools.in_part((head, tail), one=_ITEM_DONE.encode() in head)
        super().event_in_part(head, tail)

    def _look(self, found: Members, depth: int) -> None:
        super()._look(found, depth)
        if "status" in found:
            self.status = raw_text(found["status"])
            said = bytes(found.get("background", b""))
            self.background = said == b"true" if said in (b"true", b"false") else None
        output = found.get("output")
        if output is not None and b'_call"' in bytes(output):
            self._tools.listed(map(fields, items(decode(output))))
        if "tool_usage" in found:
            told = fields(decode(found["tool_usage"]))
            self.report({"tool_usage": told} if self._tools.billed(told) else {}, b"")

    def names(self) -> tuple[str, ...]:
        """See `UsageReader.names`: also what tells whether it goes on."""
        return (*super().names(), "status", "background")

    def reading(self) -> Reading:
        """Of a response in the background that has not ended, only its id."""
        reading = super().reading()
        later = self.status == "queued" or (self.status == "in_progress" and self.background is True)
        if later and not self.usage and not self.failed:
            reading.deferred = self.id
        return reading

    def convert(self) -> Reading:
        """With what the provider's own tools were used for, which is billed by use."""
        reading = super().convert()
        for figure, times in self._tools.figures().items():
            if getattr(reading, figure) is None:
                setattr(reading, figure, times)
        return reading

    def output_text(self, event: Fields) -> Iterable[str]:
        kind = event.get("type")
        if isinstance(kind, str) and kind.endswith(".delta"):
            delta = event.get("delta")
            # audio and image deltas are base64, not text
            return (delta,) if isinstance(delta, str) and "audio." not in kind and "image" not in kind else ()
        return extract.texts_in([_without_input(item) for item in items(event.get("output"))])


class RealtimeReader(ResponsesReader):
    """A response on a Realtime connection, whose last event is of one type however it went.

    xAI tells `usage` beside the `response`, whose own is empty (https://github.com/MemberJunction/MJ/pull/3662).
    """

    __slots__ = ()

    def _look(self, found: Members, depth: int) -> None:
        super()._look(found, depth)
        if bytes(found.get("status", b"")) == b'"failed"':
            self.failed = True

    def convert(self) -> Reading:
        """With the seconds xAI bills, unless it bills messages of text beside them: those have no price here, and part
        of a bill is none (https://docs.x.ai/developers/pricing#voice-pricing)."""
        reading = super().convert()
        if not self.usage.get("input_text_messages"):
            reading.seconds = duration_s(self.usage.get("billable_audio_seconds"))
        return reading


class Responses(Dialect, frozen=True, kw_only=True, eq=False):
    """`/responses` and `/responses/compact`."""

    def input(self, body: bytes) -> Countable:
        asked = extract.request(body)
        walk = extract.TextWalk()
        tokens = extract.TOKENS_PRIMING
        given = asked.get("input")
        for message in (given,) if isinstance(given, str) else items(given):
            tokens += extract.TOKENS_PER_MESSAGE
            walk.take(message)
        if asked.get("instructions"):
            tokens += extract.TOKENS_PER_MESSAGE
            walk.take(asked.get("instructions"))
        walk.structured(asked.get("tools"))
        countable = walk.countable(tokens)
        # a conversation kept by the provider is read again, and only it knows how long it is
        kept = asked.get("previous_response_id") or asked.get("conversation")
        countable.truncated = countable.truncated or bool(kept) or not walk.texts
        return countable


def _without_input(item: object) -> object:
    return {key: value for key, value in item.items() if key != "result"} if isinstance(item, dict) else item


RESPONSES = Responses(
    source="https://platform.openai.com/docs/api-reference/responses",
    api="responses",
    operation=Operation.LLM,
    dialect="responses",
    reader=ResponsesReader,
    envelopes=("response",),
    ends=frozenset(("response.completed", "response.incomplete", "response.failed", "response.cancelled")),
    fails=frozenset(("error", "response.failed")),
    marks=(
        b"[DONE]", b"error", b'"response.completed"', b'"response.incomplete"', b'"response.failed"',
        f'"{_ITEM_DONE}"'.encode(),
    ),
)  # fmt: skip

REALTIME = replace(
    # The events of one response on a Realtime connection; audio and text apart in the details of its usage. What was
    # said before is kept by the provider and read again.
    RESPONSES,
    source="https://platform.openai.com/docs/api-reference/realtime-server-events/response/done",
    api="realtime",
    dialect="realtime",
    reader=RealtimeReader,
    ends=frozenset(("response.done",)),
    marks=(b"[DONE]", b"error", b'"response.done"'),
)
