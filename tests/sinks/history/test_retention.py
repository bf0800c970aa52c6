from __future__ import annotations

import pytest

from ledger import T0, US, batch, call
from taximeter.sinks.history.database import Database, HistoryUnavailable
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.history.schema import QUARTER_S
from taximeter.sinks.history.sink import History
from taximeter.sinks.history.write import retention
from taximeter.sinks.history.write.retention import Partitions
from taximeter.sinks.history.write.writer import Writer
from taximeter.sinks.query import Filters
from taximeter.sinks.unfit import is_unfit

DAY_US = 86_400 * US
QUARTER_US = QUARTER_S * US
MARK = T0 // QUARTER_US * QUARTER_US


async def test_single_records_go_and_totals_stay(url, monkeypatch, closing):
    monkeypatch.setattr(retention, "BITE", 3)
    history = closing(History(url))
    old = [call(request_id=f"old{at}", ended_at=T0 - 70 * DAY_US + at, track="t") for at in range(10)]
    await history.deliver([batch([*old, call(request_id="new", track="t")])])
    before = await history.usage(Filters(), ["model"], "day")
    assert await history.prune(T0 - 35 * DAY_US) > 0
    assert await history.prune(T0 - 35 * DAY_US) == 0
    assert [record.request_id for record in (await history.events(Filters()))[0]] == ["new"]
    assert await history.usage(Filters(), ["model"], "day") == before
    assert (await history.usage(Filters()))[0].totals.requests == 11
    assert await history.record("old3") == []
    assert await history.cursors(["j1"]) == {"j1": 11}
    assert await history.deliver([batch([call(request_id="old3", ended_at=T0 - 70 * DAY_US)])]) == {"j1": 11}


def test_sqlite_deletes_to_the_moment_asked_for_rounded_down_to_15_minutes(sqlite_url):
    with Database(sqlite_url) as database:
        writer, reader = Writer(database), Reader(database)
        records = [call(ended_at=MARK - 1), call(ended_at=MARK), call(ended_at=MARK + QUARTER_US - 1)]
        writer.apply([batch(records)])
        assert writer.prune(MARK + 5) == 1
        assert [record.ended_at for record in reader.events(Filters())[0]] == [MARK + QUARTER_US - 1, MARK]


def test_where_records_are_gone_ranges_are_rounded_to_15_minutes(sqlite_url):
    with Database(sqlite_url) as database:
        writer, reader = Writer(database), Reader(database)
        writer.apply([batch([call(ended_at=MARK + 60 * US * minute) for minute in range(60)])])
        exact = Filters(from_us=MARK + 5 * 60 * US, to_us=MARK + 50 * 60 * US)
        assert reader.count(exact) == 45
        writer.prune(MARK + 30 * 60 * US)
        assert reader.count(exact) == 15 + 20  # from 0:15 on: 0:05 is rounded up; the end is still exact
        assert reader.count(Filters(from_us=MARK, to_us=MARK + 20 * 60 * US)) == 30
        minutes = reader.usage(Filters(from_us=MARK, to_us=MARK + 60 * 60 * US), [], "minute")
        assert sum(group.totals.requests for group in minutes) == 60


def test_late_records_of_a_month_already_dropped_are_kept(url):
    with Database(url) as database:
        writer, reader = Writer(database), Reader(database)
        writer.apply([batch([call(ended_at=T0 - 70 * DAY_US)])])
        while writer.prune(T0 - 35 * DAY_US):
            pass
        assert writer.apply([batch([call(request_id="late", ended_at=T0 - 70 * DAY_US)], after=1)]) == {"j1": 2}
        assert [record.request_id for record in reader.events(Filters())[0]] == ["late"]


def test_each_month_has_its_partition(postgres_server):
    with Database(postgres_server.database()) as database:
        Writer(database).apply([batch([call(ended_at=T0 - 31 * DAY_US * at) for at in range(4)])])
        with database.reading() as connection:
            assert sorted(retention._names(connection)) == [
                "usage_events_2025_08", "usage_events_2025_09", "usage_events_2025_10", "usage_events_2025_11",
            ]  # fmt: skip
        assert Partitions(database).drop_before(T0 - 31 * DAY_US) == 2
        with database.reading() as connection:
            assert retention._names(connection) == ["usage_events_2025_10", "usage_events_2025_11"]


def test_a_month_that_another_node_dropped_is_no_fault_of_the_record_and_made_again(postgres_server):
    with Database(postgres_server.database()) as database:
        writer = Writer(database)
        writer.apply([batch([call()])])
        Partitions(database).drop_before(T0 + 62 * DAY_US)  # as another node does
        with pytest.raises(HistoryUnavailable) as away:
            writer.apply([batch([call()], after=1)])
        assert not is_unfit(away.value)  # else it would be set aside
        assert writer.apply([batch([call()], after=1)]) == {"j1": 2}
