"""How evidence is kept: through retention, records that come late, older histories, several nodes, days."""

import os

import pytest
from sqlalchemy import delete, insert, select, text, update

from evidence_ledger import DAY_US, ONE, OTHER, Books, batches, calls_of, journal_file, opened, places
from ledger import T0, US, call
from taximeter.core.deferred import TOLD
from taximeter.evidence.check import OUTLIVED
from taximeter.evidence.keys import Signer
from taximeter.journal.files import lock_if_free
from taximeter.journal.format import CLOSE, open_line
from taximeter.journal.recover import close_open_calls
from taximeter.journal.tail import Tail
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.schema import VERSION, events, evidence_pieces, evidence_segments, journals, meta
from taximeter.sinks.history.sink import History
from taximeter.sinks.history.write import evidence as kept
from taximeter.sinks.history.write.writer import Writer


def count(books, table):
    with books.database.reading() as connection:
        return len(connection.execute(select(table)).all())


def test_pieces_become_segments_of_bounded_size(books, monkeypatch):
    monkeypatch.setattr(kept, "SEGMENT_RECORDS", 4)
    for number in range(3):
        books.deliver(f"{number}" * 32, calls_of(7, f"r{number}"))
    assert (count(books, evidence_pieces), count(books, evidence_segments)) == (9, 0)
    assert books.tables.gather() == 0  # none has many
    monkeypatch.setattr(kept, "MANY_PIECES", 2)
    assert books.tables.gather() > 0
    books.seal()
    assert count(books, evidence_pieces) == 0
    report = books.check(trusted=[books.signer.public])
    assert (report.faults, report.records, report.segments) == ([], 21, 6)


def test_a_file_that_had_ended_before_it_was_told(books):
    path = journal_file(books.journal, ONE, calls_of(3))
    *some, last = list(batches(path))
    for batch in some:
        books.writer.apply([batch])
    if last.records:
        last.ended = False
        books.writer.apply([last])
    assert books.check().faults == []


def test_records_that_come_after_their_turn(books):
    path = journal_file(books.journal, ONE, calls_of(4))
    for batch in batches(path):
        gone = [record for record in batch.records if record.event_id.endswith(":2")]
        batch.records = [record for record in batch.records if record not in gone]
        batch.__post_init__()
        books.writer.apply([batch])
        aside = gone or locals().get("aside", [])
    report = books.check()
    assert (report.faults, report.records, report.absent_seqs) == ([], 3, 1)  # history is to get it later
    books.writer.retake(aside)
    books.writer.retake(aside)  # once, however often
    for _ in range(2):
        report = books.check()
        assert (report.faults, report.records, report.lines) == ([], 4, 4)
        books.seal()
    with books.database.writing() as connection:
        connection.execute(update(events).where(events.c.request_id == "req-2").values(cost_nusd=1))
    assert places(books.check()) == {("record_changed", ONE, 2)}


def test_a_line_that_cannot_be_read_is_told_and_no_fault(books):
    path = journal_file(books.journal, ONE, calls_of(3))
    lines = path.read_bytes().splitlines(keepends=True)
    lines[6] = lines[6].replace(b'"cost_nusd":', b'"cost_nusd";')
    assert lines[6].startswith(CLOSE)
    path.write_bytes(b"".join(lines))
    for batch in batches(path):
        books.writer.apply([batch])
    report = books.check()
    assert (report.faults, report.records, report.lines, report.absent_seqs) == ([], 2, 2, 1)


def test_what_retention_deleted_was_there(books):
    books.deliver(ONE, calls_of(3))
    books.deliver(OTHER, calls_of(2, "later", ended_at=T0 + 40 * DAY_US))
    books.seal()
    with books.database.writing() as connection:
        connection.execute(delete(events).where(events.c.ended_at < T0 + DAY_US))
        connection.execute(insert(meta).values(name="events_since_us", value=str(T0 + DAY_US)))
    report = books.check(trusted=[books.signer.public])
    assert (report.faults, report.records, report.deleted, report.notes) == ([], 2, 3, [])
    assert books.tables.prune() == 1
    report = books.check(trusted=[books.signer.public])
    assert (report.faults, report.records, report.deleted, report.trusted_roots) == ([], 2, 3, 1)
    with books.database.writing() as connection:
        connection.execute(delete(events).where(events.c.request_id == "later-1"))
    assert places(books.check()) == {("record_missing", OTHER, 1)}


def test_a_record_that_somebody_else_deleted_than_retention_stands_out(books):
    books.deliver(ONE, calls_of(3))
    books.seal()
    with books.database.writing() as connection:
        connection.execute(delete(events).where(events.c.request_id == "req-3"))
        connection.execute(insert(meta).values(name="events_since_us", value=str(T0 + DAY_US)))
    report = books.check(trusted=[books.signer.public])
    assert (report.faults, report.deleted, report.notes) == ([], 1, [f"2 {OUTLIVED}"])


def test_a_history_of_before_is_proven_from_then_on(new_url, tmp_path):
    url = new_url()
    books = Books(url, tmp_path)
    path = journal_file(books.journal, ONE, calls_of(6))
    old = list(batches(path))
    books.writer.apply(old[:1])
    with books.database.writing() as connection:  # as version 4 has it
        for table in ("evidence_pieces", "evidence_segments", "evidence_roots", "evidence_keys"):
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(text("ALTER TABLE journals DROP COLUMN chain"))
        connection.execute(update(meta).where(meta.c.name == "version").values(value="4"))
    books.database.dispose()
    with Database(url) as database:
        writer = Writer(database)
        for batch in old[1:]:
            writer.apply([batch])
        books.database, books.writer, books.tables = database, writer, kept.EvidenceTables(database)
        books.deliver(OTHER, calls_of(1, "new"))
        books.seal()
        report = books.check(trusted=[books.signer.public])
        assert (report.faults, report.before_evidence, report.records) == ([], 3, 4)
        with database.writing() as connection:
            found = connection.execute(select(meta.c.value).where(meta.c.name == "version")).scalar_one()
            assert int(found) == VERSION
            connection.execute(update(meta).where(meta.c.name == "unchained_journals").values(value="9"))
        assert "root_changed" in {fault.kind for fault in books.check().faults}


def test_several_nodes_carry_on_their_own_chains_and_one_makes_the_root(new_url, tmp_path):
    url = new_url()
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    one, two = (Books(url, folder) for folder in folders)
    with one.database, two.database:
        one.deliver(ONE, calls_of(3))
        two.deliver(OTHER, calls_of(3, "other"))
        assert not one.tables.is_due(T0)
        assert not two.tables.is_due(T0 + US)
        assert one.tables.is_due(T0 + DAY_US)
        assert two.tables.is_due(T0 + DAY_US)
        one.gather()
        assert one.tables.seal(T0 + DAY_US, [one.signer], daily=True) is not None
        assert two.tables.seal(T0 + DAY_US, [two.signer], daily=True) is None  # it is made
        assert not two.tables.is_due(T0 + DAY_US)
        for books in (one, two):  # each has its own files
            report = books.check(trusted=[one.signer.public])
            assert (report.faults, report.records, report.roots, report.files) == ([], 6, 1, 1)


async def test_a_day_that_is_over_gets_its_root_by_itself(tmp_path):
    books = Books(f"sqlite:///{tmp_path / 'history.db'}", tmp_path)
    history = History(books.url)
    asked: list[int] = []

    def signers() -> list[Signer]:
        asked.append(1)
        return [books.signer]

    try:
        await history.deliver(list(batches(journal_file(books.journal, ONE, calls_of(2))))[:1])
        assert await history.seal_evidence_daily(T0, signers) is None
        assert await history.seal_evidence_daily(T0 + 60 * US, signers) is None
        assert asked == []  # no key is read for nothing
        made = await history.seal_evidence_daily(T0 + DAY_US, signers)
        assert made is not None
        assert await history.seal_evidence_daily(T0 + DAY_US, signers) is None
        assert await history.seal_evidence(T0 + DAY_US, signers()) is None  # nothing is new
    finally:
        await history.close()
    with books.database:
        assert books.check(trusted=[books.signer.public]).trusted_roots == 1


@pytest.mark.parametrize("cut", [0, 1])
def test_an_unknown_journal_is_taken_from_its_first_record(books, cut):
    """Adopted by another history, it is delivered anew."""
    for batch in list(batches(journal_file(books.journal, ONE, calls_of(4))))[cut:]:
        books.writer.apply([batch])
    assert books.check().records == (0 if cut else 4)
    assert count(books, journals) == (0 if cut else 1)


def test_what_recovery_wrote_for_a_dead_writer_is_in_the_chain(books):
    path = journal_file(books.journal, ONE, calls_of(3), ended=False)
    for batch in batches(path):
        books.writer.apply([batch])
    whole = path.read_bytes()
    path.write_bytes(whole + open_line(opened(call(request_id="cut"))) + whole[-200:-3])  # a torn line behind
    tail = Tail(path)
    while not tail.at_end:
        tail.read()
    fd = lock_if_free(path)
    assert fd is not None
    assert close_open_calls(fd, tail, now_us=T0) == 1
    os.close(fd)
    for batch in batches(path, after=3):
        books.writer.apply([batch])
    report = books.check()
    assert (report.faults, report.records, report.lines) == ([], 4, 4)
    path.write_bytes(path.read_bytes().replace(b'"outcome":"interrupted"', b'"outcome":"ok"'))
    assert ("line_changed", ONE, 4) in places(books.check())


def test_lines_that_only_tell_of_other_calls_are_in_no_chain(books):
    told = call(request_id="poll", kind=TOLD, deferred="batch_1", line="1", object_state="completed", files=("f",))
    one, two = calls_of(2)
    books.deliver(ONE, [one, told, two])
    books.seal()
    report = books.check()
    assert (report.faults, report.records, report.absent_seqs, report.lines) == ([], 2, 1, 2)
