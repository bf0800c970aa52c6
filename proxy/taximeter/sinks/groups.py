"""Records that count alike, summed once for all sinks: a batch under load is a few groups. Pure.

Nearly all of a batch's cost is what is done once a record, so sinks work by group where they can: they look up names
once, and add one cell.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from taximeter.core.record import Record
from taximeter.sinks.cells import add_alike, empty
from taximeter.sinks.query import TAGS

QUARTER_US = 900_000_000
"""The finest period anything is summed by."""

NULLABLE = (
    *TAGS, "duration_ms", "input_tokens", "cached_input_tokens", "cache_write_input_tokens",
    "output_tokens", "reasoning_output_tokens", "total_tokens", "audio_input_tokens", "image_input_tokens",
    "audio_output_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens", "search_units",
    "embedding_inputs", "rerank_documents", "seconds", "cost_nusd",
)  # fmt: skip
"""What a record may know or not: the columns of `usage_events` that may be null, in their order."""

Known = tuple[bool, ...]
"""For each of NULLABLE, whether a record knows it."""

_nullable = attrgetter(*NULLABLE)


class Group:
    """Records of one quarter of an hour with the same names, outcome, sources and attempt, knowing the same."""

    __slots__ = ("cell", "known", "quarter_s", "record", "records")

    def __init__(self, record: Record) -> None:
        self.record = record
        """One of them: its names are those of all."""
        self.records: list[Record] = []
        """In the order in which they came."""
        self.known: Known = tuple([value is not None for value in _nullable(record)])
        self.quarter_s = record.ended_at // QUARTER_US * 900
        """When the quarter began (s since epoch)."""
        self.cell = empty()
        """Their sums: `history.cells.FIELDS`, of which the first are `core.totals.FIELDS`."""


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
        )  # fmt: skip
        group = groups.get(key)
        if group is None:
            group = groups[key] = Group(r)
        group.records.append(r)
    for group in groups.values():
        add_alike(group.cell, group.records)
    return list(groups.values())
