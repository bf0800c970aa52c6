"""The Prometheus sink (DESIGN §6): integer cells fed from the journal, process-local, bounded in series.

Not a source for billing: after a restart it begins at 0, with what history had not passed. What is exposed and under
which names is `families`; this module only counts.
"""

from __future__ import annotations

import operator
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Sequence

from taximeter.core import totals
from taximeter.core.record import Operation, Outcome, Record, Source, seq_of
from taximeter.sinks.batch import Batch, Group, grouped
from taximeter.sinks.ledger import Cell

MAX_WORKSPACES = 500
MAX_MODELS = 500
MAX_SERIES = 20_000
MAX_LABEL_CHARS = 200
OTHER = "other"

_OTHER_SERIES = 2_000
"""Of MAX_SERIES, kept for what is summed under `other`: those series are as many as providers and operations."""

OUTCOMES = tuple(Outcome)
SOURCES = (Source.REPORTED, Source.COUNTED, Source.ESTIMATED)
_OUTCOME = {outcome: slot for slot, outcome in enumerate(OUTCOMES)}
INPUT = len(OUTCOMES)
OUTPUT = INPUT + len(SOURCES)
SUMS = OUTPUT + len(SOURCES)
"""A series cell: requests by outcome, input tokens by source, output tokens by source, then these sums:"""
SUMMED = (
    totals.LLM_CACHED,
    totals.LLM_CACHE_WRITE,
    totals.LLM_REASONING,
    totals.SEARCH_UNITS,
    totals.COST,
    totals.UNPRICED,
    totals.UNKNOWN,
)
CELL_SLOTS = SUMS + len(SUMMED)
_summed = operator.itemgetter(*SUMMED)
_inputs = operator.itemgetter(totals.LLM_INPUT, totals.EMBEDDING, totals.RERANK)

SECONDS = tuple(0.01 * 2**n for n in range(14))
"""OpenTelemetry GenAI's buckets for durations: 0.01 … 81.92 s."""
OVERHEAD_SECONDS = tuple(0.00005 * 2**n for n in range(12))
"""50 µs … 102.4 ms."""
TOKENS = tuple(4**n for n in range(14))
"""OpenTelemetry GenAI's buckets for tokens: 1, 4, 16 … 4^13."""
_MS = [bound * 1_000 for bound in SECONDS]
_OVERHEAD_US = [round(bound * 1_000_000) for bound in OVERHEAD_SECONDS]
_TOKENS = list(TOKENS)

SeriesKey = tuple[str, str, str, Operation]
"""workspace, provider, model, operation."""
ShapeKey = tuple[str, str, Operation]
"""provider, model, operation."""
Exemplar = tuple[str, float, int]
"""request id, observed value, µs since epoch."""


class Shape:
    """The histograms of one provider, model and operation: counts per bucket (the last: beyond all), and sums."""

    __slots__ = (
        "duration", "duration_exemplars", "duration_us", "input_tokens", "input_tokens_sum", "output_tokens",
        "output_tokens_sum", "overhead", "overhead_us", "ttft", "ttft_exemplars", "ttft_us",
    )  # fmt: skip

    def __init__(self) -> None:
        self.duration, self.ttft = [0] * (len(_MS) + 1), [0] * (len(_MS) + 1)
        self.duration_us = self.ttft_us = self.overhead_us = self.input_tokens_sum = self.output_tokens_sum = 0
        self.duration_exemplars: dict[int, Exemplar] = {}
        self.ttft_exemplars: dict[int, Exemplar] = {}
        self.overhead = [0] * (len(_OVERHEAD_US) + 1)
        self.input_tokens, self.output_tokens = [0] * (len(_TOKENS) + 1), [0] * (len(_TOKENS) + 1)

    def observe(self, records: Sequence[Record]) -> None:
        """Add attempts that were sent upstream."""
        durations_ms, ttfts_ms = [r.duration_ms for r in records], [r.ttft_ms for r in records]
        self.duration_us += _timed(self.duration, self.duration_exemplars, records, durations_ms)
        self.ttft_us += _timed(self.ttft, self.ttft_exemplars, records, ttfts_ms)
        self.overhead_us += _tally(self.overhead, _OVERHEAD_US, [r.overhead_us for r in records])
        self.input_tokens_sum += _tally(self.input_tokens, _TOKENS, [r.input_tokens for r in records])
        self.output_tokens_sum += _tally(self.output_tokens, _TOKENS, [r.output_tokens for r in records])


def _timed(
    counts: list[int], exemplars: dict[int, Exemplar], records: Sequence[Record], times_ms: Sequence[float | None]
) -> int:
    """Count the times known by bucket, the last of each as its exemplar; returns their sum (µs)."""
    total_us = 0
    last: dict[int, int] = {}
    for at, ms in enumerate(times_ms):
        if ms is not None:
            slot = bisect_left(_MS, ms)
            counts[slot] += 1
            total_us += int(ms * 1_000)
            last[slot] = at
    for slot, at in last.items():
        exemplars[slot] = (records[at].request_id, (times_ms[at] or 0.0) / 1_000, records[at].ended_at)
    return total_us


def _tally(counts: list[int], bounds: list[int], values: Iterable[int | None]) -> int:
    """Count the values known by bucket; returns their sum."""
    known = [value for value in values if value is not None]
    for value in known:
        counts[bisect_left(bounds, value)] += 1
    return sum(known)


SHAPE_SERIES = 2 * (len(SECONDS) + 3) + len(OVERHEAD_SECONDS) + 3 + 2 * (len(TOKENS) + 3)


class _Fresh:
    """What one batch adds to one series key."""

    __slots__ = ("cell", "exemplars", "sent", "shape", "sums")

    def __init__(self, shape: Shape) -> None:
        self.cell = [0] * SUMS
        self.sums = [0] * len(SUMMED)
        self.shape = shape
        self.sent: list[Record] = []
        """Those that went upstream: what the shape is to observe."""
        self.exemplars: dict[int, Record] = {}

    def add(self, group: Group) -> None:
        record, cell = group.record, group.cell
        self.sums = list(map(operator.add, self.sums, _summed(cell)))
        slot = _OUTCOME[record.outcome]
        if record.attempt == 1:  # requests are counted, as everywhere; a second attempt is the same request
            self.cell[slot] += len(group.records)
            self.exemplars[slot] = group.records[-1]
        if record.outcome is not Outcome.REFUSED:
            self.sent += group.records
        self.cell[INPUT + _source(record.input_source)] += sum(_inputs(cell))
        self.cell[OUTPUT + _source(record.output_source)] += cell[totals.LLM_OUTPUT]


def _source(source: Source) -> int:
    if source is Source.REPORTED:
        return 0
    return 1 if source is Source.COUNTED else 2


class Metrics:
    """The sink `prometheus`. Used from one event loop; nothing here waits except for history's first answer."""

    name = "prometheus"
    durable = False

    def __init__(
        self,
        history_cursors: Callable[[Iterable[str]], Awaitable[dict[str, int]]],
        *,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        max_series: int = MAX_SERIES,
    ) -> None:
        """`history_cursors` is asked once for each journal: what it had passed before we began is not counted again.

        Ask `cursors` for the journals on disk before delivery to history begins: then no record falls between.
        """
        self.series: dict[SeriesKey, Cell] = {}
        self.request_exemplars: dict[tuple[SeriesKey, int], Exemplar] = {}
        self.shapes: dict[ShapeKey, Shape] = {}
        self.overflow = {"workspace": 0, "model": 0, "series": 0}
        """How many records, batch by batch and key by key, went to `other`, by what was full."""
        self.started_us = now_us()
        self._history_cursors = history_cursors
        self._max_series = max_series - _OTHER_SERIES
        self._used = 0
        self._at: dict[str, int] | None = None
        self._late: dict[str, int] = {}
        self._workspaces: dict[str, str] = {}
        self._models: dict[str, str] = {}

    async def cursors(self, journal_ids: Iterable[str]) -> dict[str, int]:
        """Where this process is in each journal: at first where history is, 0 in journals that appear later."""
        ids = list(journal_ids)
        unknown = [journal_id for journal_id in ids if self._at is None or journal_id not in self._at]
        found = await self._history_cursors(unknown) if unknown or self._at is None else {}
        if self._at is None:
            self._at = dict(found)
        for journal_id, seq in found.items():
            if journal_id not in self._at:
                self._at[journal_id] = 0
                self._late[journal_id] = seq
        return {journal_id: self._at[journal_id] for journal_id in ids}

    async def deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Count each batch whose `after` is the journal's cursor; returns the cursors of these journals."""
        at = await self.cursors(batch.journal_id for batch in batches)
        assert self._at is not None  # noqa: S101 - cursors has set it
        for batch in batches:
            if at[batch.journal_id] == batch.after:
                self._count(batch)
                at[batch.journal_id] = self._at[batch.journal_id] = batch.upto
        return at

    async def close(self) -> None:
        """Nothing to release."""

    def _count(self, batch: Batch) -> None:
        # A journal that appears later is a new one, or an adopted one: of that, what history had is old news.
        had, since_us = self._late.get(batch.journal_id, 0), self.started_us
        groups = batch.groups
        if had:
            groups = grouped(
                record for record in batch.records if record.ended_at >= since_us or seq_of(record.event_id) > had
            )
        fresh: dict[tuple[str, str, str, str], _Fresh] = {}
        keys: list[SeriesKey] = []
        for group in groups:
            record = group.record
            if record.kind != "usage":
                continue
            where = (record.workspace, record.provider, record.model, record.operation._value_)
            of = fresh.get(where)
            if of is None:
                key = self._key(record.workspace, record.provider, record.model, record.operation)
                keys.append(key)
                of = fresh[where] = _Fresh(self._shape(key))
            of.add(group)
        for key, of in zip(keys, fresh.values(), strict=True):
            of.shape.observe(of.sent)
            self._merge(key, of)

    def _key(self, workspace: str, provider: str, model: str, operation: Operation) -> SeriesKey:
        return (
            self._label("workspace", self._workspaces, workspace, MAX_WORKSPACES),
            provider,
            self._label("model", self._models, model, MAX_MODELS),
            operation,
        )

    def _label(self, name: str, known: dict[str, str], value: str, most: int) -> str:
        """The label for a value: itself, made fit for UTF-8 and bounded, while there is room; else `other`."""
        label = known.get(value)
        if label is None:
            if len(known) >= most:
                self.overflow[name] += 1
                return OTHER
            label = known[value] = value[:MAX_LABEL_CHARS].encode("utf-8", "replace").decode()
        return label

    def _shape(self, key: SeriesKey) -> Shape:
        where = key[1:]
        shape = self.shapes.get(where)
        if shape is None:
            if where[1] != OTHER and not self._room(SHAPE_SERIES):
                return self._shape((OTHER, key[1], OTHER, key[3]))
            shape = self.shapes[where] = Shape()
        return shape

    def _room(self, series: int) -> bool:
        if self._used + series > self._max_series:
            self.overflow["series"] += 1
            return False
        self._used += series
        return True

    def _merge(self, key: SeriesKey, fresh: _Fresh) -> None:
        """Add to the series of `key`; to those of `other` where a new series would be one too many."""
        rest = (OTHER, key[1], OTHER, key[3])
        for slot, amount in enumerate(fresh.cell + fresh.sums):
            if not amount:
                continue
            cell = self.series.get(key)
            where = key
            if (cell is None or not cell[slot]) and key != rest and not self._room(1):
                where = rest
            cell = self.series.get(where)
            if cell is None:
                cell = self.series[where] = [0] * CELL_SLOTS
            cell[slot] += amount
            record = fresh.exemplars.get(slot)
            if record is not None:
                self.request_exemplars[where, slot] = (record.request_id, 1.0, record.ended_at)
