"""What is billed later, in history: each line of an object is claimed once, and settled by whoever claimed it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from ledger import T0, batch, call
from taximeter.core.deferred import TOLD, settlement
from taximeter.core.record import Record, Source
from taximeter.core.totals import Totals
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.read import charges, owed
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


class Node:
    """A node: its journal and its history."""

    def __init__(self, database: Database, name: str, digit: str) -> None:
        self.name, self.journal_id, self.seq = name, digit * 32, 0
        self.database, self.writer = database, Writer(database, name)
        self.written: list[Record] = []

    def deliver(self, *records: Record) -> None:
        self.writer.apply([batch(list(records), after=self.seq, journal_id=self.journal_id)])
        self.seq += len(records)

    def unsettled(self) -> list[owed.Unsettled]:
        with self.database.reading() as connection:
            return owed.unsettled(connection, self.name, 100)

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
    with database.reading() as connection:
        return [each.object for each in owed.outstanding(connection, workspace, 100)]


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
    assert [each.line for each in one.settle()] == [""]
    other.deliver(told("a", name="file:f1"))
    assert (one.settle(), other.settle()) == ([], [])


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


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("ab"), st.just("tell"), st.sampled_from(["", "x", "y", "z"])),
        st.tuples(st.sampled_from("ab"), st.just("settle"), st.just("")),
        st.tuples(st.sampled_from("ab"), st.just("promise"), st.just("")),
    ),
    max_size=20,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_however_polls_and_deliveries_interleave_each_line_told_is_settled_once(new_url, steps):
    with Database(new_url()) as database:
        nodes = {name: Node(database, name, name) for name in "ab"}
        lines: set[str] = set()
        for name, act, line in steps:
            if act == "tell":
                nodes[name].deliver(told(line))
                lines.add(line)
            elif act == "promise":
                nodes[name].deliver(promised())
            else:
                nodes[name].settle()
        nodes["a"].deliver(promised())
        for node in nodes.values():
            node.settle()
        written = [each.line for node in nodes.values() for each in node.written]
        assert sorted(map(str, written)) == sorted(lines)
        totals = sum(group.totals.total_tokens for group in Reader(database).usage(Filters()))
        assert totals == 120 * len(lines)


def test_a_history_of_version_4_is_owed_nothing_and_goes_on(url):
    with Database(url) as database, database.writing() as connection:
        for table in ("usage_owed", "usage_owed_files", "usage_owed_lines"):
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(meta.update().where(meta.c.name == "version").values(value="4"))
    with Database(url) as database:
        assert outstanding(database) == []
        Node(database, "a", "a").deliver(promised(ended_at=T0))
        assert outstanding(database) == ["batch_1"]
