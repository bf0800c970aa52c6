"""`/responses`: OpenAI's Responses API (Azure, xAI, DeepSeek, OpenRouter, Bedrock, vLLM … speak it too).

A stream tells its usage in `response.usage` of its last event, which is `response.completed`, but also
`response.incomplete` or `response.failed`; there is no `[DONE]` and nothing may be injected. `tool_usage` beside it is
not the inference's.
"""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.record import Operation
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.meter import Countable
from taximeter.flavors.text import extract
from taximeter.flavors.usage.counts import Fields, items
from taximeter.flavors.usage.reader import UsageReader


class ResponsesReader(UsageReader):
    """A response, whole or streamed."""

    __slots__ = ()

    def output_text(self, event: Fields) -> Iterable[str]:
        kind = event.get("type")
        if isinstance(kind, str) and kind.endswith(".delta"):
            delta = event.get("delta")
            # audio and image deltas are base64, not text
            return (delta,) if isinstance(delta, str) and "audio." not in kind and "image" not in kind else ()
        return extract.texts_in([_without_input(item) for item in items(event.get("output"))])


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
    marks=(b"[DONE]", b"error", b'"response.completed"', b'"response.incomplete"', b'"response.failed"'),
)
