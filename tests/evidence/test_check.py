"""Whatever is changed in history or in what is kept of its chains is found, and named."""

import sqlite3
from random import Random

import msgspec
import pytest
from sqlalchemy import delete, insert, select, text, update

from evidence_ledger import DAY_US, ONE, OTHER, Books, calls_of, places
from ledger import T0, US, call, random_call
from taximeter.evidence.check import OPEN_END
from taximeter.evidence.keys import generate
from taximeter.evidence.report import Report
from taximeter.evidence.roots import check_roots
from taximeter.evidence.statements import SignedRoot, root_of, text_of
from taximeter.sinks.history.read.evidence import _covering
from taximeter.sinks.history.schema import (
    LEVELS,
    MONTH,
    QUARTER,
    SEQ_BITS,
    SUMMARY_LEVELS,
    events,
    evidence_pieces,
    evidence_roots,
    evidence_segments,
    journals,
    series,
)


def changed(books, statement):
    with books.database.writing() as connection:
        assert connection.execute(statement).rowcount


def stored(books):
    with books.source() as source:
        return source.roots()


def row_of(books, journal, seq):
    with books.database.reading() as connection:
        number = connection.execute(select(journals.c.journal_no).where(journals.c.journal_id == journal)).scalar_one()
        return connection.execute(select(events).where(events.c.id == number << SEQ_BITS | seq)).mappings().one()


def test_what_was_delivered_holds(sealed):
    report = sealed.check(trusted=[sealed.signer.public])
    assert report.faults == []
    assert (report.records, report.journals, report.segments, report.unsealed) == (10, 3, 4, 2)
    assert (report.roots, report.signed_roots, report.trusted_roots) == (1, 1, 1)
    assert (report.files, report.lines, report.absent_seqs) == (3, 10, 0)


def test_any_column_of_a_record_that_is_changed_is_found(sealed):
    row = row_of(sealed, ONE, 3)
    mine = events.c.id == row["id"]
    numbers = {"series_no", "origin_no", "class_no"}
    for name, value in row.items():
        if name in {"id", *numbers}:
            continue
        other = f"{value}x" if isinstance(value, str) and name != "detail" else 7 if value is None else value
        if isinstance(value, int):
            other = value + 1
        elif name == "detail":
            other = value.replace("12.5", "12.4")
        elif value is None and name in ("document", "end_user"):
            other = "d"
        changed(sealed, update(events).where(mine).values({name: other}))
        report = sealed.check()
        assert ("record_changed", ONE, 3) in places(report), name
        assert {fault.request_id for fault in report.faults} == {"req-3"}, name  # the file knows it
        changed(sealed, update(events).where(mine).values({name: value}))
    assert sealed.check().faults == []


def test_what_a_fault_says_names_the_field(sealed):
    changed(sealed, update(events).where(events.c.request_id == "req-2").values(cost_nusd=1))
    (fault,) = sealed.check().faults
    assert fault.problem == "it is not what was delivered: cost_nusd is 1, was 27000"
    assert fault.place == f"journal {ONE}, seq 2, request req-2"


def test_names_that_many_records_share_are_found_too(sealed):
    changed(sealed, update(series).values(model="cheap"))
    assert len([fault for fault in sealed.check().faults if fault.kind == "record_changed"]) == 10


def test_json_that_can_be_read_in_two_ways_is_found(sealed):
    """SQL takes the first of two members of one name, others the last."""
    row = row_of(sealed, ONE, 3)
    mine = update(events).where(events.c.id == row["id"])
    for member in ('"error_code":"x"', '"ttft_ms":1', '"nothing":0'):
        changed(sealed, mine.values(detail=row["detail"].replace("{", f"{{{member},", 1)))
        assert ("record_changed", ONE, 3) in places(sealed.check()), member
    changed(sealed, mine.values(detail=row["detail"].replace("{", "{ ", 1)))
    assert sealed.check().faults == []  # as another version may have written it


def test_what_no_column_should_hold_is_a_fault_and_no_crash(tmp_path):
    """SQLite keeps a value of any kind in any column."""
    books = Books(f"sqlite:///{tmp_path / 'history.db'}", tmp_path)
    with books.database, sqlite3.connect(tmp_path / "history.db", isolation_level=None) as raw:
        books.deliver(ONE, calls_of(3))
        books.seal()
        books.deliver(OTHER, calls_of(2, "other"), ended=False)
        for place in (
            "usage_events duration_us, usage_events detail, usage_series workspace, usage_origins price_ref",
            "usage_classes known, journals seq, journals chain, evidence_pieces previous, evidence_pieces entries",
            "evidence_segments number, evidence_segments statement, evidence_segments entries",
            "evidence_roots statement, evidence_roots signatures",
        ):
            for table, column in map(str.split, place.split(",")):
                (was,) = raw.execute(f"SELECT {column} FROM {table}").fetchone()
                for other in ("x", b"\xff", "9" * 30, 1.5):
                    raw.execute(f"UPDATE {table} SET {column} = ?", [other])
                    assert books.check(trusted=[books.signer.public]).faults, (table, column, other)
                    raw.execute(f"UPDATE {table} SET {column} = ?", [was])


def test_a_record_that_was_removed_or_added_is_found(sealed):
    row = dict(row_of(sealed, OTHER, 2))
    changed(sealed, delete(events).where(events.c.id == row["id"]))
    (fault,) = sealed.check().faults
    assert (fault.kind, fault.journal, fault.seq, fault.request_id) == ("record_missing", OTHER, 2, "other-2")
    changed(sealed, insert(events).values(row))
    number = row["id"] >> SEQ_BITS
    for fake, journal in ((4, OTHER), ((number + 7) << SEQ_BITS | 1, "#")):
        made = row | {"id": fake if fake > 4 else number << SEQ_BITS | fake, "request_id": "fake"}
        changed(sealed, insert(events).values(made))
        (fault,) = sealed.check().faults
        assert (fault.kind, fault.request_id) == ("record_added", "fake")
        assert fault.journal is not None and fault.journal.startswith(journal)
        changed(sealed, delete(events).where(events.c.request_id == "fake"))


def test_records_that_changed_places_are_found(sealed):
    one, two = row_of(sealed, ONE, 1)["id"], row_of(sealed, ONE, 2)["id"]
    for was, becomes in ((one, 99), (two, one), (99, two)):
        changed(sealed, update(events).where(events.c.id == was).values(id=becomes))
    assert places(sealed.check()) == {("record_changed", ONE, 1), ("record_changed", ONE, 2)}


def test_a_record_moved_into_the_period_or_out_of_it_is_found(sealed):
    changed(sealed, update(events).where(events.c.request_id == "req-4").values(ended_at=T0 + DAY_US))
    for period in ((T0, T0 + 60 * US), (T0 + DAY_US, T0 + 2 * DAY_US)):
        assert ("record_changed", ONE, 4) in places(sealed.check(*period))


def test_a_period_is_checked_by_itself(sealed):
    assert sealed.check(T0 + 2 * US, T0 + 4 * US).records == 2 * 2 + 1
    changed(sealed, delete(events).where(events.c.request_id == "req-5"))
    assert sealed.check(T0, T0 + 5 * US).faults == []
    assert places(sealed.check(T0, T0 + 6 * US)) == {("record_missing", ONE, 5)}


@pytest.mark.parametrize("table", [evidence_segments, evidence_pieces])
def test_whatever_is_changed_of_what_is_kept_is_found(sealed, table):
    with sealed.database.reading() as connection:
        row = connection.execute(select(table)).mappings().first()
    keys = list(table.primary_key)
    mine = [column == row[column.name] for column in keys]
    for column in table.columns:
        value = row[column.name]
        if column in keys or (column.name in ("last_us", "after", "upto") and table is evidence_segments):
            continue
        if isinstance(value, bytes):
            other: object = value[:-1] + bytes([value[-1] ^ 1])
        elif isinstance(value, bool) or (isinstance(value, int) and column.name in ("late", "ended")):
            other = not value
        elif isinstance(value, int):
            other = value + 1
        else:
            other = value[:-1] + ("0" if value[-1] != "0" else "1")
        changed(sealed, update(table).where(*mine).values({column.name: other}))
        assert sealed.check().faults, column.name
        changed(sealed, update(table).where(*mine).values({column.name: value}))
    changed(sealed, delete(table).where(*mine))
    assert sealed.check().faults
    changed(sealed, insert(table).values(dict(row)))
    assert sealed.check().faults == []


def test_changed_entries_are_told_from_changed_records(sealed):
    with sealed.database.reading() as connection:
        entries = connection.execute(select(evidence_segments.c.entries)).scalars().first()
    other = entries[: 50 + 48] + bytes([entries[98] ^ 1]) + entries[99:]  # in the third link
    changed(sealed, update(evidence_segments).where(evidence_segments.c.entries == entries).values(entries=other))
    problems = [fault.problem for fault in sealed.check().faults if fault.kind == "evidence_changed"]
    assert problems == ["the entries of seq 3 were changed; the records are those that were delivered"]


def test_roots_are_held_to_their_signature_and_to_each_other(sealed):
    sealed.seal(T0 + DAY_US)
    sealed.deliver("d" * 32, calls_of(1, "third"))
    sealed.seal(T0 + 2 * DAY_US)
    assert sealed.check(trusted=[sealed.signer.public]).trusted_roots == 3
    first = evidence_roots.c.root_no == 1
    with sealed.database.reading() as connection:
        row = connection.execute(select(evidence_roots).where(first)).mappings().one()
    (signed, *others), wrong = stored(sealed), {"root_changed", "signature_wrong", "root_missing"}
    for at in range(len(signed.statement)):
        other = signed.statement[:at] + chr(ord(signed.statement[at]) ^ 1) + signed.statement[at + 1 :]
        report, one = Report(source=""), SignedRoot(statement=other, signatures=signed.signatures)
        check_roots([one, *others], sealed.history(), {sealed.signer.id: sealed.signer.public}, (), report)
        assert wrong & {fault.kind for fault in report.faults}, other
    changed(sealed, update(evidence_roots).where(first).values(statement=signed.statement.replace("5", "6")))
    assert wrong & {fault.kind for fault in sealed.check().faults}
    changed(sealed, update(evidence_roots).where(first).values(statement=signed.statement))
    changed(sealed, delete(evidence_roots).where(first))
    assert "root_missing" in {fault.kind for fault in sealed.check().faults}
    changed(sealed, insert(evidence_roots).values(dict(row)))
    changed(sealed, update(evidence_roots).where(first).values(signatures="[]"))
    assert {fault.kind for fault in sealed.check().faults} == {"signature_wrong"}


def test_a_root_that_the_key_itself_has_signed_anew_does_not_fit_the_next(sealed):
    sealed.seal(T0 + DAY_US)
    first, second = stored(sealed)
    statement = text_of(msgspec.structs.replace(root_of(first.statement), sealed_at=1))
    other = SignedRoot(statement=statement, signatures=[sealed.signer.sign(statement)])
    report = Report(source="")
    check_roots([other, second], sealed.history(), {}, [sealed.signer.public], report)
    assert [(fault.kind, fault.root) for fault in report.faults] == [("root_changed", 2)]


def test_a_segment_made_anew_to_fit_changed_records_is_not_what_was_signed(sealed):
    """Who can write the database, but has no key."""
    changed(sealed, update(events).where(events.c.request_id == "req-1").values(cost_nusd=1))
    with sealed.database.writing() as connection:
        for table in (evidence_segments, evidence_pieces, evidence_roots):
            connection.execute(table.delete())
        connection.execute(update(journals).values(seq=0, chain="", digest=""))
        connection.execute(events.delete())
        connection.execute(text("DELETE FROM usage_rollup"))
    forged = [call(**{"request_id": f"req-{number}", "ended_at": T0 + number * US}) for number in range(1, 6)]
    sealed.deliver(ONE, forged)
    mallory = generate(sealed.folder / "mallory.pem")
    sealed.seal(signers=[mallory])
    problems = [fault.problem for fault in sealed.check(trusted=[sealed.signer.public]).faults]
    assert "no key that was given speaks for it" in problems


def test_a_key_takes_over_from_another(sealed):
    new = generate(sealed.folder / "new.pem")
    sealed.seal(T0 + DAY_US, [new, sealed.signer])
    sealed.deliver("d" * 32, calls_of(1, "third"))
    sealed.seal(T0 + 2 * DAY_US, [new, sealed.signer])  # the one before need not sign any more
    report = sealed.check(trusted=[sealed.signer.public])
    assert (report.faults, report.trusted_roots) == ([], 3)
    assert sealed.check(trusted=[new.public]).faults == []  # what came before, its root leads to
    assert [len(each.signatures) for each in stored(sealed)] == [1, 2, 1]


def test_a_key_that_nobody_vouches_for_is_told(sealed):
    sealed.seal(T0 + DAY_US, [generate(sealed.folder / "new.pem")])
    report = sealed.check()
    assert report.faults == []
    assert "Root 2 is signed by another key, and not by the one before." in report.notes
    assert {fault.root for fault in sealed.check(trusted=[sealed.signer.public]).faults} == {2}


def test_without_a_key_roots_are_made_and_say_so(books):
    books.deliver(ONE, calls_of(2))
    books.seal(signers=[])
    report = books.check()
    assert (report.faults, report.roots, report.signed_roots, report.records) == ([], 1, 0, 2)
    assert [fault.problem for fault in books.check(trusted=[books.signer.public]).faults] == ["it is not signed"]


def test_the_end_of_a_chain_cannot_be_cut_off(sealed):
    with sealed.database.writing() as connection:
        last = connection.execute(select(evidence_pieces).order_by(evidence_pieces.c.piece_no.desc())).first()
        connection.execute(delete(evidence_pieces).where(evidence_pieces.c.piece_no == last.piece_no))
        connection.execute(delete(events).where(events.c.id == last.journal_no << SEQ_BITS | last.upto))
    assert ("evidence_missing", "c" * 32, 2) in places(sealed.check())
    changed(sealed, update(journals).where(journals.c.journal_id == ONE).values(ended=False))
    assert ("evidence_missing", ONE, 5) in places(sealed.check())


def copied(path, to):
    with sqlite3.connect(path) as one, sqlite3.connect(to) as other:
        one.backup(other)


def test_a_history_rolled_back_to_an_older_root_is_told_by_a_copy_of_a_later_one(tmp_path):
    """Nothing in it is wrong: only who holds a later root, or looks at when the last was made, sees it."""
    live, older = tmp_path / "history.db", tmp_path / "older.db"
    books = Books(f"sqlite:///{live}", tmp_path)
    books.deliver(ONE, calls_of(2))
    first = books.seal(T0 + DAY_US)
    copied(live, older)
    books.deliver(OTHER, calls_of(2, "other", ended_at=T0 + DAY_US))
    second = books.seal(T0 + 2 * DAY_US)
    assert first is not None and second is not None
    trusted, known = [books.signer.public], [first.digest, second.digest]
    assert books.check(trusted=trusted, known=known).faults == []
    books.database.dispose()
    copied(older, live)
    (books.journal / f"{OTHER}.jsonl").unlink()
    report = books.check(trusted=trusted)
    assert (report.faults, report.sealed_us, report.notes) == ([], T0 + DAY_US, [])
    assert books.check(T0, T0 + 3 * DAY_US, trusted).notes == [OPEN_END]
    (fault,) = books.check(trusted=trusted, known=known).faults
    assert fault.kind == "root_missing" and second.digest in fault.problem


def test_a_journal_whose_chain_is_said_never_to_have_begun_is_found(sealed):
    changed(sealed, update(journals).where(journals.c.journal_id == ONE).values(chain=""))
    assert places(sealed.check()) == {("evidence_missing", ONE, 5)}


def test_sums_that_are_not_those_of_what_they_are_made_of_are_found(sealed):
    made_of = ("its records", "its quarters of an hour", "its hours", "its days")
    levels = ("quarter of an hour from 2025-11-22T08:15", "hour from 2025-11-22T08:00", "day from 2025-11-22T00:00",
              "month from 2025-11-01T00:00")  # fmt: skip
    for tables in (LEVELS, SUMMARY_LEVELS):
        for place, table in enumerate(tables):
            with sealed.database.reading() as connection:
                number = connection.execute(select(table.c.series_no)).scalars().first()
            change = update(table).where(table.c.series_no == number)
            changed(sealed, change.values(cost_nusd=table.c.cost_nusd + 1))
            problems = [fault.problem for fault in sealed.check().faults]
            sums = "the sums" if tables is LEVELS else "the sums by task, by model and by key"
            of = made_of[place] if tables is LEVELS or place else "the finest sums"
            assert f"of the {levels[place]}:00Z {sums} are not those of {of}" in problems, table.name
            assert {fault.kind for fault in sealed.check().faults} == {"sums_differ"}
            changed(sealed, change.values(cost_nusd=table.c.cost_nusd - 1))
    assert sealed.check().faults == []


def test_sums_that_were_moved_from_one_workspace_to_another_are_found(books):
    """Together they are what they were."""
    books.deliver(ONE, [*calls_of(2), *calls_of(2, "other", workspace="beta")])
    one, two = QUARTER.c.series_no == 1, QUARTER.c.series_no == 2
    for place, by in ((one, -5_000), (two, 5_000)):
        changed(books, update(QUARTER).where(place).values(cost_nusd=QUARTER.c.cost_nusd + by))
    assert {fault.kind for fault in books.check().faults} == {"sums_differ"}


def test_sums_are_checked_where_a_period_has_all_of_them(sealed):
    changed(sealed, update(QUARTER).values(cost_nusd=QUARTER.c.cost_nusd + 1))
    assert sealed.check(T0, T0 + 60 * US).faults == []  # no whole quarter of an hour
    assert len(sealed.check(T0 - 900 * US, T0 + 1_800 * US).faults) == 2  # and its summaries
    changed(sealed, update(QUARTER).values(cost_nusd=QUARTER.c.cost_nusd - 1))
    changed(sealed, update(MONTH).values(cost_nusd=MONTH.c.cost_nusd + 1))
    assert sealed.check(T0 - DAY_US, T0 + DAY_US).faults == []
    assert len(sealed.check().faults) == 1


def test_any_records_hold_with_their_sums(books):
    rng = Random(7)
    books.deliver(ONE, [random_call(rng) for _ in range(60)])
    books.seal()
    report = books.check(trusted=[books.signer.public])
    assert (report.faults, report.records, report.lines) == ([], 60, 60)


def test_a_record_is_in_a_stretch_wherever_stretches_lie():
    drawn = Random(5)
    for _ in range(200):
        stretches = [
            (after, after + drawn.randrange(-2, 9)) for after in drawn.choices(range(30), k=drawn.randrange(6))
        ]
        covers = _covering(stretches)
        for seq in range(40):
            assert covers(seq) == any(after < seq <= upto for after, upto in stretches), (stretches, seq)
