"""What a dead writer leaves: every call it opened has one record, and the file ends."""

from __future__ import annotations

import errno
import os
import random
import signal
from pathlib import Path

import msgspec
import pytest

from journals import AT, closing, files, lines, opening, process, read_whole, records, settled, written
from taximeter.core.lines import Line, Tick
from taximeter.core.record import Outcome, Record, Source
from taximeter.journal import recover
from taximeter.journal.files import lock_if_free
from taximeter.journal.format import encode
from taximeter.journal.read import records_between

ID = "0123456789abcdef" * 2


def test_a_call_without_a_tick_is_interrupted_and_nothing_is_known_of_it(tmp_path: Path) -> None:
    begun = opening("a", track="t")
    begun.tags = {"team": "x"}
    begun.request_bytes = 99
    written(tmp_path, [Line(open=opening("b")), Line(open=begun), closing(ID, 1, "b")], ID)
    assert settled(files(tmp_path)[0]) == 1
    ended = {"event_id": f"{ID}:2", "outcome": Outcome.INTERRUPTED, "ended_at": AT + 5}
    assert records(tmp_path)[1] == Record(**(msgspec.structs.asdict(begun) | ended))
    end = lines(files(tmp_path)[0])[-1].end
    assert end is not None
    assert end.seq == 2


@pytest.mark.parametrize(
    ("ticks", "tokens", "sources"),
    [
        ([(None, 4)], (None, 4, 4), (Source.NONE, Source.ESTIMATED)),
        ([(7, 1), (7, 4)], (7, 4, 11), (Source.ESTIMATED, Source.ESTIMATED)),
        ([(None, None)], (None, None, None), (Source.NONE, Source.NONE)),
        ([(None, 0)], (None, 0, 0), (Source.NONE, Source.ESTIMATED)),
    ],
)
def test_what_the_last_tick_knew_is_an_estimate(
    tmp_path: Path, ticks: list[tuple[int | None, int | None]], tokens: tuple[int | None, ...], sources: object
) -> None:
    told = [
        Line(tick=Tick(request_id="a", at=AT + n, response_bytes=n, input_tokens=into, output_tokens=out))
        for n, (into, out) in enumerate(ticks, 1)
    ]
    path = written(tmp_path, [Line(open=opening("a")), *told], ID)
    assert settled(path) == 1
    (read,) = records(tmp_path)
    assert (read.input_tokens, read.output_tokens, read.total_tokens) == tokens
    assert (read.input_source, read.output_source) == sources
    assert (read.partial, read.response_bytes, read.ended_at) == (True, len(ticks), AT + len(ticks))
    assert (read.duration_ms, read.status, read.cost_nusd) == (None, None, None)


def test_a_call_whose_bound_was_held_may_have_been_sent_and_is_charged(tmp_path: Path) -> None:
    bound = {"bound_tokens": 100, "bound_cost_nusd": 9_000}
    path = written(
        tmp_path,
        [
            *(Line(open=opening(name)) for name in "abc"),
            Line(tick=Tick(request_id="b", at=AT, **bound)),
            Line(tick=Tick(request_id="c", at=AT, **bound)),
            Line(tick=Tick(request_id="c", at=AT + 1, response_bytes=9, output_tokens=30, **bound)),
        ],
        ID,
    )
    assert settled(path) == 3
    told = [
        (each.charged_tokens, each.charged_cost_nusd, each.total_tokens, each.partial) for each in records(tmp_path)
    ]
    assert told == [(None, None, None, False), (100, 9_000, None, False), (70, 9_000, 30, True)]


def test_interrupted_calls_are_priced_where_a_price_is_given(tmp_path: Path) -> None:
    path = written(tmp_path, [Line(open=opening("a"))], ID)
    fd = lock_if_free(path)
    assert fd is not None
    recover.close_open_calls(fd, read_whole(path), now_us=AT, price=lambda settled: (len(settled.request_id), "list"))
    os.close(fd)
    assert [(each.cost_nusd, each.price_ref) for each in records(tmp_path)] == [(1, "list")]


def test_a_tail_torn_at_any_byte_of_the_last_lines_recovers(tmp_path: Path) -> None:
    last = [Line(open=opening("c")), Line(tick=Tick(request_id="c", at=AT, output_tokens=1)), closing(ID, 2, "b")]
    path = written(tmp_path, [Line(open=opening("a")), Line(open=opening("b")), closing(ID, 1, "a"), *last], ID)
    whole = path.read_bytes()
    sizes = [len(encode(line)) for line in last]
    for cut in range(len(whole) - sum(sizes), len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = cut - (len(whole) - sum(sizes))
        opened, closed = kept >= sizes[0], kept >= sum(sizes)
        assert settled(path) == (not closed) + opened
        found = {each.request_id: each.outcome for each in records(tmp_path)}
        expected = {"a": Outcome.OK, "b": Outcome.OK if closed else Outcome.INTERRUPTED}
        assert found == (expected | {"c": Outcome.INTERRUPTED} if opened else expected)
        assert lines(path)[-1].end is not None


def test_a_tail_of_zeros_left_by_a_power_loss_is_cut_off(tmp_path: Path) -> None:
    path = written(tmp_path, [Line(open=opening("a"))], ID)
    with path.open("ab") as file:
        file.write(b"\0" * 4_000)
    assert settled(path) == 1
    assert [each.request_id for each in records(tmp_path)] == ["a"]


def test_a_file_without_a_line_is_removed(tmp_path: Path) -> None:
    path = tmp_path / f"{ID}.jsonl"
    path.write_bytes(b'{"journal":')
    assert settled(path) == 0
    assert files(tmp_path) == []


def test_an_open_line_only_half_understood_still_counts_its_call(tmp_path: Path) -> None:
    path = written(tmp_path, [Line(open=opening("a", workspace="w", track="t"))], ID)
    path.write_bytes(path.read_bytes().replace(b'"llm"', b'"something new"'))
    assert settled(path) == 1
    (read,) = records_between(path, 0, path.stat().st_size, after=0)
    assert (read.request_id, read.workspace, read.track, read.provider) == ("a", "w", "t", "unknown")


def test_a_disk_that_refuses_half_way_is_gone_on_from_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, [Line(open=opening(f"r{n}")) for n in range(5)], ID)
    write, budget = os.write, [900]

    def little(fd: int, data: bytes) -> int:
        if not budget[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = data[: budget[0]]
        budget[0] -= len(data)
        return write(fd, data)

    with monkeypatch.context() as full:
        full.setattr("taximeter.journal.recover.os.write", little)
        with pytest.raises(OSError, match="No space left"):
            settled(path)
    already = len(records(tmp_path))
    assert 0 < already < 5
    assert settled(path) == 5 - already
    assert [each.request_id for each in records(tmp_path)] == [f"r{n}" for n in range(5)]


WRITER = """
import os, random, sys
from pathlib import Path
from journals import journal, opening, record
from taximeter.core.lines import Tick
def say(*words):
    os.write(1, f"{' '.join(words)}\\n".encode())
dice = random.Random(int(sys.argv[2]))
writer = journal(Path(sys.argv[1]), roll_bytes=20_000)
calls = {}
n = 0
while True:
    if calls and dice.random() < 0.5:
        name = dice.choice(list(calls))
        say("close", name)
        writer.close(calls.pop(name), record(name))
        say("closed", name)
    else:
        n += 1
        name = f"r{n}"
        say("open", name)
        calls[name] = writer.open(opening(name))
        say("opened", name)
        writer.tick(calls[name], Tick(request_id=name, at=n))
"""


@pytest.mark.parametrize("seed", range(4))
def test_a_writer_killed_at_any_moment_leaves_one_record_for_each_call(tmp_path: Path, seed: int) -> None:
    child = process(WRITER, tmp_path, seed)
    assert child.stdout is not None
    told = [child.stdout.readline() for _ in range(random.Random(seed).randrange(50, 1_500))]
    child.send_signal(signal.SIGKILL)
    told += child.stdout.readlines()
    child.communicate()
    moments: dict[str, set[str]] = {}
    for what, name in (line.decode().split() for line in told):
        moments.setdefault(what, set()).add(name)
    for path in files(tmp_path):
        read = read_whole(path)
        if read.end is None:
            settled(path)
    found = {each.request_id: each.outcome for each in records(tmp_path)}
    assert len(found) == len(records(tmp_path)), "one each"
    assert moments["opened"] <= set(found) <= moments["open"]
    assert all(found[name] == Outcome.OK for name in moments["closed"])
    assert {name for name, outcome in found.items() if outcome == Outcome.OK} <= moments["close"]
    assert all(lines(path)[-1].end is not None for path in files(tmp_path))
