"""Several nodes into one PostgreSQL, at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from sqlalchemy import select, text

from ledger import T0, US, batch, call, random_call
from taximeter.sinks import batch as sums_of
from taximeter.sinks import cells
from taximeter.sinks.history.database import Database, HistoryUnavailable
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.history.schema import events
from taximeter.sinks.history.write.writer import Writer
from taximeter.sinks.query import Filters

NODES = 4


def test_nodes_writing_the_same_roll_up_rows_at_once_lose_and_double_nothing(postgres_server):
    url = postgres_server.database()
    starting = threading.Barrier(NODES)

    def node(number: int) -> None:
        rng = Random(number)
        with Database(url) as database:
            writer = Writer(database)
            starting.wait()  # also: all make the schema and the first partition at once
            for after in range(0, 200, 20):
                sent = batch([random_call(rng) for _ in range(20)], f"node{number}", after)
                assert writer.apply([sent]) == {sent.journal_id: after + 20}
                assert writer.apply([sent]) == {sent.journal_id: after + 20}

    with ThreadPoolExecutor(NODES) as pool:
        list(pool.map(node, range(NODES)))
    with Database(url) as database:
        expected = cells.empty()
        for number in range(NODES):
            rng = Random(number)
            for _ in range(200):
                sums_of.add(expected, random_call(rng))
        (group,) = Reader(database).usage(Filters())
        assert (group.totals, group.details) == cells.split(expected)


def test_one_journal_sent_by_two_nodes_is_applied_once(postgres_server):
    """Two that adopt the same dead node's journals: each batch counts for whoever comes first."""
    url = postgres_server.database()
    with Database(url) as one, Database(url) as other:
        writers = [Writer(one), Writer(other)]
        for writer in writers:
            writer.prepare()
        with ThreadPoolExecutor(2) as pool:
            for after in range(20):
                sent = batch([call(request_id=f"r{after}")], after=after)
                assert (
                    list(pool.map(lambda writer, sent=sent: writer.apply([sent]), writers)) == [{"j1": after + 1}] * 2
                )
        assert Reader(one).usage(Filters())[0].totals.requests == 20


def test_a_month_that_another_node_dropped_is_made_again(postgres_server):
    url = postgres_server.database()
    old = T0 - 70 * 86_400 * US
    with Database(url) as one, Database(url) as other:
        writer = Writer(one)
        writer.apply([batch([call(ended_at=old)])])
        assert Writer(other).prune(T0) == 1
        late = batch([call(ended_at=old)], after=1)
        with pytest.raises(HistoryUnavailable, match="no partition"):
            writer.apply([late])
        assert writer.apply([late]) == {"j1": 2}


def test_reads_see_one_moment_whatever_is_written_meanwhile(postgres_server):
    with Database(postgres_server.database()) as database:
        writer = Writer(database)
        writer.apply([batch([call()])])
        with database.reading() as connection:
            count = select(events.c.id)
            first = len(connection.execute(count).all())
            writer.apply([batch([call()], after=1)])
            assert len(connection.execute(count).all()) == first == 1


def test_a_server_that_drops_the_connection_is_an_error_once_and_then_works_again(postgres_server):
    url = postgres_server.database()
    with Database(url) as database, Database(url) as other:
        writer = Writer(database)
        writer.apply([batch([call()])])
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = "
        with pytest.raises(HistoryUnavailable), database.writing() as connection:
            connection.execute(select(events.c.id))
            with other.writing() as killer:
                killer.execute(text(f"{kill} current_database()"))
            connection.execute(select(events.c.id))
        assert writer.journals(["j1"])["j1"].seq == 1
        assert writer.apply([batch([call(ended_at=T0 + 1)], after=1)]) == {"j1": 2}


def test_a_url_may_carry_options_of_its_own(postgres_server):
    url = postgres_server.database()
    with Database(url) as database, database.writing() as connection:
        connection.execute(text("CREATE SCHEMA mine"))
    with Database(f"{url}&options=-csearch_path%3Dmine") as database:
        Writer(database).apply([batch([call()])])
        with database.reading() as connection:
            assert connection.execute(text("SELECT COUNT(*) FROM mine.usage_events")).scalar() == 1
            assert connection.execute(text("SHOW timezone")).scalar() == "UTC"


def test_a_server_that_is_not_there_is_an_error():
    with Database("postgresql://nobody@127.0.0.1:1/none") as database, pytest.raises(HistoryUnavailable):
        Writer(database).apply([batch([call()])])
