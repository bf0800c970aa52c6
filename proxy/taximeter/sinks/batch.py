"""What delivery hands a sink: a batch of records, and those of them that count alike summed once for all sinks. Pure.

Nearly all of a batch's cost is what is done once a record, and a batch under load is a few groups: sinks work by group
where they can, look up names once, and add one cell.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableSequence, Sequence
from operator import attrgetter

import msgspec

from taximeter.core import totals
from taximeter.core.record import Operation, Outcome, Record
from taximeter.sinks.cells import COUNTS, FIELDS, SUMMED

QUARTER_US = 900_000_000
"""The finest period anything is summed by."""

(
    _ATTEMPTS, _CORRECTIONS, _REFUSED, _AUDIO_IN, _IMAGE_IN, _AUDIO_OUT, _ACCEPTED, _REJECTED, _INPUTS, _DOCS,
    _AUDIO, _DURATION,
) = range(len(totals.FIELDS), len(FIELDS))  # fmt: skip

_FIGURES = tuple(
    (name, attrgetter(name))
    for name in (
        "input_tokens", "cached_input_tokens", "cache_write_input_tokens", "output_tokens", "reasoning_output_tokens",
        "search_units", "cost_nusd", *SUMMED[: SUMMED.index("audio_ms")],
    )
)  # fmt: skip
"""What of a record is added up as it is."""

_MANY = 8
"""Records from which on `add_alike` is the cheaper."""


class Batch(msgspec.Struct, kw_only=True):
    """Consecutive records of one journal, cut for one cursor."""

    journal_id: str
    after: int
    """The cursor this batch was cut for: the sink applies it only if its own cursor for the journal is just this."""
    upto: int
    """`seq` of the last record; the cursor afterwards."""
    records: list[Record]
    """In `seq` order: after+1 … upto. A gap only where a line on disk cannot be read any more (alarmed).

    Empty, with `after` == `upto`, where a journal ended after its last record was delivered: only sinks that keep
    journals (`JournalKeeper`) are told so.
    """
    digest: str = ""
    """Digest of the journal's bytes up to and including the line of `upto` (history keeps it)."""
    ended: bool = False
    """The journal has its end line and `upto` is its last record."""
    groups: list[Group] = []
    """Of `records`, always."""

    def __post_init__(self) -> None:
        self.groups = grouped(self.records)


class Group:
    """Records of one quarter of an hour with the same names, outcome, sources and attempt, knowing the same."""

    __slots__ = ("cell", "quarter_s", "record", "records")

    def __init__(self, record: Record) -> None:
        self.record = record
        """One of them: its names are those of all."""
        self.records: list[Record] = []
        """In the order in which they came."""
        self.quarter_s = record.ended_at // QUARTER_US * 900
        """When the quarter began (s since epoch)."""
        self.cell = [0] * len(FIELDS)
        """Their sums: `cells.FIELDS`, of which the first are `core.totals.FIELDS`."""


def grouped(records: Iterable[Record]) -> list[Group]:
    """The groups of records, by when the first of each came."""
    groups: dict[tuple[object, ...], Group] = {}
    for r in records:
        # Spelt out: attributes read in a row cost a third of those a getter or a loop collects.
        key = (
            r.ended_at // QUARTER_US, r.kind, r.attempt, r.workspace, r.task, r.key_id, r.upstream, r.provider, r.api,
            r.operation, r.request_model, r.response_model, r.service_tier, r.outcome,
            r.input_source, r.output_source, r.tokenizer, r.price_ref,
            r.track is None, r.document is None, r.end_user is None, r.duration_ms is None, r.input_tokens is None,
            r.cached_input_tokens is None, r.cache_write_input_tokens is None, r.output_tokens is None,
            r.reasoning_output_tokens is None, r.total_tokens is None, r.audio_input_tokens is None,
            r.image_input_tokens is None, r.audio_output_tokens is None, r.accepted_prediction_tokens is None,
            r.rejected_prediction_tokens is None, r.search_units is None, r.embedding_inputs is None,
            r.rerank_documents is None, r.seconds is None, r.cost_nusd is None,
            r.operation is Operation.OTHER and r.measured,
        )  # fmt: skip
        group = groups.get(key)
        if group is None:
            group = groups[key] = Group(r)
        group.records.append(r)
    for group in groups.values():
        add_alike(group.cell, group.records)
    return list(groups.values())


def add(cell: MutableSequence[int], record: Record) -> None:
    """Add a record to a cell: a list of len(FIELDS) integers in the order of FIELDS."""
    totals.add(cell, record)
    if record.kind != "usage":
        cell[_CORRECTIONS] += record.kind == "correction"
        return
    cell[_ATTEMPTS] += 1
    if record.outcome is Outcome.REFUSED:
        cell[_REFUSED] += 1
    if record.duration_ms is not None:
        cell[_DURATION] += round(record.duration_ms * 1_000)
    if record.audio_input_tokens:
        cell[_AUDIO_IN] += record.audio_input_tokens
    if record.image_input_tokens:
        cell[_IMAGE_IN] += record.image_input_tokens
    if record.audio_output_tokens:
        cell[_AUDIO_OUT] += record.audio_output_tokens
    if record.accepted_prediction_tokens:
        cell[_ACCEPTED] += record.accepted_prediction_tokens
    if record.rejected_prediction_tokens:
        cell[_REJECTED] += record.rejected_prediction_tokens
    if record.embedding_inputs:
        cell[_INPUTS] += record.embedding_inputs
    if record.rerank_documents:
        cell[_DOCS] += record.rerank_documents
    if record.seconds is not None:
        cell[_AUDIO] += round(record.seconds * 1_000)


def add_alike(cell: MutableSequence[int], records: Sequence[Record]) -> None:
    """Add records of the same names, outcome, sources and attempt that know the same: what `add` does for each of
    them is done once, for one that carries their sums, and counted as often as there are records."""
    count, first = len(records), records[0]
    if count < _MANY:
        for record in records:
            add(cell, record)
        return
    sums = {name: sum(map(figure, records)) for name, figure in _FIGURES if getattr(first, name) is not None}
    one = [0] * len(FIELDS)
    add(one, msgspec.structs.replace(first, **sums))
    for field in COUNTS:
        one[field] *= count
    if one[_ATTEMPTS]:  # rounded one by one
        one[_DURATION] = sum([round((record.duration_ms or 0) * 1_000) for record in records])
        if first.seconds is not None:
            one[_AUDIO] = sum([round((record.seconds or 0) * 1_000) for record in records])
    for field, amount in enumerate(one):
        cell[field] += amount
