"""What a roll-up cell sums: every field of core.totals plus the details other views need, one list of integers.

Pure. The one place that says which sums history keeps; schema, writer and reader all derive from FIELDS.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import msgspec

from taximeter.core import totals
from taximeter.core.record import Record
from taximeter.core.totals import Totals


class Details(msgspec.Struct, gc=False):
    """Sums beside Totals, over `usage` records of every operation. Integers; an unknown figure adds nothing."""

    attempts: int = 0
    """Records of kind `usage`: upstream attempts, retries and refusals included."""
    corrections: int = 0
    """Records of kind `correction`."""
    refused: int = 0
    """Attempts that we refused, which `Totals.errors` counts too. Of what was recorded before version 4 of history's
    schema they are not told apart."""
    audio_input_tokens: int = 0
    image_input_tokens: int = 0
    audio_output_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0
    embedding_inputs: int = 0
    rerank_documents: int = 0
    audio_ms: int = 0
    """Audio billed by time, each record rounded to a millisecond."""
    duration_us: int = 0
    """Time from request to the answer's end; divide by `attempts` for the mean."""


SUMMED: tuple[str, ...] = Details.__struct_fields__[3:]
"""The details that are plain sums of an event column of the same name."""

FIELDS: tuple[str, ...] = totals.FIELDS + Details.__struct_fields__
"""The columns of every roll-up table, in the order of a cell."""

COUNTS: frozenset[int] = frozenset((
    totals.REQUESTS, totals.ERRORS, totals.UNKNOWN, totals.UNPRICED, totals.LLM_REQUESTS, totals.EMBEDDING_REQUESTS,
    totals.RERANK_REQUESTS, totals.OTHER_REQUESTS, len(totals.FIELDS), len(totals.FIELDS) + 1,
    len(totals.FIELDS) + 2,
))  # fmt: skip
"""Indices of fields to which a record adds 0 or 1, whatever its figures are."""

GROWING: frozenset[str] = frozenset(FIELDS).difference(("unpriced_requests", "cost_nusd"))
"""Fields that no record makes smaller: a correction changes the others."""

_N = len(totals.FIELDS)


def empty() -> list[int]:
    """A new cell of zeros."""
    return [0] * len(FIELDS)


def audio_ms(record: Record) -> int | None:
    """Billed audio time in whole milliseconds; None where it was not billed by time."""
    return None if record.seconds is None else round(record.seconds * 1_000)


def duration_us(record: Record) -> int | None:
    """Duration in whole microseconds; None where not measured."""
    return None if record.duration_ms is None else round(record.duration_ms * 1_000)


def merge(into: list[int], cell: Sequence[int]) -> None:
    """Add one cell to another of the same length."""
    into[:] = map(operator.add, into, cell)


def negative(cell: Sequence[int]) -> list[int]:
    """What takes a cell away when merged."""
    return [-figure for figure in cell]


def split(cell: Sequence[int]) -> tuple[Totals, Details]:
    """A cell as named sums."""
    return Totals(*cell[:_N]), Details(*cell[_N:])  # by place: tens of thousands of groups are not rare
