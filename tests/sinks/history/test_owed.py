"""What is billed later, in history: each line of an object is claimed once, and settled by whoever claimed it."""

from __future__ import annotations

from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from ledger import T0, batch, call
from taximeter.core.deferred import TOLD, settlement
from taximeter.core.record import Outcome, Record, Source
from taximeter.core.totals import Totals
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.owing import Owing
from taximeter.sinks.history.read import charges
from taximeter.sinks.history.read.owed import Unsettled
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.history.schema import meta
from taximeter.sinks.history.write.writer import Writer
from taximeter.sinks.query import Filters

NOTHING: dict[str, Any] = {
    "input_tokens": None, "output_tokens": None, "total_tokens": None, "cost_nusd": None, "price_ref": None,
    "input_source": Source.DEFERRED, "output_source": Source.DEFERRED, "usage": msgspec.Raw(b"null"),
}  # fmt: skip


def promised(name: str = "batch_1", **more: Any) -> Record:
    return call(**NOTHING | {"request_id": "req-asked", "deferred": name, "unpriced_reason": "deferred"} | more)


def told(line: str = "", name: str = "batch_1", **more: Any) -> Record:
    """As a poll by somebody else of the same workspace writes it."""
    fields = {
        "kind": TOLD,
        "request_id": "req-poll",
        "deferred": name,
        "line": line,
        "cost_nusd": None,
        "track": "poller",
    }
    return call(**fields | more)


def read(file: str, **more: Any) -> Record:
    """The call that fetched a file of results."""
    return call(**NOTHING | {"request_id": "req-file", "files": (file,), "input_source": Source.NONE} | more)


JOURNALS = count(1)


class Node:
    """A node: its journal and its history."""

    def __init__(self, database: Database, name: str, digit: str) -> None:
        self.name, self.journal_id, self.seq = name, f"{next(JOURNALS):031x}{digit}", 0
        self.writer, self.owing = Writer(database, name), Owing(database, name)
        self.written: list[Record] = []

    def deliver(self, *records: Record) -> None:
        self.writer.apply([batch(list(records), after=self.seq, journal_id=self.journal_id)])
        self.seq += len(records)

    def unsettled(self) -> list[Unsettled]:
        while self.owing.gather():
            pass
        return self.owing.unsettled(100)

    def settle(self) -> list[Record]:
        """What its control process does: everything written before has arrived."""
        records = [settlement(each.asked, each.told) for each in self.unsettled()]
        if records:
            self.deliver(*records)
        self.written += records
        return records


@pytest.fixture
def database(url):
    with Database(url) as opened:
        yield opened


@pytest.fixture
def nodes(database):
    return Node(database, "a", "a"), Node(database, "b", "b")


def outstanding(database: Database, workspace: str | None = None) -> list[str]:
    return [each.object for each in Owing(database, "").listed(workspace, ("outstanding",), 100)]


def test_a_call_is_owed_until_its_object_was_told_and_is_then_its_submitters_once(database, nodes):
    one, other = nodes
    one.deliver(promised("resp_1", track="t1", charged_tokens=500), promised("resp_2", workspace="beta"))
    assert outstanding(database) == ["resp_1", "resp_2"]
    assert outstanding(database, "beta") == ["resp_2"]
    (before,) = Reader(database).usage(Filters(workspace="acme"))
    assert (before.totals.requests, before.totals.total_tokens, before.totals.unknown_requests) == (1, 0, 0)
    other.deliver(told(name="resp_1", object_state="completed"))
    one.deliver(told(name="resp_1", object_state="completed"))
    assert (one.settle(), len(other.settle()), other.settle()) == ([], 1, [])
    (after,) = Reader(database).usage(Filters(workspace="acme"))
    assert (after.totals.requests, after.totals.total_tokens) == (1, 120)
    (settled,) = other.written
    assert (settled.request_id, settled.attempt, settled.track, settled.charged_tokens) == ("req-asked", 2, "t1", -500)
    assert outstanding(database) == ["resp_2"]
    with database.reading() as connection:
        assert charges.listed(connection, None, None, 9) == []  # what it was charged has been let go


def test_nobody_elses_poll_settles_a_call(database, nodes):
    one, _ = nodes
    one.deliver(promised(), told("a", workspace="beta"), told("a", provider="azure"), told("a", name="batch_2"))
    assert one.settle() == []
    assert outstanding(database) == ["batch_1"]


def test_lines_of_a_file_are_settled_whether_the_file_or_whose_it_is_was_known_first(database, nodes):
    one, other = nodes
    other.deliver(told("a", name="file:f1"), told("b", name="file:f1"))
    assert other.settle() == []  # nobody has told yet whose they are
    one.deliver(promised(), told(object_state="completed", files=("f1",), input_source=Source.NONE))
    assert sorted(each.line or "" for each in other.settle()) == ["a", "b"]
    assert [each.service_tier for each in other.written] == ["batch", "batch"]
    assert (one.settle(), outstanding(database)) == ([], ["batch_1"])  # there may be more lines in the file
    (unread,) = one.owing.listed(None, ("outstanding",), 1)
    assert (unread.told, unread.unread) == (True, ["f1"])
    other.deliver(read("f1", outcome=Outcome.UPSTREAM_CUT), read("f1", workspace="beta"))
    assert one.settle() == []
    other.deliver(read("f1"))
    assert [each.line for each in one.settle()] == [""]
    assert outstanding(database) == []
    other.deliver(told("a", name="file:f1"))
    assert (one.settle(), other.settle()) == ([], [])


def test_a_line_that_is_told_in_the_object_and_in_a_file_of_it_is_settled_once(database, nodes):
    one, other = nodes
    one.deliver(promised())
    one.deliver(told("a"), told("b", name="file:f1"))
    other.deliver(told("a", name="file:f1"), told("b"))  # as files whose batch nobody has told of yet
    one.deliver(told(object_state="completed", files=("f1",), input_source=Source.NONE))
    assert [sorted(each.told.line or "" for each in node.unsettled()) for node in nodes] == [["a"], ["b"]]
    assert [len(node.settle()) for node in (*nodes, *nodes)] == [1, 1, 0, 0]


def test_what_was_told_before_the_promise_arrived_is_settled_when_it_has(database, nodes):
    one, other = nodes
    other.deliver(told("a"))
    assert other.settle() == []
    one.deliver(promised())
    assert len(other.settle()) == 1


def test_what_tells_is_no_call_and_in_no_sum(database, nodes):
    nodes[0].deliver(told("a"), told("b"))
    (group,) = Reader(database).usage(Filters())
    assert group.totals == Totals() and group.details.corrections == 0
    assert list(Reader(database).export(Filters())) == []


def test_what_nobody_tells_is_written_off_once_and_settled_all_the_same_where_somebody_does(database, nodes):
    one, other = nodes
    one.deliver(promised(ended_at=T0), promised("batch_2", ended_at=T0 + 2))
    given_up = [each.object for node in nodes for each in node.owing.write_off(T0 + 1, T0 + 9)]
    assert (given_up, outstanding(database)) == (["batch_1"], ["batch_2"])
    (expired,) = one.owing.listed("acme", ("expired",), 9)
    assert (expired.state, expired.seen_at, expired.asked.request_id) == ("expired", T0 + 9, "req-asked")
    assert msgspec.to_builtins(one.owing.standing()) == {"outstanding": 1, "oldest_us": T0 + 2, "expired": 1}
    other.deliver(told(object_state="completed"))
    assert len(other.settle()) == 1
    assert one.owing.standing().expired == 0


def test_what_is_kept_no_longer_goes_with_its_lines_and_what_nobody_was_promised_soon(database, nodes):
    one, _ = nodes
    one.deliver(
        promised(ended_at=T0), told("a", name="file:f1", ended_at=T0 + 1), read("f1", ended_at=T0 + 1),
        told(object_state="completed", files=("f1",), ended_at=T0 + 1), promised("batch_2", ended_at=T0 + 5),
        told("a", name="batch_2", ended_at=T0 + 6), told("a", name="nobodys", ended_at=T0 + 6),
        told("b", name="nobodys", ended_at=T0 + 9),
    )  # fmt: skip
    assert len(one.settle()) == 3
    one.deliver(told("b", name="batch_2", ended_at=T0 + 6))

    def kept():
        with database.reading() as connection:
            return sorted(map(tuple, connection.execute(text("SELECT object, line FROM usage_owed_lines"))))

    before = [("batch_1", ""), ("batch_1", "a"), ("batch_2", "a"), ("batch_2", "b"), ("file:f1", "")]
    assert kept() == [*before, ("nobodys", "a"), ("nobodys", "b")]
    assert one.owing.forget(T0, T0 + 8) and not one.owing.forget(T0, T0 + 8)
    assert kept() == [*before, ("nobodys", "b")]
    assert one.owing.forget(T0 + 2, T0 + 8) and not one.owing.forget(T0 + 2, T0 + 8)
    assert kept() == [("batch_2", "a"), ("batch_2", "b"), ("nobodys", "b")]
    one.deliver(told("a", name="file:f1"), told(object_state="completed", files=("f1",)))
    assert [each.line for each in one.settle()] == ["b"]  # what is forgotten is settled no more


def test_what_a_lost_node_had_claimed_is_settled_by_whoever_takes_over(database, nodes):
    one, other = nodes
    one.deliver(promised(), told("a"), told("b"))
    settled = settlement(*msgspec.structs.astuple(one.unsettled()[0]))
    one.deliver(settled)
    assert (other.owing.take_over(["a"]), len(other.settle()), one.settle()) == (1, 1, [])
    assert sorted(each.line for each in (settled, *other.written)) == ["a", "b"]


def test_what_a_node_lets_go_of_as_it_ends_is_settled_by_whichever_looks_next(database, nodes):
    """The promise comes from another node, and only when the one that was told has left for good."""
    one, other = nodes
    one.deliver(told("a"))
    assert one.owing.let_go() == 1
    other.deliver(promised())
    assert other.settle() == []
    assert (other.owing.take_over([]), one.owing.take_over([])) == (1, 0)
    assert [each.line for each in other.settle()] == ["a"]
    assert one.settle() == []


def test_one_node_at_a_time_has_a_lease_until_it_lets_it_lapse(database, nodes):
    one, other = (node.owing for node in nodes)
    assert [one.lease("x", 0, 10), other.lease("x", 9, 20), one.lease("x", 9, 15), one.lease("y", 9, 15)] == [
        True, False, True, True
    ]  # fmt: skip
    assert [other.lease("x", 16, 30), one.lease("x", 16, 30)] == [True, False]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("ab"), st.just("tell"), st.sampled_from(["", "p", "q"])),
        st.tuples(st.sampled_from("ab"), st.just("settle"), st.just("")),
        st.tuples(st.sampled_from("ab"), st.just("promise"), st.just("")),
        st.tuples(st.sampled_from("ab"), st.just("file"), st.sampled_from(["p", "x", "y"])),
        st.tuples(st.sampled_from("ab"), st.just("read"), st.just("")),
        st.tuples(st.sampled_from("ab"), st.just("take over"), st.just("")),
    ),
    max_size=20,
)
EXAMPLES = count(1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_however_polls_and_deliveries_interleave_each_line_told_is_settled_once(database, steps):
    mine = {"workspace": f"w{next(EXAMPLES)}"}
    nodes = {name: Node(database, f"{mine}{name}", name) for name in "ab"}
    lines = {""}
    for name, act, line in steps:
        node = nodes[name]
        if act == "promise":
            node.deliver(promised(**mine))
        elif act == "tell":
            node.deliver(told(line, files=("" if line else "f1",)[: not line], **mine))
            lines.add(line)
        elif act == "file":
            node.deliver(told(line, name="file:f1", **mine))
            lines.add(line)
        elif act == "read":
            node.deliver(read("f1", **mine))
        elif act == "take over":  # its journals are here, and nothing of it is on its way
            node.owing.take_over([other.name for other in nodes.values()])
        else:
            node.settle()
    nodes["a"].deliver(promised(**mine), told("", files=("f1",), **mine), read("f1", **mine))
    for node in (*nodes.values(), *nodes.values()):
        node.settle()
    written = [each.line for node in nodes.values() for each in node.written]
    assert sorted(map(str, written)) == sorted(lines)
    totals = Reader(database).usage(Filters(workspace=mine["workspace"]))[0].totals
    assert totals.total_tokens == 120 * len(lines)


def test_a_history_of_version_4_is_owed_nothing_and_goes_on(url):
    with Database(url) as database, database.writing() as connection:
        for table in ("usage_owed", "usage_owed_files", "usage_owed_lines"):
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(meta.update().where(meta.c.name == "version").values(value="4"))
    with Database(url) as database:
        assert outstanding(database) == []
        Node(database, "a", "a").deliver(promised(ended_at=T0))
        assert outstanding(database) == ["batch_1"]
