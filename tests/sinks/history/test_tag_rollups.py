"""The roll-ups by tag: every record once, whoever fills them and whatever happens meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from sqlalchemy import Connection, func, select, text

from ledger import T0, US, batch, call, random_call
from taximeter.core.errors import ConfigError
from taximeter.sinks.history import tag_rollups
from taximeter.sinks.history.cells import FIELDS
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.query import TAGS, Filters
from taximeter.sinks.history.read import Reader
from taximeter.sinks.history.schema import TAG_LEVELS, events, meta, tags_due
from taximeter.sinks.history.sink import History
from taximeter.sinks.history.tag_rollups import due, roll_up
from taximeter.sinks.history.write import Writer

DAY_US = 86_400 * US
SPAN_US = 3 * DAY_US


def by_tag(reader: Reader) -> list[object]:
    """The answers the roll-ups by tag give."""
    ragged = Filters(from_us=T0 + 7, to_us=T0 + SPAN_US - 12_345_678_901)
    return [
        answer
        for tag in TAGS
        for answer in (
            reader.usage(Filters(), [tag]),
            reader.usage(ragged, ["workspace", tag]),
            reader.usage(Filters(workspace="acme"), [tag], "day", "Europe/Berlin"),
        )
    ]


def rolled(connection: Connection) -> list[int]:
    """How many records are in each level."""
    attempts = [func.coalesce(func.sum(level.c.attempts + level.c.corrections), 0) for level in TAG_LEVELS]
    return [int(connection.execute(select(each)).scalar_one()) for each in attempts]


@pytest.fixture
def bites(monkeypatch):
    monkeypatch.setattr(tag_rollups, "BITE", 30)


def test_bite_by_bite_every_record_is_rolled_up_once_and_no_answer_changes(url, bites):
    rng = Random(1)
    sent = [batch([random_call(rng, SPAN_US) for _ in range(100)], journal) for journal in ("j1", "j2")]
    tagged = sum(getattr(record, tag) is not None for one in sent for record in one.records for tag in TAGS)
    with Database(url) as database:
        reader = Reader(database)
        Writer(database).apply(sent)
        before = by_tag(reader)
        taken = []
        while took := roll_up(database):
            taken.append(took)
            assert by_tag(reader) == before
        assert taken == [30, 30, 30, 10] * 2
        with database.reading() as connection:
            assert rolled(connection) == [tagged] * 3
            assert due(connection) == []
            # Single records are no longer looked at but at the ends of a range.
            assert connection.execute(select(func.count()).select_from(tags_due)).scalar() == 0


def test_a_bite_that_fails_midway_leaves_everything_due(url, bites, monkeypatch):
    rng = Random(2)
    add = tag_rollups.add_to_levels

    def fail(*given):
        add(*given)
        raise OSError("no space left on device")

    with Database(url) as database:
        Writer(database).apply([batch([random_call(rng, SPAN_US) for _ in range(40)])])
        before = by_tag(Reader(database))
        with monkeypatch.context() as patched, pytest.raises(Exception, match="no space left"):
            patched.setattr(tag_rollups, "add_to_levels", fail)
            roll_up(database)
        with database.reading() as connection:
            assert rolled(connection) == [0] * 3
        assert by_tag(Reader(database)) == before
        assert roll_up(database) == 30
        assert by_tag(Reader(database)) == before


def test_records_without_a_tag_leave_nothing_to_do(url):
    with Database(url) as database:
        writer = Writer(database)
        writer.apply([batch([call()])])
        assert roll_up(database) == 0
        writer.apply([batch([call(track="t")], after=1)])
        assert roll_up(database) == 1
        writer.apply([batch([call()], after=2)])
        assert roll_up(database) == 0
        found = {group.key["track"]: group.totals.requests for group in Reader(database).usage(Filters(), ["track"])}
        assert found == {None: 2, "t": 1}


def test_late_records_of_long_ago_are_found_too(url):
    with Database(url) as database:
        writer, reader = Writer(database), Reader(database)
        writer.apply([batch([call(track="t")])])
        roll_up(database)
        writer.apply([batch([call(track="t", ended_at=T0 - 70 * DAY_US)], after=1)])
        for _ in range(2):
            (group,) = reader.usage(Filters(), ["track"])
            assert group.totals.requests == 2
            months = reader.usage(Filters(), ["track"], "month")
            assert [group.totals.requests for group in months] == [1, 1]
            roll_up(database)


def test_nodes_that_deliver_and_roll_up_at_once_lose_and_double_nothing(postgres_server, bites):
    url = postgres_server.database()
    starting = threading.Barrier(4)

    def node(number: int) -> None:
        rng = Random(number)
        with Database(url) as database:
            writer = Writer(database)
            starting.wait()
            for after in range(0, 200, 20):
                writer.apply([batch([random_call(rng) for _ in range(20)], f"node{number}", after)])
                roll_up(database)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(node, range(4)))
    tagged = 0
    for number in range(4):
        rng = Random(number)
        tagged += sum(
            getattr(record, tag) is not None for record in (random_call(rng) for _ in range(200)) for tag in TAGS
        )
    with Database(url) as database:
        before = by_tag(Reader(database))
        while roll_up(database):
            pass
        assert by_tag(Reader(database)) == before
        with database.reading() as connection:
            assert rolled(connection) == [tagged] * 3


async def test_tags_of_records_that_were_deleted_are_known_for_ever(url):
    history = History(url)
    hour_us = 3_600 * US
    old = T0 // hour_us * hour_us - 70 * DAY_US
    calls = [call(request_id=f"old{at}", ended_at=old + at * hour_us, document=f"d{at % 3}") for at in range(10)]
    await history.deliver([batch([*calls, call(document="d0")])])
    before = await history.usage(Filters(), ["document"], "day")
    assert await history.prune(T0 - 35 * DAY_US) > 0
    assert await history.usage(Filters(), ["document"], "day") == before
    ragged = await history.usage(Filters(from_us=old + hour_us - 5, to_us=old + 2 * hour_us + 5), ["document"])
    assert {group.key["document"]: group.totals.requests for group in ragged} == {"d1": 1, "d2": 1}  # whole hours
    minutes = Filters(from_us=old, to_us=old + 2 * hour_us)
    found = await history.usage(minutes, ["document"], "minute")
    assert [(group.start_us, group.key["document"]) for group in found] == [(old, "d0"), (old + hour_us, "d1")]
    await history.close()


async def test_records_that_come_while_others_are_deleted_are_rolled_up_first(sqlite_url):
    with Database(sqlite_url) as database:
        writer = Writer(database)
        writer.apply([batch([call(ended_at=T0 - 70 * DAY_US, track="t")])])
        assert writer.prune(T0 - 35 * DAY_US) == 1
        (group,) = Reader(database).usage(Filters(), ["track"])
        assert (group.key, group.totals.requests) == ({"track": "t"}, 1)


def as_version_1(database: Database) -> None:
    """The database as an older Taximeter made it."""
    with database.writing() as connection:
        for table in (*TAG_LEVELS, tags_due):
            connection.execute(text(f"DROP TABLE {table.name}"))
        connection.execute(meta.update().where(meta.c.name == "version").values(value="1"))


def test_a_history_of_version_1_is_brought_up_to_date(url, bites):
    with Database(url) as database:
        rng = Random(3)
        Writer(database).apply([batch([random_call(rng, SPAN_US) for _ in range(50)])])
        before = by_tag(Reader(database))
        as_version_1(database)
    with pytest.raises(ConfigError, match="`taximeter serve` brings it up to date"):
        Reader.open(url)
    with Database(url) as database:
        Writer(database).prepare()
        assert by_tag(Reader(database)) == before
        assert [roll_up(database) for _ in range(3)] == [30, 20, 0]
        assert by_tag(Reader(database)) == before
    with Reader.open(url) as reader:
        assert by_tag(reader) == before


@pytest.mark.parametrize("tz", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
@pytest.mark.parametrize("window", [None, "day"])
def test_what_is_rolled_up_is_not_read_again(sqlite_url, bites, window, tz):
    """Whole hours come from the roll-ups alone: with their records taken away the answer is the same."""
    hour_us = 3_600 * US
    start = T0 // DAY_US * DAY_US
    hours = [start + at * hour_us for at in range(90) if at % 24 != 18]  # midnight in Kolkata is at 18:30 UTC
    with Database(sqlite_url) as database:
        Writer(database).apply([batch([call(track="t", ended_at=at) for at in hours])])
        while roll_up(database):
            pass
        asked = Filters(from_us=start + hour_us, to_us=start + 89 * hour_us)
        before = Reader(database).usage(asked, ["track"], window, tz)
        assert sum(group.totals.requests for group in before) == len(hours) - 2
        with database.writing() as connection:
            connection.execute(events.delete())
        assert Reader(database).usage(asked, ["track"], window, tz) == before


def test_a_cell_has_every_sum():
    for level in TAG_LEVELS:
        assert [column.name for column in level.columns if not column.primary_key] == list(FIELDS)
