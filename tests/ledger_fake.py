"""History as the counters see it, in memory: a `LedgerSnapshot` that folds what it was given; and records to give."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from taximeter.budgets.tally import Tally, TallySum, charged, used
from taximeter.core.record import Operation, Outcome, Record, Source, seq_of
from taximeter.core.totals import FIELDS, Totals, add, empty
from taximeter.sinks.batch import Batch
from taximeter.sinks.ledger import Cell, Ledger, Standing, TrackCell

NOON_US = 3_373_272_000_000_000
"""2076-11-22T12:00:00Z: long after any day the tests run on, because a real Valkey deletes at once what expired."""


def named(cell: Sequence[int]) -> Totals:
    """A cell as named totals."""
    return Totals(**dict(zip(FIELDS, cell, strict=True)))


class FakeHistory:
    """Applies batches like a sink, at once and for ever."""

    def __init__(self) -> None:
        self.records: dict[str, dict[int, Record]] = {}
        self.cursors: dict[str, int] = {}

    def take(self, *batches: Batch) -> None:
        for batch in batches:
            self.cursors[batch.journal_id] = max(batch.upto, self.cursors.get(batch.journal_id, 0))
            self.records.setdefault(batch.journal_id, {}).update({seq_of(r.event_id): r for r in batch.records})

    def _of(self, workspace: str) -> list[tuple[str, int, Record]]:
        return [
            (journal_id, seq, record)
            for journal_id, records in self.records.items()
            for seq, record in records.items()
            if record.workspace == workspace
        ]

    async def workspaces(self) -> list[str]:
        return sorted({r.workspace for records in self.records.values() for r in records.values()})

    async def ledger(
        self,
        workspace: str,
        *,
        days_from_us: int,
        hours_from_us: int,
        tracks_from_us: int,
        tallies: Sequence[Tally] = (),
        now_us: int = 0,
    ) -> Ledger:
        records = [record for _, _, record in self._of(workspace)]
        tracks: dict[str, TrackCell] = {}
        for record in records:
            if record.track is not None and record.ended_at >= tracks_from_us:
                track = tracks.setdefault(record.track, TrackCell(cell=empty(), last_us=0))
                add(track.cell, record)
                track.last_us = max(track.last_us, record.ended_at)
        return Ledger(
            cursors=dict(self.cursors),
            total=fold(records),
            months=_by(records, lambda r: _at(r, "%Y-%m")),
            days=_by([r for r in records if r.ended_at >= days_from_us], lambda r: _at(r, "%Y-%m-%d")),
            hours=_by([r for r in records if r.ended_at >= hours_from_us], lambda r: _at(r, "%Y-%m-%dT%H")),
            models=_by(records, lambda r: (r.provider, r.model)),
            tasks=_by([r for r in records if r.task is not None], lambda r: r.task),
            tracks=tracks,
            tallies=list(tallies),
            sums=[each for tally in tallies for each in _tallied(records, tally, now_us // 10**6)],
        )

    async def tallied(self, workspace: str, tallies: Sequence[Tally], now_us: int) -> list[TallySum]:
        records = [record for _, _, record in self._of(workspace)]
        return [each for tally in tallies for each in _tallied(records, tally, now_us // 10**6)]

    async def standing(self, workspace: str, cursors: Mapping[str, int]) -> Standing:
        mine = self._of(workspace)
        within = [record for journal_id, seq, record in mine if seq <= cursors.get(journal_id, 0)]
        return Standing(
            total=fold(within),
            pending=len(mine) - len(within),
            behind={j: self.cursors.get(j, 0) for j, seq in cursors.items() if self.cursors.get(j, 0) < seq},
        )


def _tallied(records: Iterable[Record], tally: Tally, now_s: int) -> list[TallySum]:
    found: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for record in records:
        start_s, values = tally.when.start_s(record.ended_at // 10**6), tally.values(record)
        if values is not None and start_s in tally.when.kept_s(now_s):
            amounts = found.setdefault((start_s, values), [0, 0])
            amounts[0] += used(tally.unit)(record)
            amounts[1] += charged(tally.unit)(record)
    return [
        TallySum(tally, start_s, values, amounts[0], amounts[1], now_s) for (start_s, values), amounts in found.items()
    ]


def _at(record: Record, form: str) -> str:
    return datetime.fromtimestamp(record.ended_at / 1e6, UTC).strftime(form)


def _by(records: Iterable[Record], key: object) -> dict:  # type: ignore[type-arg]
    cells: dict[object, Cell] = {}
    for record in records:
        add(cells.setdefault(key(record), empty()), record)  # type: ignore[operator]
    return cells


def fold(records: Iterable[Record]) -> Cell:
    """What these records add up to."""
    cell = empty()
    for record in records:
        add(cell, record)
    return cell


def folded(records: Iterable[Record]) -> Totals:
    return named(fold(records))


def record(seq: int, *, journal_id: str = "j1", workspace: str = "acme", **fields: object) -> Record:
    """A metered chat of 100 in, 20 out, at noon; any field another."""
    plain: dict[str, object] = {
        "event_id": f"{journal_id}:{seq}",
        "request_id": f"req-{journal_id}-{seq}",
        "started_at": NOON_US - 900_000,
        "ended_at": NOON_US,
        "duration_ms": 900.0,
        "overhead_us": 120,
        "workspace": workspace,
        "upstream": "openai",
        "provider": "openai",
        "api": "chat",
        "operation": Operation.LLM,
        "request_model": "gpt-4o-mini",
        "response_model": "gpt-4o-mini-2024-07-18",
        "status": 200,
        "outcome": Outcome.OK,
        "input_source": Source.REPORTED,
        "output_source": Source.REPORTED,
        "input_tokens": 100,
        "cached_input_tokens": 64,
        "output_tokens": 20,
        "cost_nusd": 27_000,
    }
    return Record(**(plain | fields))  # type: ignore[arg-type]


def batch(records: Sequence[Record], *, after: int | None = None, ended: bool = False) -> Batch:
    """The records of one journal as the batch delivery would cut."""
    journal_id, _, first = records[0].event_id.rpartition(":")
    return Batch(
        journal_id=journal_id,
        after=int(first) - 1 if after is None else after,
        upto=seq_of(records[-1].event_id),
        records=list(records),
        ended=ended,
    )


def traffic(
    seed: int,
    count: int,
    *,
    journal_id: str = "j1",
    workspaces: Sequence[str] = ("acme", "globex", "initech"),
    hours: int = 3,
    first: int = 1,
) -> list[Record]:
    """Varied records of one journal: every operation, outcome and source, corrections, over some hours."""
    rng = random.Random(seed)
    return [_varied(rng, seq, journal_id, rng.choice(workspaces), hours) for seq in range(first, first + count)]


def _varied(rng: random.Random, seq: int, journal_id: str, workspace: str, hours: int) -> Record:
    def maybe(high: int) -> int | None:
        return rng.randrange(high) if rng.random() < 0.9 else None

    tokens_in, tokens_out = maybe(5_000), maybe(900)
    source = [Source.REPORTED] * 8 + [Source.COUNTED, Source.ESTIMATED]
    operation = rng.choice(list(Operation))
    return record(
        seq,
        journal_id=journal_id,
        workspace=workspace,
        kind="correction" if rng.random() < 0.05 else "usage",
        attempt=1 if rng.random() < 0.95 else 2,
        ended_at=NOON_US + rng.randrange(hours * 3_600_000_000),
        track=rng.choice([None, "upload-1", "upload-2", f"query-{seq}"]),
        task=rng.choice([None, "extract", "query", "summary"]),
        provider=rng.choice(["openai", "cohere", "ollama"]),
        response_model=rng.choice([None, "m-1", "m-2", "org/m 3 {x}"]),
        operation=operation,
        outcome=rng.choice([Outcome.OK] * 6 + list(Outcome)),
        input_source=Source.NONE if tokens_in is None else rng.choice(source),
        output_source=Source.NONE if tokens_out is None else rng.choice(source),
        input_tokens=tokens_in,
        cached_input_tokens=tokens_in // 2 if tokens_in and rng.random() < 0.3 else None,
        cache_write_input_tokens=tokens_in // 4 if tokens_in and rng.random() < 0.1 else None,
        output_tokens=tokens_out,
        reasoning_output_tokens=tokens_out // 3 if tokens_out and rng.random() < 0.2 else None,
        search_units=1 if operation is Operation.RERANK and rng.random() < 0.5 else None,
        ttft_ms=rng.random() * 3_000 if rng.random() < 0.5 else None,
        duration_ms=rng.random() * 20_000,
        cost_nusd=rng.randrange(10_000_000) if rng.random() < 0.8 else None,
    )
