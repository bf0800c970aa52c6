"""Assistants runs, `/threads/{id}/runs` streamed: the run's own usage, which its steps' usages sum to.

Unary, a run returns before it has used anything and is polled later; polls are never counted.
"""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.json_flavor import JsonFlavor
from taximeter.flavors.meter import Countable
from taximeter.flavors.text import extract
from taximeter.flavors.usage import openai as openai_usage
from taximeter.flavors.usage.counts import Fields, Members, fields, items, raw_text
from taximeter.flavors.usage.reader import UsageReader, Verdict


class RunsReader(UsageReader):
    """A run's events."""

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        if raw_text(found.get("object")) != "thread.run":
            found = {name: raw for name, raw in found.items() if name not in ("usage", "id")}
        return super().take(found)

    def convert(self) -> Reading:
        return openai_usage.read(self.usage, self.provider, self.model)

    def output_text(self, event: Fields) -> Iterable[str]:
        parts = items(fields(event.get("delta")).get("content"))
        return extract.texts_in([fields(fields(part).get("text")).get("value") for part in parts])


class Runs(JsonFlavor):
    """Flavor of creating and continuing a run."""

    api = "other"
    operation = Operation.LLM
    reader = RunsReader

    def input(self, body: bytes) -> Countable:
        countable = extract.input_of(body, "instructions", "additional_instructions", "additional_messages", "thread")
        countable.truncated = True  # the thread itself is the provider's
        return countable


RUNS = Runs()
