"""Runs of evaluations: one answer tells what several models used (https://platform.openai.com/docs/api-reference/evals).

A run is asked for now and done later. When it has ended, `per_model_usage` has a row for each model, those that grade
among them; each is billed at its own price, so each is a line of its own that settles the run.
"""

from __future__ import annotations

import msgspec

from taximeter.core.deferred import EVALS as API
from taximeter.core.record import Operation
from taximeter.core.usage import Reading, believable
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.meter import Answer, Prepared
from taximeter.flavors.usage import openai
from taximeter.flavors.usage.counts import Fields, Members, added, count, decode, encode, fields, items, raw_text, text
from taximeter.flavors.usage.reader import UsageReader, Verdict
from taximeter.flavors.usage.row import Row
from taximeter.flavors.usage.usual import NAME_CHARS

_FIGURES = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens")


def used_by_model(found: Members, provider: str) -> list[Reading]:
    """A reading for each model of a run; [] where none is told."""
    told = []
    for row in map(fields, items(decode(found["per_model_usage"])) if "per_model_usage" in found else ()):
        model = text(row.get("model_name"))
        reading = openai.read(row, provider, model)
        if model is not None and reading.reported:
            reading.response_model, reading.finished = model[:NAME_CHARS], True
            reading.usage = msgspec.Raw(encode(row))
            told.append(believable(reading))
    return told


class RunReader(UsageReader):
    """The answer to a POST that starts a run: its id, where what it used will be told; of one that ended at once, the
    sums."""

    __slots__ = ("_ended",)

    def __init__(self, row: Row, prepared: Prepared, answer: Answer, provider: str) -> None:
        super().__init__(row, prepared, answer, provider)
        self._ended = False

    def take(self, found: Members) -> Verdict:
        """See `UsageReader.take`."""
        self._ended = raw_text(found.get("status")) in ("completed", "failed", "canceled")
        rows = used_by_model(found, self.provider)
        if rows:
            told = [fields(decode(row.usage)) for row in rows]
            sums: Fields = {name: added(*(count(row.get(name)) for row in told)) for name in _FIGURES}
            self.report({**sums, "per_model_usage": told}, b"")
            self.model = rows[0].response_model if len(rows) == 1 else None
        return super().take({name: raw for name, raw in found.items() if name != "model"})

    def reading(self) -> Reading:
        """See `UsageReader.reading`."""
        reading = super().reading()
        if not (self._ended or self.usage or self.failed) and self.answer.status < 400:
            reading.deferred = self.id
        return reading


EVALS = Dialect(
    source="https://platform.openai.com/docs/api-reference/evals/createRun",
    api=API,
    operation=Operation.LLM,
    reader=RunReader,
    usage=(),
    kept=True,
)
