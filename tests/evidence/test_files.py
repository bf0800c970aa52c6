"""Each single byte of a journal's file that is changed is found, and so is each line that is not where it was."""

import pytest

from evidence_ledger import ONE, Books, calls_of, places
from taximeter.evidence.files import check_files
from taximeter.evidence.report import Report
from taximeter.journal.format import CLOSE


@pytest.fixture
def books(tmp_path):
    books = Books(f"sqlite:///{tmp_path / 'history.db'}", tmp_path)
    with books.database:
        yield books


@pytest.fixture
def path(books):
    return books.deliver(ONE, calls_of(4))


@pytest.fixture
def found(books, path):
    """Takes other bytes for the file, and returns the faults of that."""
    with books.source() as source:

        def check(content):
            path.write_bytes(content)
            report = Report(source="")
            check_files(books.journal, source, report)
            return report

        yield check


def test_each_byte_that_is_changed_is_found_and_the_record_named(found, path):
    whole = path.read_bytes()
    assert found(whole).faults == []
    lines, start, seq = whole.splitlines(keepends=True), 0, 0
    for line in lines[:7]:  # of two calls; the end line is behind all that was delivered: what it says, history has
        seq += line.startswith(CLOSE)
        for at in range(start, start + len(line)):
            report = found(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            assert report.faults, (at, line)
            assert {fault.journal for fault in report.faults} == {ONE}
            if line.startswith(CLOSE) and whole[at] != ord("\n"):
                assert seq in {fault.seq for fault in report.faults}, (at, line)
        start += len(line)


def test_lines_removed_added_or_in_another_order_are_found(found, path):
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines[:-1]):
        report = found(b"".join(lines[:number] + lines[number + 1 :]))
        assert report.faults, line
        if line.startswith(CLOSE):
            assert ("line_missing", ONE, number // 3) in places(report)
    assert places(found(b"".join(lines[:-1]))) == {("line_missing", ONE, None)}  # the end line
    assert found(b"".join([*lines[:-1], lines[-1].replace(b'"seq":4', b'"seq":3')])).faults
    more = [line.replace(f"{ONE}:4".encode(), f"{ONE}:5".encode()) for line in lines[-4:-1]]
    assert places(found(b"".join([*lines, *more]))) == {("line_added", ONE, 5)}
    for one, other in ((3, 6), (6, 12), (1, 4), (2, 3)):
        turned = list(lines)
        turned[one], turned[other] = lines[other], lines[one]
        assert found(b"".join(turned)).faults, (one, other)
    assert ("line_added", ONE, 2) in places(found(b"".join([*lines[:8], lines[6], *lines[8:]])))
    assert ("line_missing", ONE, 4) in places(found(b"".join(lines[:10])))


def test_what_is_still_to_be_delivered_or_torn_is_no_fault(books):
    path = books.deliver(ONE, calls_of(4), ended=False)
    more = books.deliver("c" * 32, calls_of(1)).read_bytes().replace(b"c" * 32 + b":1", ONE.encode() + b":5")
    line = next(line for line in more.splitlines(keepends=True) if line.startswith(CLOSE))
    (books.journal / f"{'c' * 32}.jsonl").unlink()
    path.write_bytes(path.read_bytes() + line + b'{"open":{"requ')
    report = Report(source="")
    with books.source() as source:
        check_files(books.journal, source, report)
    assert (report.faults, report.lines, report.undelivered) == ([], 4, 1)


def test_a_byte_that_no_record_reads_is_found_by_the_digest(found, path):
    whole = path.read_bytes()
    (fault,) = found(whole.replace(b'"response_bytes":7', b'"response_bytes":8', 1)).faults
    assert (fault.kind, fault.problem) == (
        "line_changed",
        "in its file, a byte before seq 2 was changed that is of no record's figures",
    )


def test_a_file_that_history_never_had(books, found, path):
    other = books.journal / f"{'d' * 32}.jsonl"
    other.write_bytes(path.read_bytes().replace(ONE.encode(), b"d" * 32))
    report = found(path.read_bytes())
    assert (report.faults, report.files, report.undelivered) == ([], 2, 4)
