"""A receipt holds by itself, and only for what was billed."""

import msgspec
import pytest
from sqlalchemy import update

from evidence_ledger import ONE, OTHER, Books, calls_of
from ledger import call
from taximeter.core.errors import BadRequest, Conflict, NotFound, NotReady
from taximeter.evidence import receipts
from taximeter.evidence.keys import generate
from taximeter.sinks.history.schema import events


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    folder = tmp_path_factory.mktemp("books")
    books = Books(f"sqlite:///{folder / 'history.db'}", folder)
    books.deliver(ONE, calls_of(5))
    correction = call(kind="correction", request_id="req-2", input_tokens=None, output_tokens=None, cost_nusd=-2_000)
    books.deliver(OTHER, [correction, *calls_of(2, "other")])
    books.seal()
    books.deliver("c" * 32, calls_of(1, "late"))
    with books.database:
        yield books


def receipt_of(books, request_id):
    with books.source() as source:
        return receipts.receipt(source, request_id, source.places(request_id))


def test_each_request_has_one_that_holds(books):
    for number in range(1, 6):
        made = receipts.decode(receipts.encode(receipt_of(books, f"req-{number}")))
        report = receipts.check(made, "", [books.signer.public])
        assert (report.faults, report.records) == ([], 2 if number == 2 else 1)
        assert (report.trusted_roots, report.keys) == (1, [books.signer.id])


def test_it_says_what_was_billed_corrections_included(books):
    made = receipt_of(books, "req-2")
    assert made.cost_usd == "0.000025000"
    assert [record.get("kind") for record in made.records] == [None, "correction"]
    assert len(made.proofs[0].path) <= 3


def test_each_byte_that_is_changed_is_found(books):
    whole = receipts.encode(receipt_of(books, "req-2"))
    for at in range(len(whole)):
        try:
            made = receipts.decode(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        except BadRequest:
            continue
        assert receipts.check(made, "").faults, (at, whole[at - 20 : at + 20])


def test_one_of_a_usage_object_that_few_readers_take_holds(tmp_path):
    odd = msgspec.Raw(b'{"a":1e999,"b":123456789012345678901234567890,"b":[-9223372036854775809,-0.0]}')
    books = Books(f"sqlite:///{tmp_path / 'history.db'}", tmp_path)
    with books.database:
        books.deliver(ONE, calls_of(1, usage=odd))
        books.seal()
        made = receipts.decode(receipts.encode(receipt_of(books, "req-1")))
        report = receipts.check(made, "", [books.signer.public])
        assert (report.faults, report.records) == ([], 1)
        with books.database.writing() as connection:
            connection.execute(update(events).values(cost_nusd=1))
        assert "cost_nusd is 1" in books.check().faults[0].problem


def test_no_record_is_in_one_twice(books):
    made = receipt_of(books, "req-3")
    doubled = msgspec.structs.replace(made, records=made.records * 2, proofs=made.proofs * 2, cost_usd="0.000054000")
    report = receipts.check(doubled, "", [books.signer.public])
    assert [(fault.kind, fault.journal, fault.seq) for fault in report.faults] == [("record_added", ONE, 3)]


def test_one_of_another_key_is_not_believed(books):
    report = receipts.check(receipt_of(books, "req-1"), "", [generate(books.folder / "mallory.pem").public])
    assert [fault.problem for fault in report.faults] == ["no key that was given speaks for it"]


def test_there_is_none_of_what_is_not_recorded_or_under_no_root(books):
    with pytest.raises(NotFound, match="nothing is recorded"):
        receipt_of(books, "never")
    with pytest.raises(NotReady, match="under no root yet"):
        receipt_of(books, "late-1")


def test_none_is_made_that_would_not_hold(tmp_path):
    books = Books(f"sqlite:///{tmp_path / 'history.db'}", tmp_path)
    books.deliver(ONE, calls_of(3))
    books.seal()
    with books.database.writing() as connection:
        connection.execute(update(events).where(events.c.request_id == "req-2").values(cost_nusd=1))
    with books.database:
        assert receipt_of(books, "req-1").records
        with pytest.raises(Conflict, match="no receipt of 'req-2' would hold"):
            receipt_of(books, "req-2")


def test_what_is_no_receipt_is_refused():
    for text, problem in ((b"{}", "no receipt"), (b"x", "no receipt")):
        with pytest.raises(BadRequest, match=problem):
            receipts.decode(text)
