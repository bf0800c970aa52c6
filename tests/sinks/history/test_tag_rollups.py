"""The roll-ups by tag: every record once, whoever fills them and whatever happens meanwhile."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random

import pytest
from sqlalchemy import Connection, func, select, text

from ledger import T0, US, batch, call, random_call
from present import present
from taximeter.core.errors import ConfigError
from taximeter.core.record import Record
from taximeter.sinks.cells import FIELDS
from taximeter.sinks.history.database import Database, HistoryUnavailable
from taximeter.sinks.history.marks import due
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.history.schema import TAG_LEVELS, events, journals, meta, tags_done
from taximeter.sinks.history.sink import History
from taximeter.sinks.history.write import tag_rollups
from taximeter.sinks.history.write.levels import add_to_levels
from taximeter.sinks.history.write.tag_rollups import TagRoller
from taximeter.sinks.history.write.writer import Writer
from taximeter.sinks.query import TAGS, Filters

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
            reader.usage(ragged, ["model", tag, "task"]),
            reader.usage(Filters(task="query"), [tag, "operation"], "day"),
        )
    ]


def rolled(connection: Connection) -> list[int]:
    """How many records are in each level."""
    attempts = [func.coalesce(func.sum(level.c.attempts + level.c.corrections), 0) for level in TAG_LEVELS]
    return [int(connection.execute(select(each)).scalar_one()) for each in attempts]


@pytest.fixture
def bites(monkeypatch):
    monkeypatch.setattr(tag_rollups, "FIRST_BITE", 30)
    monkeypatch.setattr(tag_rollups, "MOST", 30)
    monkeypatch.setattr(tag_rollups, "BITE_S", 1_000)


def roll_up(database: Database) -> int:
    """One bite."""
    return TagRoller(database).roll_up()


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


def test_a_bite_that_fails_midway_leaves_everything_due(url, bites, monkeypatch):
    rng = Random(2)
    add = add_to_levels

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


def test_records_without_a_tag_are_all_the_others(url):
    with Database(url) as database:
        writer = Writer(database)
        writer.apply([batch([call()])])
        writer.apply([batch([call(track="t")], after=1)])
        writer.apply([batch([call()], after=2)])
        for _ in range(2):
            found = Reader(database).usage(Filters(), ["track"])
            assert {group.key["track"]: group.totals.requests for group in found} == {None: 2, "t": 1}
            roll_up(database)


def test_what_adds_up_to_nothing_is_not_nothing_everywhere(url):
    with Database(url) as database:
        Writer(database).apply(
            [
                batch(
                    [
                        call(end_user="u", cost_nusd=5),
                        call(kind="correction", end_user="v", cost_nusd=-5),
                        call(end_user="v", cost_nusd=0, audio_output_tokens=3),
                    ]
                )
            ]
        )
        while roll_up(database):
            pass
        found = Reader(database).usage(Filters(), ["end_user"])
        assert {each.key["end_user"]: each.totals.cost_nusd for each in found} == {"u": 5, "v": -5}
        assert {each.key["end_user"]: each.details.audio_output_tokens for each in found} == {"u": 0, "v": 3}


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


def random_calls(seed: int) -> list[Record]:
    rng = Random(seed)
    return [random_call(rng) for _ in range(200)]


def at_once(url: str, *acts: Callable[[Database], None]) -> None:
    """Each act as a node of its own, all beginning together."""
    starting = threading.Barrier(len(acts))

    def node(act: Callable[[Database], None]) -> None:
        with Database(url) as database:
            starting.wait()
            act(database)

    with ThreadPoolExecutor(len(acts)) as pool:
        list(pool.map(node, acts))


def test_nodes_that_deliver_and_roll_up_at_once_lose_and_double_nothing(postgres_server, bites):
    url = postgres_server.database()
    made = {number: random_calls(number) for number in range(4)}

    def deliver(database: Database, number: int) -> None:
        writer = Writer(database)
        for after in range(0, 200, 20):
            writer.apply([batch(made[number][after : after + 20], f"node{number}", after)])
            roll_up(database)

    at_once(url, *(partial(deliver, number=number) for number in made))
    tagged = sum(getattr(one, tag) is not None for calls in made.values() for one in calls for tag in TAGS)
    with Database(url) as database:
        before = by_tag(Reader(database))
        while roll_up(database):
            pass
        assert by_tag(Reader(database)) == before
        with database.reading() as connection:
            assert rolled(connection) == [tagged] * 3


def test_nodes_that_deliver_roll_up_and_forget_at_once_agree_on_what_is_kept(postgres_server, bites):
    url = postgres_server.database()
    over_us = T0 + 30 * DAY_US

    def deliver(database: Database, number: int) -> None:
        rng, writer = Random(number), Writer(database)
        for after in range(0, 200, 20):
            sent = batch([random_call(rng, 60 * DAY_US) for _ in range(20)], f"node{number}", after)
            for _ in range(20):
                try:
                    writer.apply([sent])
                except HistoryUnavailable as error:  # a month that was dropped meanwhile: delivery tries again
                    assert "no partition" in str(error)
                else:
                    break
            roll_up(database)

    def forget(database: Database) -> None:
        for _ in range(10):
            while Writer(database).prune(over_us):
                pass

    at_once(url, forget, *(partial(deliver, number=number) for number in range(3)))
    with Database(url) as database:
        while roll_up(database):
            pass
        forget(database)  # the others may have begun only when it had ended
        reader = Reader(database)
        december = Filters(from_us=1_764_547_200 * US)  # the month that is not over then
        singly: Counter[str | None] = Counter()
        for group in reader.usage(december, ["track", "operation"]):
            singly[group.key["track"]] += group.totals.requests
        for asked in (Filters(), december):
            told = {group.key["track"]: group.totals.requests for group in reader.usage(asked, ["track"])}
            assert told == dict(singly)


HOUR_US = 3_600 * US
OLD = T0 // DAY_US * DAY_US - 70 * DAY_US
"""Not at the beginning of a month."""


async def test_tags_are_known_until_their_month_has_passed(sqlite_url, closing):
    history = closing(History(sqlite_url))
    calls = [call(request_id=f"old{at}", ended_at=OLD + at * HOUR_US, document=f"d{at % 3}") for at in range(10)]
    await history.deliver([batch([*calls, call(document="d0")])])
    before = await history.usage(Filters(), ["document"], "day")
    assert await history.prune(OLD + 2 * DAY_US) == 10
    assert await history.usage(Filters(), ["document"], "day") == before
    ranked = await history.ranked(Filters(), "document", 5, "day")
    assert sorted(ranked.largest, key=repr) == sorted(before, key=repr)
    ragged = await history.usage(Filters(from_us=OLD + HOUR_US - 5, to_us=OLD + 2 * HOUR_US + 5), ["document"])
    assert {group.key["document"]: group.totals.requests for group in ragged} == {"d1": 1, "d2": 1}  # whole hours
    minutes = Filters(from_us=OLD, to_us=OLD + 2 * HOUR_US)
    found = await history.usage(minutes, ["document"], "minute")
    assert [(group.start_us, group.key["document"]) for group in found] == [(OLD, "d0"), (OLD + HOUR_US, "d1")]


async def test_of_a_month_that_has_passed_no_tag_is_known_nor_told_to_be_missing(url, closing):
    history = closing(History(url))
    old = [call(request_id=f"old{at}", ended_at=OLD + at * HOUR_US, document=f"d{at % 3}") for at in range(10)]
    await history.deliver([batch([*old, call(document="d0"), call()])])
    total = await history.usage(Filters())
    while await history.prune(T0 - 35 * DAY_US):
        pass
    assert await history.usage(Filters()) == total
    for asked in (Filters(), Filters(from_us=OLD + 7), Filters(from_us=OLD - 7, to_us=T0 + 1)):
        for window in (None, "hour", "month"):
            found = await history.usage(asked, ["document"], window)
            assert {group.key["document"]: group.totals.requests for group in found} == {"d0": 1, None: 1}
    assert await history.usage(Filters(to_us=T0 - 40 * DAY_US), ["document"]) == []
    ranked = await history.ranked(Filters(), "document", 5, "month")
    assert {group.key["document"] for group in ranked.largest} == {"d0", None}
    assert sorted(ranked.groups, key=repr) == sorted(await history.usage(Filters(), ["document"]), key=repr)


async def test_what_is_recent_is_told_by_the_minute_though_a_range_begins_where_records_are_gone(sqlite_url):
    """Also what is not rolled up yet."""
    with Database(sqlite_url) as database:
        writer, reader = Writer(database), Reader(database)
        first = T0 // HOUR_US * HOUR_US
        times = [first + minute * 60 * US + 5 for minute in range(0, 180, 20)]
        writer.apply([batch([call(track="t", ended_at=at) for at in times])])
        while roll_up(database):
            pass
        assert writer.prune(first + HOUR_US) == 3
        late = [call(track="late", ended_at=first + 50 * 60 * US), call(track="t", ended_at=first + 170 * 60 * US)]
        writer.apply([batch(late, after=len(times))])
        asked = Filters(from_us=first, to_us=first + 3 * HOUR_US)
        for _ in range(2):
            found = reader.usage(asked, ["track"], "minute")
            told = [
                ((present(group.start_us) - first) // (60 * US), group.key["track"], group.totals.requests)
                for group in found
            ]
            assert told == [
                (0, "late", 1), (0, "t", 3), *((at, "t", 1) for at in (60, 80, 100, 120, 140, 160, 170)),
            ]  # fmt: skip
            half = reader.usage(Filters(from_us=first - 7, to_us=first + 55 * 60 * US), ["track"])
            assert {group.key["track"]: group.totals.requests for group in half} == {"late": 1, "t": 3}
            roll_up(database)


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
        for table in (*TAG_LEVELS, tags_done):
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


def as_version_4(database: Database) -> None:
    """With roll-ups by tag in each workspace, not in each series."""
    with database.writing() as connection:
        for table in TAG_LEVELS:
            sums = ", ".join(f"{name} BIGINT NOT NULL" for name in FIELDS)
            connection.execute(text(f"DROP TABLE {table.name}"))
            connection.execute(
                text(
                    f"CREATE TABLE {table.name} (tag TEXT, start_s BIGINT, workspace TEXT, value TEXT, {sums}, "
                    "PRIMARY KEY (tag, start_s, workspace, value))"
                )
            )
        connection.execute(meta.update().where(meta.c.name == "version").values(value="4"))


def test_roll_ups_by_tag_that_know_no_series_are_filled_anew(url, bites):
    with Database(url) as database:
        rng = Random(3)
        Writer(database).apply([batch([random_call(rng, SPAN_US) for _ in range(50)])])
        while roll_up(database):
            pass
        before = by_tag(Reader(database))
        as_version_4(database)
    with Database(url) as database:
        Writer(database).prepare()
        assert by_tag(Reader(database)) == before
        assert roll_up(database)
        while roll_up(database):
            pass
        assert by_tag(Reader(database)) == before


def test_tags_that_were_gone_before_the_upgrade_are_not_told_to_be_missing(sqlite_url):
    with Database(sqlite_url) as database:
        writer = Writer(database)
        writer.apply([batch([call(track="old", ended_at=OLD), call(track="t")])])
        as_version_1(database)
        with database.writing() as connection:  # what version 1 did after a while
            connection.execute(events.delete().where(events.c.ended_at < T0 - DAY_US))
            since_us = (T0 - DAY_US) // (900 * US) * 900 * US
            connection.execute(meta.insert().values(name="events_since_us", value=str(since_us)))
    with Database(sqlite_url) as database:
        for _ in range(2):
            (group,) = Reader(database).usage(Filters(), ["track"])
            assert (group.key, group.totals.requests) == ({"track": "t"}, 1)
            roll_up(database)


def test_where_much_is_due_the_records_are_read(sqlite_url, monkeypatch):
    monkeypatch.setattr("taximeter.sinks.history.read.combining.MOST_DUE", 10)
    rng = Random(4)
    with Database(sqlite_url) as database:
        Writer(database).apply([batch([random_call(rng, SPAN_US) for _ in range(50)])])
        before = by_tag(Reader(database))
        while roll_up(database):
            pass
        assert by_tag(Reader(database)) == before


def test_bites_are_as_large_as_they_are_quick(url, monkeypatch):
    with Database(url) as database:
        roller = TagRoller(database)
        Writer(database).apply([batch([call(track="t")] * 100)])
        now_s = [0.0]
        monkeypatch.setattr("taximeter.sinks.history.write.tag_rollups.time.monotonic", lambda: now_s[0])
        take = tag_rollups.bite
        sizes = []

        def slow(connection, most):
            sizes.append(most)
            now_s[0] += {10: 0.004, 20: 0.08, 5: 0.0}.get(most, 0.04)
            return take(connection, most)

        monkeypatch.setattr(tag_rollups, "bite", slow)
        roller._bite = 10
        while roller.roll_up():
            pass
        assert sizes[:3] == [10, 20, 10]


def test_another_node_takes_another_journal(postgres_server):
    with Database(postgres_server.database()) as database:
        Writer(database).apply([batch([call(track="t")], name) for name in ("j1", "j2")])
        with Database(str(database.url.render_as_string(hide_password=False))) as other, database.writing() as busy:
            busy.execute(select(journals.c.seq).where(journals.c.journal_id == "j1").with_for_update())
            assert roll_up(other) == 1
            assert roll_up(other) == 0  # j1 is being delivered to
        assert roll_up(database) == 1


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
