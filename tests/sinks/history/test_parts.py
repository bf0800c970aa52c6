"""Groups in parts: the same as at once, however small the parts are, and whatever comes meanwhile."""

from __future__ import annotations

import sqlite3
import tracemalloc
from contextlib import closing
from random import Random

import pytest

from ledger import T0, US, batch, call, random_call
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.read import stretches
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.history.write.tag_rollups import TagRoller
from taximeter.sinks.history.write.writer import Writer
from taximeter.sinks.query import Filters

DAY_US = 86_400 * US
SPAN_US = 40 * DAY_US
RAGGED = Filters(from_us=T0 + 7, to_us=T0 + SPAN_US - 12_345_678_901)

ASKED = (
    (RAGGED, ["model", "end_user"], "day", "Europe/Berlin"),
    (RAGGED, ["track"], "day", "Asia/Kolkata"),
    (Filters(workspace="acme"), ["document", "workspace"], "month", "UTC"),
    (RAGGED, ["end_user", "track"], None, "UTC"),
    (Filters(end_user=["u-03", "u-1", "ann"]), ["end_user", "task"], None, "UTC"),
    (Filters(end_user=["u-03", ""]), ["end_user", "track"], "month", "UTC"),
    (RAGGED, ["model", "workspace"], "day", "Europe/Berlin"),
    (Filters(task=["query", ""]), ["task"], None, "UTC"),
    (Filters(workspace="nobody"), ["track"], "day", "UTC"),
    (Filters(from_us=5, to_us=5), ["track"], "day", "UTC"),
)


def some_calls(rng: Random, n: int):
    for _ in range(n):
        one = random_call(rng, SPAN_US)
        if rng.randrange(3):
            one.end_user, one.track = f"u-{rng.randrange(12):02}", rng.choice([None, f"t-{rng.randrange(8)}"])
        yield one


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(stretches, "FIRST_ROWS", 4)
    monkeypatch.setattr(stretches, "ROWS", 20)


@pytest.mark.parametrize("due", ["some", "much"])
def test_parts_are_the_groups_there_are_at_once(url, small, monkeypatch, due):
    rng = Random(7)
    with Database(url) as database:
        Writer(database).apply([batch(list(some_calls(rng, 300)))])
        while due == "some" and TagRoller(database).roll_up():
            pass
        if due == "some":
            Writer(database).apply([batch(list(some_calls(rng, 50)), after=300)])
        if due == "much":
            monkeypatch.setattr("taximeter.sinks.history.read.combining.MOST_DUE", 10)
            monkeypatch.setattr(stretches, "MOST_DUE", 10)
        reader = Reader(database)
        for asked in ASKED:
            lists = list(reader.parts(*asked))
            together = [group for some in lists for group in some]
            assert sorted(together, key=repr) == sorted(reader.usage(*asked), key=repr), asked
            keys = [tuple(group.key.values()) for group in together]
            assert len(dict.fromkeys(keys)) == sum(a != b for a, b in zip([None, *keys], keys, strict=False)), asked
            assert len(lists) >= min(3, len(together) // 50), asked


def test_what_comes_meanwhile_is_in_no_group_twice(url, small):
    with Database(url) as database:
        writer = Writer(database)
        writer.apply([batch([call(end_user=f"u-{n:02}") for n in range(40)])])
        while TagRoller(database).roll_up():
            pass
        found, after = {}, 40
        for groups in Reader(database).parts(Filters(), ["end_user"]):
            for group in groups:
                assert group.key["end_user"] not in found
                found[group.key["end_user"]] = group.totals.requests
            writer.apply([batch([call(end_user=f"u-{n:02}") for n in range(0, 40, 3)], after=after)])
            after += 14
            if database.path is not None:  # nor is anything of it held while its reader takes its time
                with closing(sqlite3.connect(database.path)) as other:
                    assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        assert set(found) == {f"u-{n:02}" for n in range(40)} and found["u-01"] == 1 and found["u-39"] > 1


def test_memory_does_not_grow_with_the_groups(sqlite_url, monkeypatch):
    monkeypatch.setattr(stretches, "ROWS", 100)
    groups = 3_000
    with Database(sqlite_url) as database:
        Writer(database).apply([batch([call(end_user=f"u-{n:04}") for n in range(groups)])])
        while TagRoller(database).roll_up():
            pass
        reader = Reader(database)
        assert sum(map(len, reader.parts(Filters(), ["end_user"]))) == groups  # and the statements are made

        def peak_bytes(ask):
            tracemalloc.start()
            try:
                assert ask() == groups
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        at_once = peak_bytes(lambda: len(reader.usage(Filters(), ["end_user"])))
        in_parts = peak_bytes(lambda: sum(map(len, reader.parts(Filters(), ["end_user"]))))
        assert in_parts * 8 < at_once, (in_parts, at_once)
