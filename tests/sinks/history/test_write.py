from __future__ import annotations

import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from ledger import batch, call, calls
from present import present
from taximeter.core.record import Record
from taximeter.sinks import batch as sums_of
from taximeter.sinks import cells
from taximeter.sinks.batch import Batch
from taximeter.sinks.history.database import Database, HistoryUnavailable
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.history.schema import (
    LEVELS,
    SUMMARY_LEVELS,
    US,
    classes,
    events,
    journals,
    origins,
    series,
    summaries,
)
from taximeter.sinks.history.sink import History
from taximeter.sinks.history.windows import level_start_s
from taximeter.sinks.history.write.writer import Writer
from taximeter.sinks.query import Filters
from taximeter.sinks.sink import JournalKeeper, JournalState, Sink

MANY = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def contents(database: Database) -> dict[str, Any]:
    """Everything the tables say, by name: what two histories of the same records must agree on."""
    with database.reading() as connection:
        names = {row[0]: tuple(row[1:]) for row in connection.execute(select(series))}
        kinds = {row[0]: tuple(row[1:]) for row in connection.execute(select(classes))}
        by = {row[0]: tuple(row[1:]) for row in connection.execute(select(summaries))}
        stored = [
            (row.request_id, row.ended_at, row.cost_nusd, names[row.series_no], kinds[row.class_no])
            for row in connection.execute(select(events).order_by(events.c.id))
        ]
        rolled = {
            level.name: {
                (row.start_s, names[row.series_no]): list(row[2:]) for row in connection.execute(select(level))
            }
            for level in LEVELS
        }
        summed = {
            level.name: {(row.start_s, by[row.series_no]): list(row[2:]) for row in connection.execute(select(level))}
            for level in SUMMARY_LEVELS
        }
        cursors = {row.journal_id: (row.seq, row.digest, row.ended) for row in connection.execute(select(journals))}
    return {"events": stored, "rolled": rolled, "summed": summed, "cursors": cursors}


def folded(records: list[Record]) -> dict[str, Any]:
    """What the roll-ups must hold: core.totals.add over the records of each cell."""
    rolled: dict[str, Any] = {level.name: defaultdict(cells.empty) for level in LEVELS}
    for record in records:
        names = (
            record.workspace, record.provider, record.model, record.task or "", record.operation.value,
            record.key_id or "", record.service_tier or "",
        )  # fmt: skip
        for level in LEVELS:
            sums_of.add(rolled[level.name][level_start_s(level.name, record.ended_at // US), names], record)
    return rolled


def cut(records: list[Record], cuts: list[int]) -> list[Batch]:
    """Consecutive batches of one journal."""
    edges = sorted({0, len(records), *(edge % (len(records) + 1) for edge in cuts)})
    return [batch(records[a:b], after=a) for a, b in pairwise(edges)]


@pytest.fixture
def two(new_url) -> Iterator[tuple[Database, Database]]:
    with Database(new_url()) as one, Database(new_url()) as other:
        yield one, other


def emptied(database: Database) -> Writer:
    """A new writer on a database without rows: creating databases is slow on PostgreSQL."""
    with database.writing() as connection:
        for table in (journals, series, origins, classes, summaries, events, *LEVELS, *SUMMARY_LEVELS):
            connection.execute(table.delete())
    return Writer(database)


@MANY
@given(records=st.lists(calls(), min_size=1, max_size=25))
def test_each_roll_up_is_the_sum_of_its_records(two, records):
    emptied(two[0]).apply([batch(records)])
    assert contents(two[0])["rolled"] == folded(records)


@MANY
@given(
    records=st.lists(calls(), min_size=1, max_size=25),
    cuts=st.lists(st.integers(0, 100), max_size=5),
    resends=st.lists(st.integers(0, 100), max_size=8),
)
def test_however_batches_are_cut_and_sent_again_the_database_is_the_same(two, records, cuts, resends):
    whole, pieces = two
    emptied(whole).apply([batch(records)])
    batches = cut(records, cuts)
    writer = emptied(pieces)
    for at in sorted([*range(len(batches)), *(at % len(batches) for at in resends)]):
        writer.apply([batches[at]])
        writer.apply([batches[0]])  # an old one again: behind the cursor
    assert contents(pieces) == contents(whole)


def test_a_batch_cut_for_another_cursor_changes_nothing_and_the_actual_one_is_answered(url):
    with Database(url) as database:
        writer = Writer(database)
        assert writer.apply([batch([call(), call()])]) == {"j1": 2}
        before = contents(database)
        assert writer.apply([batch([call()], after=0)]) == {"j1": 2}  # behind
        assert writer.apply([batch([call()], after=5)]) == {"j1": 2}  # ahead
        assert writer.apply([batch([call()], journal_id="j2", after=3)]) == {"j2": 0}  # of an unknown journal
        assert contents(database) == before


def test_several_batches_of_several_journals_go_in_one_call(url):
    with Database(url) as database:
        sent = [batch([call()], "j2"), batch([call()], "j1", after=1), batch([call()], "j1"), batch([call()], "j3", 9)]
        assert Writer(database).apply(sent) == {"j1": 2, "j2": 1, "j3": 0}
        assert len(contents(database)["events"]) == 3


def test_a_journal_is_remembered_with_its_digest_and_end(url):
    with Database(url) as database:
        writer = Writer(database)
        writer.apply([batch([call(), call()])])
        writer.apply([Batch(journal_id="j1", after=2, upto=2, records=[], digest="digest-2", ended=True)])
        assert Writer(database).journals(["j1", "never seen"]) == {
            "j1": JournalState(seq=2, digest="digest-2", ended=True)
        }
        assert writer.apply([batch([call()])]) == {"j1": 2}


@pytest.mark.parametrize("step", range(13))
def test_a_crash_between_any_two_statements_leaves_nothing(url, monkeypatch, step):
    """The steps: each intern table, the records, each roll-up and summary."""
    with Database(url) as database:
        writer = Writer(database)
        writer.apply([batch([call()])])
        before = contents(database)
        seen = 0

        def fails(act):
            def wrapped(*args, **named):
                nonlocal seen
                seen += 1
                if seen > step:
                    raise RuntimeError("killed here")
                return act(*args, **named)

            return wrapped

        from taximeter.sinks.history.write import intern, statements

        with monkeypatch.context() as patch:
            patch.setattr(intern.Interned, "numbers", fails(intern.Interned.numbers))
            patch.setattr(statements.Statements, "insert", fails(statements.Statements.insert))
            patch.setattr(statements.Statements, "add", fails(statements.Statements.add))
            with pytest.raises(RuntimeError):
                writer.apply([batch([call(request_model="new", response_model="new")], after=1)])
        assert contents(database) == before
        assert writer.apply([batch([call(request_model="new", response_model="new")], after=1)]) == {"j1": 2}


def test_an_answer_lost_after_the_commit_doubles_nothing(url, monkeypatch):
    with Database(url) as database:
        writer = Writer(database)
        writing = database.writing

        @contextmanager
        def answer_lost():
            with writing() as connection:
                yield connection
            raise HistoryUnavailable("the connection broke after COMMIT")

        writer.apply([batch([call()], "earlier")])  # so that the month's partition is there
        with monkeypatch.context() as patch:
            patch.setattr(database, "writing", answer_lost)
            with pytest.raises(HistoryUnavailable):
                writer.apply([batch([call()])])
        assert writer.journals(["j1"])["j1"].seq == 1
        before = contents(database)
        assert writer.apply([batch([call()])]) == {"j1": 1}
        assert contents(database) == before


def test_usage_that_is_not_utf8_is_stored_all_the_same(url):
    with Database(url) as database:
        usage = msgspec.Raw(b'{"note":"\xff"}')
        assert Writer(database).apply([batch([call(usage=usage)])]) == {"j1": 1}
        (found,) = Reader(database).record("req-1")
        assert bytes(found.usage).decode() == '{"note":"\ufffd"}'


def test_names_no_database_could_index_are_stored_cut(url):
    long = "m" * 100_000 + "\0"
    with Database(url) as database:
        writer = Writer(database)
        assert writer.apply([batch([call(response_model=long), call(response_model="a\0b")])]) == {"j1": 2}
        with database.reading() as connection:
            models = set(connection.execute(select(series.c.model)).scalars())
        assert models == {"m" * 200, "ab"}


def test_names_that_are_stored_alike_are_summed_together(url):
    with Database(url) as database:
        alike = [call(response_model="m" * 300 + end) for end in "abc"]
        Writer(database).apply([batch(alike)])
        for names in (["model"], ["workspace", "model"]):
            (group,) = Reader(database).usage(Filters(), names)
            assert (group.key["model"], group.totals.llm_input_tokens) == ("m" * 200, 300)


def test_a_locked_sqlite_raises_and_loses_nothing(sqlite_url, monkeypatch):
    monkeypatch.setattr("taximeter.sinks.history.database.BUSY_TIMEOUT_S", 0.01)
    with Database(sqlite_url) as database:
        writer = Writer(database)
        writer.apply([batch([call()])])
        other = sqlite3.connect(present(database.path), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(HistoryUnavailable, match="locked"):
            writer.apply([batch([call()], after=1)])
        other.execute("ROLLBACK")
        other.close()
        assert writer.journals(["j1"])["j1"].seq == 1
        assert writer.apply([batch([call()], after=1)]) == {"j1": 2}


def test_a_deleted_sqlite_file_is_an_error_until_it_is_back(sqlite_url):
    with Database(sqlite_url) as database:
        writer = Writer(database)
        writer.apply([batch([call()])])
        away = present(database.path).with_name("away.db")
        database.dispose()  # the last connection folds the log into the file
        present(database.path).rename(away)
        with pytest.raises(HistoryUnavailable, match="is gone"):
            writer.apply([batch([call()], after=1)])
        assert not present(database.path).exists()
        away.rename(present(database.path))
        assert writer.apply([batch([call()], after=1)]) == {"j1": 2}


def test_a_back_up_put_in_place_is_read_anew(sqlite_url):
    """Numbers remembered from the file before would name other models there."""
    with Database(sqlite_url) as database:
        writer = Writer(database)
        writer.apply([batch([call()])])
        database.dispose()
        copy = shutil.copy(present(database.path), present(database.path).with_name("copy.db"))
        writer.apply([batch([call(response_model="a"), call(response_model="b")], after=1)])
        database.dispose()
        Path(copy).replace(present(database.path))
        assert writer.journals(["j1"])["j1"].seq == 1
        assert writer.apply([batch([call(response_model="b")], after=1)]) == {"j1": 2}
        models = {group.key["model"]: group.totals.requests for group in Reader(database).usage(Filters(), ["model"])}
        assert models == {"gpt-4o-mini": 1, "b": 1}
        assert [record.model for record in Reader(database).events(Filters())[0]] == ["b", "gpt-4o-mini"]


def test_a_full_disk_raises_and_the_next_try_goes_on(sqlite_url):
    with Database(sqlite_url) as database:
        writer = Writer(database)
        writer.apply([batch([call()])])
        with database.reading():
            pass
        pages = _pragma(database, "page_count")
        _limit(database, pages)
        with pytest.raises(HistoryUnavailable, match="full"):
            writer.apply([batch([call(request_id="x" * 200) for _ in range(2_000)], after=1)])
        assert writer.journals(["j1"])["j1"].seq == 1
        _limit(database, 2**30)
        assert writer.apply([batch([call()], after=1)]) == {"j1": 2}


def _pragma(database: Database, name: str) -> int:
    with database.writing() as connection:
        return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())


def _limit(database: Database, pages: int) -> None:
    with database.writing() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")


async def test_history_is_a_sink_that_keeps_journals(url, closing):
    history: Sink = closing(History(url))
    assert isinstance(history, JournalKeeper)
    assert await history.cursors(["j1"]) == {"j1": 0}
    assert await history.deliver([batch([call()])]) == {"j1": 1}
    assert await history.cursors(["j1", "j2"]) == {"j1": 1, "j2": 0}


async def test_a_database_that_is_not_there_raises_until_it_is(tmp_path, closing):
    history = closing(History(f"sqlite:///{tmp_path}/later/history.db"))
    with pytest.raises(HistoryUnavailable, match="directory"):
        await history.cursors(["j1"])
    (tmp_path / "later").mkdir()
    assert await history.deliver([batch([call()])]) == {"j1": 1}
