from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import T0, US, batch, call, calls
from taximeter.core import totals
from taximeter.core.record import Record
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.read.snapshot import Snapshots
from taximeter.sinks.history.schema import LEVELS, events, journals, series
from taximeter.sinks.history.sink import History
from taximeter.sinks.history.write.writer import Writer
from taximeter.sinks.ledger import Ledger, LedgerSnapshot, Standing, TrackCell

MANY = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
FROM_US = T0 + 86_400 * US


@pytest.fixture
def database(url):
    with Database(url) as opened:
        yield opened


def filled(database: Database, journal: dict[str, list[Record]]) -> Snapshots:
    with database.writing() as connection:
        for table in (journals, series, events, *LEVELS):
            connection.execute(table.delete())
    Writer(database).apply([batch(records, name) for name, records in journal.items()])
    return Snapshots(database)


def added(records: list[Record]) -> list[int]:
    cell = totals.empty()
    for record in records:
        totals.add(cell, record)
    return cell


def by(records: list[Record], key) -> dict[Any, list[int]]:
    cells: defaultdict[Any, list[int]] = defaultdict(totals.empty)
    for record in records:
        totals.add(cells[key(record)], record)
    return dict(cells)


def period(name: str):
    return lambda record: datetime.fromtimestamp(record.ended_at // US, UTC).strftime(name)


@MANY
@given(one=st.lists(calls(), max_size=15), other=st.lists(calls(), max_size=15))
def test_a_workspace_is_the_sums_of_its_records_and_every_journals_cursor(database, one, other):
    snapshots = filled(database, {"j1": one, "j2": other})
    own = [record for record in one + other if record.workspace == "acme"]
    live = {record.track for record in own if record.track and record.ended_at >= FROM_US}
    start_day = period("%Y-%m-%d")(call(ended_at=FROM_US))
    start_hour = period("%Y-%m-%dT%H")(call(ended_at=FROM_US))
    assert snapshots.ledger("acme", days_from_us=FROM_US, hours_from_us=FROM_US, tracks_from_us=FROM_US) == Ledger(
        cursors={"j1": len(one), "j2": len(other)},
        total=added(own),
        months=by(own, period("%Y-%m")),
        days={day: cell for day, cell in by(own, period("%Y-%m-%d")).items() if day >= start_day},
        hours={hour: cell for hour, cell in by(own, period("%Y-%m-%dT%H")).items() if hour >= start_hour},
        models=by(own, lambda record: (record.provider, record.model)),
        tasks=by([record for record in own if record.task], lambda record: record.task),
        tracks={
            track: TrackCell(
                cell=added([record for record in own if record.track == track]),
                last_us=max(record.ended_at for record in own if record.track == track),
            )
            for track in live
        },
    )


@MANY
@given(
    one=st.lists(calls(), max_size=15),
    other=st.lists(calls(), max_size=15),
    at=st.dictionaries(st.sampled_from(["j1", "j2", "j3"]), st.integers(0, 18)),
)
def test_a_standing_is_the_total_at_given_cursors(database, one, other, at):
    snapshots = filled(database, {"j1": one, "j2": other})
    mine = {"j1": one, "j2": other, "j3": []}
    reached = [r for name, some in mine.items() for r in some[: at.get(name, 0)] if r.workspace == "acme"]
    beyond = [r for name, some in mine.items() for r in some[at.get(name, 0) :] if r.workspace == "acme"]
    assert snapshots.standing("acme", at) == Standing(
        total=added(reached),
        pending=len(beyond),
        behind={name: len(mine[name]) for name, seq in at.items() if seq > len(mine[name])},
    )


def test_more_tracks_than_a_statement_takes_parameters(database):
    records = [call(track=f"t{at}") for at in range(1_100)]
    found = filled(database, {"j1": records}).ledger("acme", days_from_us=0, hours_from_us=0, tracks_from_us=0).tracks
    assert len(found) == 1_100
    assert found["t7"].cell == added([call()])


async def test_history_is_what_counters_are_rebuilt_from(url, closing):
    history = closing(History(url))
    source: LedgerSnapshot = history
    await history.deliver([batch([call(), call(workspace="beta")])])
    assert await source.workspaces() == ["acme", "beta"]
    assert (await source.ledger("acme", days_from_us=0, hours_from_us=0, tracks_from_us=0)).total == added([call()])
    assert (await source.standing("acme", {"j1": 2})).pending == 0
    again = closing(History(url))
    assert await again.identity() == await history.identity() != ""
