"""The writer of a worker: one write a turn, and nothing leaves before its line is in the file."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from journals import AT, call, files, lines, now_us, opening, record, records
from taximeter.config import JournalSettings
from taximeter.core.errors import JournalError
from taximeter.core.lines import Tick
from taximeter.core.record import seq_of
from taximeter.journal import Journal


def journal(directory: Path, **settings: object) -> Journal:
    chosen = msgspec.convert({"fsync": "never", **settings}, JournalSettings)
    return Journal(directory, node="n", worker="1", settings=chosen, now_us=now_us, batched=True)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    seen: list[bytes] = []
    real = os.write

    def write(fd: int, data: bytes) -> int:
        seen.append(data)
        return real(fd, data)

    monkeypatch.setattr("taximeter.journal.file.os.write", write)
    return seen


async def test_the_lines_of_a_turn_are_one_write_and_what_waits_for_them_comes_after(
    tmp_path: Path, writes: list[bytes]
) -> None:
    writer = journal(tmp_path)
    left: list[tuple[bytes, int]] = []
    for name in "abc":
        place = writer.open(opening(name))
        writer.after_written(lambda data: left.append((data, len(writes))), name.encode())
        writer.close(place, record(name))
    assert left == []
    before = len(writes)  # the header and the status file
    await asyncio.sleep(0)
    assert [data.count(b"\n") for data in writes[before:]] == [6]
    assert left == [(b"a", before + 1), (b"b", before + 1), (b"c", before + 1)]
    writer.shutdown()
    assert [one.event_id.rpartition(":")[2] for one in records(tmp_path)] == ["1", "2", "3"]


async def test_where_no_line_waits_nothing_waits(tmp_path: Path) -> None:
    writer = journal(tmp_path)
    left: list[bytes] = []
    writer.after_written(left.append, b"now")
    assert left == [b"now"]
    place = writer.open(opening("a"))
    writer.after_written(left.append, b"later")
    writer.tick(place, Tick(request_id="a", at=AT))  # is written at once, and so is what came before
    writer.after_written(left.append, b"behind it")
    assert left == [b"now"]
    await asyncio.sleep(0)
    assert left == [b"now", b"later", b"behind it"]
    writer.shutdown()


async def test_what_is_to_be_durable_is_written_first(tmp_path: Path) -> None:
    writer = journal(tmp_path, fsync="interval")
    call(writer, "a")
    durable = writer.durable()
    durable.send(None)  # as far as its first wait, in this very turn
    assert [one.request_id for one in records(tmp_path)] == ["a"]
    durable.close()
    writer.shutdown()


async def test_one_that_cannot_be_done_hinders_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = journal(tmp_path)
    left: list[bytes] = []
    writer.open(opening("a"))
    writer.after_written(lambda _: 1 / 0, b"")  # type: ignore[arg-type]
    writer.after_written(left.append, b"b")
    await asyncio.sleep(0)
    assert left == [b"b"]
    assert "what waited for the journal failed" in caplog.text
    writer.shutdown()


async def test_a_shutdown_in_the_middle_of_a_turn_keeps_its_lines(tmp_path: Path) -> None:
    writer = journal(tmp_path)
    left: list[bytes] = []
    call(writer, "a")
    writer.after_written(left.append, b"a")
    writer.shutdown()
    assert [one.request_id for one in records(tmp_path)] == ["a"]
    assert lines(files(tmp_path)[0])[-1].end is not None
    assert left == [b"a"]


async def test_a_journal_that_was_shut_down_takes_no_call(tmp_path: Path) -> None:
    writer = journal(tmp_path)
    writer.shutdown()
    with pytest.raises(JournalError, match="shut down"):
        writer.open(opening("a"))


async def test_a_file_is_ended_only_after_the_lines_of_its_calls(tmp_path: Path) -> None:
    writer = journal(tmp_path, roll_bytes=2_000)
    places = []
    for number in range(12):
        places.append((writer.open(opening(str(number))), str(number)))
        await asyncio.sleep(0)
    for place, name in places:
        writer.close(place, record(name))
    await asyncio.sleep(0)
    writer.shutdown()
    assert len(files(tmp_path)) > 1
    for path in files(tmp_path):
        kinds = [next(name for name in one.__struct_fields__ if getattr(one, name) is not None) for one in lines(path)]
        assert kinds.count("open") == kinds.count("close")
        assert kinds[-1] == "end"
    assert len(records(tmp_path)) == 12


@pytest.mark.parametrize("seed", range(30))
async def test_on_a_disk_that_comes_and_goes_every_call_is_kept_or_counted_lost_and_numbers_have_no_gap(
    tmp_path: Path, disk: Any, seed: int
) -> None:
    chance = random.Random(seed)
    writer = journal(tmp_path, roll_bytes=chance.choice([3_000, 1 << 20]), buffer_records=chance.choice([3, 1_000]))
    open_calls: list[tuple[Any, str]] = []
    calls = 0
    for number in range(120):
        roll = chance.random()
        if roll < 0.4:
            calls += 1
            open_calls.append((writer.open(opening(str(number))), str(number)))
        elif roll < 0.75 and open_calls:
            place, name = open_calls.pop(chance.randrange(len(open_calls)))
            writer.close(place, record(name))
        elif roll < 0.85:
            await asyncio.sleep(0)
        elif roll < 0.93:
            disk.full = not disk.full
        else:
            disk.bytes_left = chance.choice([None, 0, 100, 700, 2_500])
    disk.full, disk.bytes_left = False, None
    for place, name in open_calls:
        writer.close(place, record(name))
    await asyncio.sleep(0)
    writer.shutdown()
    kept = records(tmp_path)
    assert len({one.request_id for one in kept}) == len(kept)
    assert len(kept) + writer.status.lost == calls
    by_file: dict[str, list[int]] = {}
    for one in kept:
        by_file.setdefault(one.event_id.rpartition(":")[0], []).append(seq_of(one.event_id))
    assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in by_file.values())


@pytest.mark.parametrize("settings", [{"on_error": "refuse"}, {"fsync": "always"}])
async def test_who_must_know_at_once_has_every_line_written_at_once(
    tmp_path: Path, writes: list[bytes], settings: dict[str, str]
) -> None:
    writer = journal(tmp_path, **settings)
    left: list[bytes] = []
    place = writer.open(opening("a"))
    writer.after_written(left.append, b"a")
    writer.close(place, record("a"))
    assert [data.count(b"\n") for data in writes[-2:]] == [1, 1]
    assert left == [b"a"]
    writer.shutdown()
