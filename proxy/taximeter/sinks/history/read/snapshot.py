"""What the Redis counters are rebuilt from and audited against: sums and journal cursors from one transaction.

Implements sinks.ledger.LedgerSnapshot's methods, synchronously.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, select

from taximeter.budgets.tally import Tally, TallySum
from taximeter.core import totals
from taximeter.core.bounds import FOREVER_US
from taximeter.core.record import Record
from taximeter.sinks.cells import empty, merge, split
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.exact import of_any_size
from taximeter.sinks.history.marks import events_since_us
from taximeter.sinks.history.read import charges
from taximeter.sinks.history.read import tallies as budgeted
from taximeter.sinks.history.read.listing import between
from taximeter.sinks.history.rows import event_id, to_record
from taximeter.sinks.history.schema import DAY, DAY_S, HOUR, HOUR_S, MONTH, US, events, journals, series, total
from taximeter.sinks.history.sums import record_sums
from taximeter.sinks.ledger import Cell, Ledger, Standing, TrackCell
from taximeter.sinks.query import Filters

TRACKS = 500
"""Tracks summed in one query: SQLite takes no more than so many parameters."""


class Snapshots:
    """What is known of one workspace, each from one snapshot of the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def workspaces(self) -> list[str]:
        """Every workspace with at least one roll-up, sorted."""
        with self._database.reading() as connection:
            return sorted(connection.execute(select(series.c.workspace).distinct()).scalars())

    def beyond(self, journal_id: str, seq: int, since_us: int) -> list[Record] | None:
        """See sinks.sink.JournalKeeper."""
        with self._database.reading() as connection:
            if since_us < events_since_us(connection):
                return None
            number, upto = _journals(connection).get(journal_id, (0, 0))
            rows = between(connection, event_id(number, seq + 1), event_id(number, upto)) if upto > seq else []
            return [to_record(row) for row in rows]

    @of_any_size
    def ledger(
        self,
        workspace: str,
        *,
        days_from_us: int,
        hours_from_us: int,
        tracks_from_us: int,
        tallies: Sequence[Tally] = (),
        now_us: int = 0,
    ) -> Ledger:
        """The workspace's sums by period, model, task and track, those for budgets, and the cursors they stand for."""
        days_from_s = days_from_us // US // DAY_S * DAY_S
        with self._database.reading() as connection:
            months = _by_period(connection, workspace, MONTH, 0, "%Y-%m")
            models = _by_names(connection, workspace, series.c.provider, series.c.model)
            tasks = _by_names(connection, workspace, series.c.task)
            return Ledger(
                cursors={name: seq for name, (_, seq) in _journals(connection).items()},
                total=_sum(months.values()),
                months=months,
                days=_by_period(connection, workspace, DAY, days_from_s, "%Y-%m-%d"),
                hours=_by_period(connection, workspace, HOUR, hours_from_us // US // HOUR_S * HOUR_S, "%Y-%m-%dT%H"),
                models={(provider, model): cell for (provider, model), cell in models.items()},
                tasks={task: cell for (task,), cell in tasks.items() if task},
                tracks=_tracks(connection, workspace, tracks_from_us),
                tallies=list(tallies),
                sums=list(budgeted.sums(connection, workspace, tallies, now_us)),
            )

    @of_any_size
    def tallied(self, workspace: str, tallies: Sequence[Tally], now_us: int) -> list[TallySum]:
        """What these tallies of a workspace come to, in the buckets that may still be asked for."""
        with self._database.reading() as connection:
            return list(budgeted.sums(connection, workspace, tallies, now_us))

    def charges(self, workspace: str | None, request_id: str | None, limit: int) -> list[charges.Charge]:
        """Calls whose use is charged to budgets though it is not known, the latest first."""
        with self._database.reading() as connection:
            return charges.listed(connection, workspace, request_id, limit)

    @of_any_size
    def standing(self, workspace: str, cursors: Mapping[str, int]) -> Standing:
        """The workspace's total at these cursors: all it has, less its records beyond them."""
        beyond = empty()
        with self._database.reading() as connection:
            known = _journals(connection)
            for name, (number, seq) in known.items():
                after = cursors.get(name, 0)
                if after < seq:
                    ids = event_id(number, after + 1), event_id(number, seq)
                    for part in record_sums(connection, Filters(workspace=workspace), 0, FOREVER_US, (), ids=ids):
                        merge(beyond, part.cell)
            total = _sum(_by_period(connection, workspace, MONTH, 0, "%Y-%m").values())
        details = split(beyond)[1]
        return Standing(
            total=[have - more for have, more in zip(total, beyond, strict=False)],
            pending=details.attempts + details.corrections,
            behind={
                name: known.get(name, (0, 0))[1] for name, at in cursors.items() if at > known.get(name, (0, 0))[1]
            },
        )


def _journals(connection: Connection) -> dict[str, tuple[int, int]]:
    """journal_id -> (journal_no, seq)."""
    query = select(journals.c.journal_id, journals.c.journal_no, journals.c.seq)
    return {row.journal_id: (row.journal_no, row.seq) for row in connection.execute(query)}


def _sums(table: Table) -> Iterator[ColumnElement[Any]]:
    return (total(table.c[field]) for field in totals.FIELDS)


def _by_period(connection: Connection, workspace: str, level: Table, first_s: int, name: str) -> dict[str, Cell]:
    """Name of the period (strftime) -> sums, from the period that starts at `first_s` on."""
    query = (
        select(level.c.start_s, *_sums(level))
        .where(level.c.start_s >= first_s, level.c.series_no.in_(_of(workspace)))
        .group_by(level.c.start_s)
    )
    return {
        datetime.fromtimestamp(start_s, UTC).strftime(name): list(cell) for start_s, *cell in connection.execute(query)
    }


def _by_names(connection: Connection, workspace: str, *names: ColumnElement[str]) -> dict[tuple[str, ...], Cell]:
    """Values of columns of `usage_series` -> sums over all time."""
    query = (
        select(*names, *_sums(MONTH))
        .join(series, series.c.series_no == MONTH.c.series_no)
        .where(series.c.workspace == workspace)
        .group_by(*names)
    )
    n = len(names)
    return {tuple(map(str, row[:n])): list(map(int, row[n:])) for row in connection.execute(query)}


def _tracks(connection: Connection, workspace: str, since_us: int) -> dict[str, TrackCell]:
    """Whole sums of the tracks with a record since then."""
    live = (
        select(events.c.track)
        .where(events.c.ended_at >= since_us, events.c.track.is_not(None), events.c.series_no.in_(_of(workspace)))
        .distinct()
    )
    names = iter(connection.execute(live).scalars().all())
    found: dict[str, TrackCell] = {}
    while some := list(islice(names, TRACKS)):
        filters = Filters(workspace=workspace, track=some)
        for part in record_sums(connection, filters, 0, FOREVER_US, ("track",)):
            track = found.setdefault(str(part.key[0]), TrackCell(cell=totals.empty(), last_us=0))
            merge(track.cell, part.cell[: len(totals.FIELDS)])
            track.last_us = max(track.last_us, part.last_us)
    return found


def _of(workspace: str) -> Select[tuple[str]]:
    return select(series.c.series_no).where(series.c.workspace == workspace)


def _sum(cells: Iterable[Cell]) -> Cell:
    total = totals.empty()
    for cell in cells:
        merge(total, cell)
    return total
