"""An export of evidence holds by itself; whatever is changed in it is found."""

import io
from hashlib import sha256

import msgspec
import pytest

from evidence_ledger import DAY_US, ONE, OTHER, Books, calls_of, places
from ledger import T0, US
from taximeter.core.errors import ConfigError
from taximeter.evidence.bundle import Bundle, write
from taximeter.evidence.check import check
from taximeter.evidence.keys import generate


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    folder = tmp_path_factory.mktemp("books")
    books = Books(f"sqlite:///{folder / 'history.db'}", folder)
    books.deliver(ONE, calls_of(3))
    books.deliver(OTHER, calls_of(2, "other", workspace="beta"))
    books.seal()
    books.deliver("c" * 32, calls_of(1, "late"), ended=False)
    with books.database:
        yield books


def exported(books, from_us=None, to_us=None, workspaces=()):
    file = io.BytesIO()
    with books.source() as source:
        write(source, file, from_us, to_us, workspaces)
    return file.getvalue()


@pytest.fixture
def report_of(books, tmp_path):
    def check_it(content, trusted=True):
        path = tmp_path / "export.evidence"
        path.write_bytes(content)
        bundle = Bundle(path)
        keys = [books.signer.public] if trusted else []
        return check(bundle, bundle.head.from_us, bundle.head.to_us, keys)

    return check_it


def test_it_holds_with_nothing_but_the_public_key(books, report_of):
    report = report_of(exported(books))
    assert (report.faults, report.records, report.journals, report.trusted_roots) == ([], 6, 3, 1)
    assert report_of(exported(books), trusted=False).faults == []
    other = generate(books.folder / "other.pem")
    report = report_of(exported(books).replace(books.signer.id.encode(), other.id.encode()))
    assert "signature_wrong" in {fault.kind for fault in report.faults}


def sealed_again(lines):
    """An export of these lines by who can compute a checksum."""
    body = b"".join(lines)
    end = {"end": {"lines": len(lines), "sha256": sha256(body).hexdigest()}}
    return body + msgspec.json.encode(end) + b"\n"


def test_a_record_cannot_be_passed_off_as_another_workspaces(books, report_of):
    *lines, _ = exported(books).splitlines(keepends=True)
    at = next(place for place, line in enumerate(lines) if b'"request_id":"req-2"' in line)
    left_out = b'{"left_out":{"event_id":"%b:2","ended_at":%d}}\n'
    lines[at] = left_out % (ONE.encode(), T0 + 2 * US)
    assert places(report_of(sealed_again(lines))) == {("record_missing", ONE, 2)}
    *lines, _ = exported(books, workspaces=["beta"]).splitlines(keepends=True)
    at = lines.index(left_out % (ONE.encode(), T0 + 2 * US))
    assert report_of(sealed_again(lines)).left_out == 4
    lines[at] = left_out % (ONE.encode(), T0 + 3 * US)
    assert places(report_of(sealed_again(lines))) == {("record_changed", ONE, 2)}


def test_each_byte_that_is_changed_is_found(books, report_of):
    whole = exported(books, T0, T0 + 3 * US)
    assert report_of(whole).faults == []
    for at in range(len(whole)):
        try:
            report = report_of(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        except ConfigError:  # not even the first line can be read
            assert at < whole.index(b"\n") + 1
            continue
        assert report.faults, (at, whole[at - 20 : at + 20])


def test_lines_removed_added_or_in_another_order_are_found_and_named(books, report_of):
    lines = exported(books).splitlines(keepends=True)
    records = [number for number, line in enumerate(lines) if line.startswith(b'{"record"')]
    for number in range(1, len(lines)):
        report = report_of(b"".join(lines[:number] + lines[number + 1 :]))
        assert report.faults, lines[number]
    for seq, number in enumerate(records[:3], start=1):
        report = report_of(b"".join(lines[:number] + lines[number + 1 :]))
        assert ("record_missing", ONE, seq) in places(report)
        report = report_of(b"".join([*lines[:number], lines[number], *lines[number:]]))
        assert ("record_added", ONE, seq) in places(report)
        forged = lines[number].replace(b'"cost_nusd":27000', b'"cost_nusd":26000')
        report = report_of(b"".join([*lines[:number], forged, *lines[number + 1 :]]))
        assert ("record_changed", ONE, seq) in places(report)
    one, two = records[:2]
    lines[one], lines[two] = lines[two], lines[one]
    assert {("record_moved", ONE, 1)} <= places(report_of(b"".join(lines)))
    foreign = lines[records[3]]
    report = report_of(b"".join([*lines[:one], foreign, *lines[one:]]))
    assert ("record_moved", ONE, 1) in places(report)


def test_a_period_has_its_records_only_and_says_so(books, report_of):
    report = report_of(exported(books, T0 + 2 * US, T0 + 3 * US))
    assert (report.faults, report.records) == ([], 2)
    assert (report.from_us, report.to_us) == (T0 + 2 * US, T0 + 3 * US)
    assert report_of(exported(books, T0 + DAY_US)).records == 0


def test_of_other_workspaces_there_are_hashes_only(books, report_of):
    content = exported(books, workspaces=["beta"])
    assert b"acme" not in content
    report = report_of(content)
    assert (report.faults, report.records, report.left_out) == ([], 2, 4)


def test_what_is_no_export_is_refused(tmp_path):
    for content, problem in ((b"", "is empty"), (b"{}\n", "is no export"), (b'{"evidence":{"version":9}}\n', "is no")):
        path = tmp_path / "x"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=problem):
            Bundle(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        Bundle(tmp_path / "none")
