"""Following a journal: whole lines only, each once, whatever is on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from journals import AT, call, closing, digest_upto, files, journal, opening, read_whole, record, records, written
from taximeter.core.lines import End, Line, Tick
from taximeter.core.record import Record, seq_of
from taximeter.journal import tail as tail_module
from taximeter.journal.format import encode, new_journal_id
from taximeter.journal.read import departs, last_line, records_between
from taximeter.journal.tail import Block, Tail

ID = "0123456789abcdef" * 2


def some_lines() -> list[Line]:
    """Three calls, the second unfinished, with a tick."""
    return [
        Line(open=opening("r1", track="t")),
        Line(open=opening("open", track="t")),
        closing(ID, 1),
        Line(tick=Tick(request_id="open", at=AT + 9, output_tokens=4)),
        Line(open=opening("r2")),
        closing(ID, 2),
    ]


def names(blocks: list[Block]) -> list[str]:
    return [each.request_id for block in blocks for each in block.records]


def read_on(tail: Tail, known: int = 0) -> list[Block]:
    """Everything there is now."""
    blocks = []
    while True:
        block = tail.read(known)
        if block is not None:
            blocks.append(block)
        if tail.at_end or tail.broken:
            return blocks


def test_a_block_holds_the_closed_calls_and_the_digest_up_to_the_last(tmp_path: Path) -> None:
    path = written(tmp_path, some_lines(), ID)
    tail = Tail(path)
    (block,) = read_on(tail)
    assert (block.after, block.upto, names([block])) == (0, 2, ["r1", "r2"])
    assert (block.digest, block.first_at) == (digest_upto(path, 2), AT + 5)
    assert block.end_bytes == path.stat().st_size
    assert list(tail.calls) == [("open", 1)]
    assert (tail.calls["open", 1].workspace, tail.calls["open", 1].track) == ("acme", "t")
    assert tail.last_at == AT + 9


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(cuts=st.lists(st.integers(0, 3_000), max_size=8), slab=st.sampled_from([700, 2_000, 256 * 1024]))
def test_however_a_file_grows_each_line_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuts: list[int], slab: int
) -> None:
    path = written(tmp_path, some_lines(), ID)
    whole = path.read_bytes()
    expected = read_whole(path)
    with monkeypatch.context() as patched:
        patched.setattr(tail_module, "SLAB_BYTES", slab)
        tail, blocks = Tail(path), []
        for cut in [*sorted(min(cut, len(whole)) for cut in cuts), len(whole)]:
            path.write_bytes(whole[:cut])
            blocks += read_on(tail)
    assert names(blocks) == ["r1", "r2"]
    assert (tail.offset, tail.seq, tail.calls, tail.unreadable) == (len(whole), 2, expected.calls, 0)
    for block in blocks:
        assert block.digest == digest_upto(path, block.upto)


def test_what_everybody_has_is_counted_but_not_decoded(tmp_path: Path) -> None:
    path = written(tmp_path, [closing(ID, n + 1) for n in range(5)], ID)
    for known in range(7):
        tail = Tail(path)
        (block,) = read_on(tail, known)
        assert (block.after, block.upto) == (min(known, 5), 5)
        assert names([block]) == [f"r{n + 1}" for n in range(known, 5)]
        assert block.digest == digest_upto(path, 5)


@pytest.mark.parametrize(
    "bad", [b"{", b"", b"\xff\xfe", b"\0" * 40, b'{"close":{"event_id":"x:3"}}', b"[" * 5_000, b"{}"]
)
def test_an_unreadable_line_is_skipped_and_counted(tmp_path: Path, bad: bytes) -> None:
    path = written(tmp_path, some_lines(), ID)
    head, rest = path.read_bytes().split(b'{"open":{"request_id":"r2"')
    path.write_bytes(head + bad + b'\n{"open":{"request_id":"r2"' + rest)
    tail = Tail(path)
    assert names(read_on(tail)) == ["r1", "r2"]
    assert (tail.unreadable, tail.broken) == (1, None)


def test_an_unreadable_record_leaves_a_gap_and_its_seq_stays_taken(tmp_path: Path) -> None:
    path = written(tmp_path, [closing(ID, n) for n in (1, 2, 3)], ID)
    path.write_bytes(path.read_bytes().replace(b'"input_tokens":7', b'"input_tokens":?', 2).replace(b"?", b"7", 1))
    tail = Tail(path)
    (block,) = read_on(tail)
    assert (block.after, block.upto, names([block]), tail.unreadable) == (0, 3, ["r1", "r3"], 1)
    path.write_bytes(path.read_bytes().replace(b'"input_tokens":7', b'"input_tokens":?'))
    tail = Tail(path)
    (block,) = read_on(tail)
    assert (block.upto, block.records, tail.unreadable) == (3, [], 3)
    assert block.digest == digest_upto(path, 3)


def test_an_event_id_of_another_journal_is_no_record_of_this_one(tmp_path: Path) -> None:
    path = written(tmp_path, [closing("f" * 32, 1), closing(ID, 1)], ID)
    tail = Tail(path)
    assert len(read_on(tail)) == 1
    assert (tail.unreadable, tail.seq) == (1, 1)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([closing(ID, 1), closing(ID, 2), closing(ID, 2, "again")], "seq 2 follows 2"),
        ([closing(ID, 3), closing(ID, 1)], "seq 1 follows 3"),
    ],
)
def test_seqs_given_twice_break_the_file(tmp_path: Path, lines: list[Line], reason: str) -> None:
    tail = read_whole(written(tmp_path, lines, ID))
    assert tail.broken == reason
    assert tail.read() is None


def test_a_file_under_another_name_or_without_a_header_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path, some_lines(), ID)
    copy = path.rename(tmp_path / f"{new_journal_id()}.jsonl")
    assert read_whole(copy).broken == f"it is the journal {ID} under another name"
    headless = tmp_path / f"{new_journal_id()}.jsonl"
    headless.write_bytes(encode(some_lines()[0]))
    assert read_whole(headless).broken == "its first line is not a journal's header"
    newer = tmp_path / f"{ID}.jsonl"
    newer.write_bytes(copy.read_bytes().replace(b'"schema":1', b'"schema":2'))
    assert read_whole(newer).broken == "it has schema 2; this version reads up to 1"


def test_a_file_that_shrinks_or_goes_on_after_its_end_is_broken(tmp_path: Path) -> None:
    path = written(tmp_path, [closing(ID, 1), Line(end=End(seq=1, at=2))], ID)
    tail = read_whole(path)
    assert tail.end == End(seq=1, at=2)
    with path.open("ab") as file:
        file.write(encode(closing(ID, 2)))
    tail.read()
    assert tail.broken == "it goes on after its end line"
    tail = read_whole(written(tmp_path, some_lines(), ID))
    os.truncate(path, 100)
    tail.read()
    assert tail.broken is not None
    assert tail.broken.startswith("it shrank from")


def test_a_line_without_an_end_is_not_read_for_ever(tmp_path: Path) -> None:
    path = written(tmp_path, some_lines(), ID)
    with path.open("ab") as file:
        file.write(b"x" * 3_000_000)
    tail = read_whole(path)
    assert tail.broken is not None
    assert "is longer than 1048576 bytes" in tail.broken


def test_records_can_be_read_again_from_offsets(tmp_path: Path) -> None:
    writer = journal(tmp_path)
    for n in range(20):
        call(writer, f"r{n}")
    (path,) = files(tmp_path)
    size = path.stat().st_size
    found: list[Record] = records_between(path, 0, size, after=5)
    assert found == records(tmp_path)[5:]
    assert [seq_of(each.event_id) for each in found] == list(range(6, 21))


def test_the_end_line_is_found_from_behind(tmp_path: Path) -> None:
    path = written(tmp_path, some_lines(), ID)
    assert last_line(path) is None
    end = Line(end=End(seq=2, at=AT))
    with path.open("ab") as file:
        file.write(encode(end)[:-1])
        file.flush()
        assert last_line(path) is None, "it is not whole"
        file.write(b"\n")
    assert last_line(path) == end.end


def test_a_restored_file_departs_from_what_was_delivered(tmp_path: Path) -> None:
    path = written(tmp_path, [closing(ID, n) for n in (1, 2, 3)], ID)
    for seq in (1, 2, 3):
        assert departs(path, seq, digest_upto(path, seq), ended=False) is None
    known = digest_upto(path, 2)
    assert departs(path, 2, known, ended=True) == "it goes on after seq 2, with which it had ended"
    written(tmp_path, [closing(ID, 1)], ID)
    assert departs(path, 2, known, ended=False) == "records up to seq 2 were delivered from it, but it ends before"
    written(tmp_path, [closing(ID, 1), closing(ID, 2, "another")], ID)
    assert departs(path, 2, known, ended=False) == "its bytes up to seq 2 are not those that were delivered"
    assert record("r2") != record("another")
