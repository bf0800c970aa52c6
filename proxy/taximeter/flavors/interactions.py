"""Gemini's `/interactions`: other names for the same counts.

`total_thought_tokens` and `total_tool_use_tokens` stand beside output and input; `total_tokens` is the sum of the four
(149 = 12 + 1 + 136). Streamed, `interaction.completed` has the last figures; earlier ones are cumulative.
"""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.json_flavor import JsonFlavor
from taximeter.flavors.meter import Countable
from taximeter.flavors.text import extract
from taximeter.flavors.usage.counts import Fields, added, count, fields, first, items
from taximeter.flavors.usage.reader import UsageReader
from taximeter.flavors.usage.usual import parts_exceed


class InteractionsReader(UsageReader):
    """An interaction, whole or streamed."""

    envelopes = ("interaction", "metadata")
    kind_keys = ("event_type",)
    terminal_kinds = frozenset(("interaction.completed", "interaction.complete", "interaction.failed"))
    failed_kinds = frozenset(("error", "interaction.failed"))
    marks = (b"[DONE]", b"error", b'"interaction.')

    __slots__ = ()

    def convert(self) -> Reading:
        usage = self.usage
        reading = Reading(
            input_tokens=added(first(usage, "total_input_tokens"), first(usage, "total_tool_use_tokens")),
            cached_input_tokens=first(usage, "total_cached_tokens"),
            audio_input_tokens=_modality(usage, "audio"),
            image_input_tokens=_modality(usage, "image"),
            output_tokens=added(first(usage, "total_output_tokens"), first(usage, "total_thought_tokens")),
            reasoning_output_tokens=first(usage, "total_thought_tokens"),
        )
        total = first(usage, "total_tokens")
        if total is not None and reading.input_tokens is not None and reading.output_tokens is not None:
            reading.inconsistent = total != reading.input_tokens + reading.output_tokens
        reading.inconsistent = reading.inconsistent or parts_exceed(reading)
        return reading

    def output_text(self, event: Fields) -> Iterable[str]:
        return extract.texts_in([event.get("delta"), event.get("outputs"), event.get("steps")])


class Interactions(JsonFlavor):
    """Flavor of `/interactions`."""

    api = "generate"
    operation = Operation.LLM
    reader = InteractionsReader

    def input(self, body: bytes) -> Countable:
        return extract.input_of(body, "input", "system_instruction", structured=("tools",))


def _modality(usage: Fields, wanted: str) -> int | None:
    listed = [fields(one) for one in items(usage.get("input_tokens_by_modality"))]
    return added(*(count(one.get("tokens")) for one in listed if one.get("modality") == wanted))


INTERACTIONS = Interactions()
