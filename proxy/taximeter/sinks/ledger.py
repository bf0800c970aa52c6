"""What the Redis counters need from history to be rebuilt and audited: the protocol and its values.

History is the truth Redis is rebuilt from; this module knows neither SQL nor Redis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from taximeter.budgets.tally import Tally, TallySum

Cell = list[int]
"""len(core.totals.FIELDS) integers in the order of core.totals.FIELDS."""


class TrackCell(msgspec.Struct, kw_only=True):
    """One track's sums."""

    cell: Cell
    last_us: int
    """`ended_at` of its last record (µs since epoch, UTC)."""


class Ledger(msgspec.Struct, kw_only=True):
    """One workspace as history knows it, all of it read in ONE transaction. Periods are by `ended_at`, UTC."""

    cursors: dict[str, int]
    """journal_id -> last `seq` history has applied, of every journal it knows (whether this workspace has records in
    it or not). Everything up to these is in the cells, nothing beyond."""
    total: Cell
    months: dict[str, Cell] = msgspec.field(default_factory=dict)
    """`2026-11` -> sums; every month there is."""
    days: dict[str, Cell] = msgspec.field(default_factory=dict)
    """`2026-11-22` -> sums, from `days_from_us` on."""
    hours: dict[str, Cell] = msgspec.field(default_factory=dict)
    """`2026-11-22T09` -> sums, from `hours_from_us` on."""
    models: dict[tuple[str, str], Cell] = msgspec.field(default_factory=dict)
    """(provider, Record.model) -> sums over all time."""
    tasks: dict[str, Cell] = msgspec.field(default_factory=dict)
    """task -> sums over all time; records without a task are in none."""
    tracks: dict[str, TrackCell] = msgspec.field(default_factory=dict)
    """track -> sums, of tracks with a record since `tracks_from_us`."""

    tallies: list[Tally] = msgspec.field(default_factory=list)
    """What was asked to be added up for budgets."""
    sums: list[TallySum] = msgspec.field(default_factory=list)
    """What that comes to, in the buckets that may still be asked for (periods.Period.kept_s)."""


class Standing(msgspec.Struct, kw_only=True):
    """What a workspace's total must be for someone who has applied each journal just up to given cursors."""

    total: Cell
    """Sums over this workspace's records in history with `seq` <= the given cursor of their journal (0: none given)."""
    pending: int
    """How many records of this workspace history has beyond those cursors."""
    behind: dict[str, int] = msgspec.field(default_factory=dict)
    """journal_id -> history's own cursor, of the journals in which history has not reached the given one."""


class LedgerSnapshot(Protocol):
    """History's side of a rebuild. Any exception means: try later."""

    async def workspaces(self) -> list[str]:
        """Every workspace with at least one record or roll-up."""

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
        """The workspace's sums and the journal cursors they stand for, from one transaction."""

    async def tallied(self, workspace: str, tallies: Sequence[Tally], now_us: int) -> list[TallySum]:
        """What these tallies come to, in the buckets that may still be asked for."""

    async def standing(self, workspace: str, cursors: Mapping[str, int]) -> Standing:
        """The workspace's total at these cursors, from one transaction.

        Cheap as `sum(roll-ups) - sum(records with seq beyond the cursor)`: only journals whose last seq is beyond their
        cursor have to be looked into, and those are few and short.
        """
