"""Assistants runs, `/threads/{id}/runs` streamed: the run's own usage, which its steps' usages sum to.

Unary, a run returns before it has used anything and is polled later; polls are never counted.
"""

from __future__ import annotations

from taximeter.core.record import Operation
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.usage.counts import Members, raw_text
from taximeter.flavors.usage.reader import UsageReader, Verdict


class RunsReader(UsageReader):
    """A run's events."""

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        if raw_text(found.get("object")) != "thread.run":
            found = {name: raw for name, raw in found.items() if name not in ("usage", "id")}
        return super().take(found)


RUNS = Dialect(
    source="https://platform.openai.com/docs/api-reference/runs",
    operation=Operation.LLM,
    dialect="agent",
    reader=RunsReader,
    prompt=("instructions", "additional_instructions", "additional_messages", "thread"),
    kept=True,
    text=("delta.content.text.value",),
)
