"""The writer: what is on disk, who holds it, and what happens when the disk refuses."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from journals import call, files, journal, lines, opening, process, record, records, settled
from present import present
from taximeter.core.errors import JournalError
from taximeter.core.lines import Tick
from taximeter.core.record import Record
from taximeter.delivery.health import Writers
from taximeter.journal import durable, file
from taximeter.journal.files import lock_if_free
from taximeter.journal.status import StatusFile, read_status
from waits import HANG_S


def test_a_call_is_four_lines_between_header_and_end(tmp_path: Path) -> None:
    writer = journal(tmp_path)
    opened = opening("a")
    place = writer.open(opened)
    tick = Tick(request_id="a", at=3, output_tokens=2)
    writer.tick(place, tick)
    closed = record("a")
    writer.close(place, closed)
    writer.shutdown()
    (path,) = files(tmp_path)
    header, first, second, third, end = lines(path)
    assert header.journal is not None
    assert (header.journal.journal_id, header.journal.node, header.journal.worker) == (path.stem, "n", "1")
    assert (first.open, second.tick, third.close) == (opened, tick, closed)
    assert closed.event_id == f"{path.stem}:1"
    assert end.end is not None
    assert end.end.seq == 1


def test_the_first_fields_of_a_line_are_what_readers_look_for(tmp_path: Path) -> None:
    writer = journal(tmp_path)
    call(writer, "a")
    _, opened, closed = files(tmp_path)[0].read_bytes().splitlines()
    assert opened.startswith(b'{"open":{"request_id":"a"')
    assert closed.startswith(b'{"close":{"event_id":"%b:1",' % files(tmp_path)[0].stem.encode())


def test_a_usage_object_over_several_lines_becomes_one_line(tmp_path: Path) -> None:
    writer = journal(tmp_path)
    printed = record("a")
    printed.usage = msgspec.Raw(b'{\n  "prompt_tokens": 7,\r\n  "note": "a\\nb"\n}')
    writer.close(writer.open(opening("a")), printed)
    (read,) = records(tmp_path)
    assert bytes(read.usage) == b'{"prompt_tokens":7,"note":"a\\nb"}'


@pytest.mark.parametrize("name", ["\udcff", "m" * 2_000_000])
def test_a_record_that_cannot_be_written_as_it_is_keeps_its_figures(tmp_path: Path, name: str) -> None:
    writer = journal(tmp_path)
    asked = opening("a")
    asked.request_model = name
    answered = record("a")
    answered.response_model = name
    writer.close(writer.open(asked), answered)
    (read,) = records(tmp_path)
    assert (read.input_tokens, read.output_tokens, read.workspace) == (7, 3, "acme")
    assert read.response_model == ("?" if len(name) == 1 else "m" * 1024)


def test_a_live_writers_file_cannot_be_locked_and_a_finished_ones_can(tmp_path: Path) -> None:
    writer, other = journal(tmp_path), journal(tmp_path, "2")
    assert len(files(tmp_path)) == 2
    assert [lock_if_free(path) for path in files(tmp_path)] == [None, None]
    writer.shutdown()
    other.shutdown()
    for path in files(tmp_path):
        fd = lock_if_free(path)
        assert fd is not None
        assert lock_if_free(path) is None, "one process, two openers: the second is refused as well"
        os.close(fd)


def test_another_process_cannot_lock_a_live_writers_file(tmp_path: Path) -> None:
    writer = journal(tmp_path)
    code = """
import sys, pathlib
from taximeter.journal.files import lock_if_free
print(lock_if_free(pathlib.Path(sys.argv[1])))
"""
    assert process(code, files(tmp_path)[0]).communicate()[0] == b"None\n"
    writer.shutdown()
    assert process(code, files(tmp_path)[0]).communicate()[0] != b"None\n"


def test_calls_opened_before_a_roll_close_in_the_old_file_which_then_ends(tmp_path: Path) -> None:
    writer = journal(tmp_path, roll_bytes=1)
    first = writer.open(opening("a"))
    second = writer.open(opening("b"))
    third = writer.open(opening("c"))
    assert len({first.path, second.path, third.path}) == 3
    writer.close(third, record("c"))
    writer.close(first, record("a"))
    assert [line.end is not None for line in lines(first.path)] == [False, False, False, True]
    assert lock_if_free(second.path) is None, "its call is still open"
    writer.close(second, record("b"))
    writer.shutdown()
    assert sorted(each.request_id for each in records(tmp_path)) == ["a", "b", "c"]
    assert all(lines(path)[-1].end is not None for path in files(tmp_path))


def test_a_file_with_open_calls_is_left_without_an_end_at_shutdown(tmp_path: Path) -> None:
    writer = journal(tmp_path)
    place = writer.open(opening("a"))
    writer.shutdown()
    assert lines(files(tmp_path)[0])[-1].open is not None
    writer.close(place, record("a"))
    assert records(tmp_path) == [], "recovery settles it now, so the late record must not be written"


def test_a_short_write_is_taken_back_and_the_line_written_whole_later(tmp_path: Path, disk: Any) -> None:
    writer = journal(tmp_path)
    place = writer.open(opening("a"))
    disk.bytes_left = 40
    size = place.path.stat().st_size
    writer.close(place, record("a"))
    assert place.path.stat().st_size == size
    assert (writer.status.healthy, writer.status.errors, writer.status.lost) == (False, 1, 0)
    disk.bytes_left = None
    call(writer, "b")
    assert [each.request_id for each in records(tmp_path)] == ["a", "b"]
    assert (writer.status.healthy, writer.status.lost) == (True, 0)


def test_a_torn_line_that_could_not_be_taken_back_is_cut_off_before_the_next(
    tmp_path: Path, disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = journal(tmp_path)
    place = writer.open(opening("a"))

    def refuse(fd: int, size: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr("taximeter.journal.file.os.ftruncate", refuse)
        disk.bytes_left = 40
        writer.close(place, record("a"))
        call(writer, "b")
    assert not place.path.read_bytes().endswith(b"\n")
    disk.bytes_left = None
    call(writer, "c")
    assert [each.request_id for each in records(tmp_path)] == ["a", "b", "c"]


def test_a_full_disk_loses_just_the_calls_that_had_neither_a_line_nor_room(tmp_path: Path, disk: Any) -> None:
    writer = journal(tmp_path, buffer_records=3)
    guarded = [writer.open(opening(f"guarded{n}")) for n in range(5)]
    disk.full = True
    for n, place in enumerate(guarded):
        writer.close(place, record(f"guarded{n}"))
    assert writer.status.lost == 0, "their open lines are on disk: their close lines always have a place"
    for n in range(4):
        call(writer, f"late{n}")
    assert writer.status.lost == 4
    (status,) = [read_status(path) for path in tmp_path.glob("*.status")]
    assert status is not None
    assert (status.lost, status.unsaved, status.healthy) == (4, 0, False)
    disk.full = False
    call(writer, "after")
    assert [each.request_id for each in records(tmp_path)] == [*(f"guarded{n}" for n in range(5)), "after"]
    assert (writer.status.healthy, writer.status.lost) == (True, 4)


def test_calls_opened_on_a_full_disk_wait_in_memory_and_count_as_unsaved(tmp_path: Path, disk: Any) -> None:
    writer = journal(tmp_path, buffer_records=2)
    disk.full = True
    places = [writer.open(opening(f"r{n}")) for n in range(3)]
    (path,) = tmp_path.glob("*.status")
    assert present(read_status(path)).unsaved == 3
    writer.close(places[0], record("r0"))
    writer.close(places[2], record("r2"))
    assert present(read_status(path)).unsaved == 2
    assert writer.status.lost == 1
    disk.full = False
    call(writer, "r3")
    writer.close(places[1], record("r1"))
    assert sorted(each.request_id for each in records(tmp_path)) == ["r0", "r1", "r3"]
    assert present(read_status(path)).unsaved == 0


@pytest.mark.parametrize("seed", range(30))
def test_whatever_the_disk_does_each_call_is_on_disk_once_or_counted_as_lost(
    tmp_path: Path, disk: Any, seed: int
) -> None:
    dice = random.Random(seed)
    writer = journal(tmp_path, buffer_records=dice.choice([1, 3, 10]), roll_bytes=dice.choice([1, 3_000, 1_000_000]))
    opened: dict[str, file.JournalFile] = {}
    closed: list[Record] = []
    for n in range(300):
        if dice.random() < 0.1:
            disk.full = not disk.full
        if dice.random() < 0.05:
            disk.bytes_left = dice.choice([None, 0, 100, 700, 5_000])
        if opened and dice.random() < 0.5:
            name = dice.choice(sorted(opened))
            closed.append(record(name))
            writer.close(opened.pop(name), closed[-1])
        else:
            opened[f"r{n}"] = writer.open(opening(f"r{n}"))
            if dice.random() < 0.3:
                writer.tick(opened[f"r{n}"], Tick(request_id=f"r{n}", at=1))
    for name, place in opened.items():
        closed.append(record(name))
        writer.close(place, closed[-1])
    disk.full, disk.bytes_left = False, None
    writer.shutdown()
    on_disk = {each.event_id: each.request_id for each in records(tmp_path)}
    assert on_disk == {each.event_id: each.request_id for each in closed if each.event_id}
    assert len(on_disk) + writer.status.lost == len(closed)
    assert [settled(path) for path in files(tmp_path)] == [0] * len(files(tmp_path)), "no call is open in any file"


def test_a_writer_that_begins_on_a_full_disk_writes_its_calls_when_it_can(tmp_path: Path, disk: Any) -> None:
    disk.full = True
    writer = journal(tmp_path)
    assert (writer.status.healthy, list(tmp_path.iterdir())) == (False, [])
    call(writer, "a")
    place = writer.open(opening("b"))
    disk.full = False
    writer.close(place, record("b"))
    assert [each.request_id for each in records(tmp_path)] == ["a", "b"]
    assert (writer.status.healthy, writer.status.lost) == (True, 0)
    writer.shutdown()
    assert len(list(tmp_path.glob("*.status"))) == 1


def test_a_roll_the_disk_refuses_goes_on_in_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = journal(tmp_path, roll_bytes=1_000)

    def refuse(path: Path, head: bytes, *, append: bool) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as crowded:
        crowded.setattr(file, "create_locked", refuse)
        for n in range(5):
            call(writer, f"r{n}")
        assert len(files(tmp_path)) == 1
        assert (writer.status.healthy, writer.status.lost) == (True, 0)
        assert 0 < writer.status.errors < 5, "asked again only after another roll_bytes"
    for n in range(5, 10):
        call(writer, f"r{n}")
    writer.shutdown()
    assert len(files(tmp_path)) > 1
    assert sorted(each.request_id for each in records(tmp_path)) == [f"r{n}" for n in range(10)]


@pytest.mark.parametrize("on_error", ["pass", "refuse"])
def test_a_journal_that_was_shut_down_takes_no_call(tmp_path: Path, on_error: str) -> None:
    """Else it would be relayed and never written down."""
    writer = journal(tmp_path, on_error=on_error)
    writer.shutdown()
    with pytest.raises(JournalError, match="shut down"):
        writer.open(opening("a"))
    assert writer.status.errors == writer.status.lost == 0


def test_a_second_shutdown_does_nothing(tmp_path: Path) -> None:
    writer = journal(tmp_path)
    call(writer, "a")
    writer.shutdown()
    before = files(tmp_path)[0].read_bytes()
    writer.shutdown()
    assert files(tmp_path)[0].read_bytes() == before


def test_calls_that_wait_when_the_process_ends_are_told_as_lost(tmp_path: Path, disk: Any) -> None:
    writer = journal(tmp_path)
    disk.full = True
    for n in range(3):
        call(writer, f"r{n}")
    writer.open(opening("open"))
    writer.shutdown()
    (status,) = [read_status(path) for path in tmp_path.glob("*.status")]
    assert status is not None
    assert (status.lost, status.unsaved, writer.status.lost) == (4, 0, 4)


def test_a_status_file_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.status").write_bytes(b"{")
    assert read_status(tmp_path / "a.status") is None
    assert read_status(tmp_path / "b.status") is None


def test_refuse_raises_before_anything_is_sent_and_keeps_what_was_sent(tmp_path: Path, disk: Any) -> None:
    writer = journal(tmp_path, on_error="refuse", buffer_records=1)
    places = [writer.open(opening(f"r{n}")) for n in range(4)]
    disk.full = True
    with pytest.raises(JournalError, match=r"cannot write the journal .*\.jsonl"):
        writer.open(opening("refused"))
    for n, place in enumerate(places):
        writer.close(place, record(f"r{n}"))
    disk.full = False
    call(writer, "after")
    assert [each.request_id for each in records(tmp_path)] == ["r0", "r1", "r2", "r3", "after"]
    assert writer.status.lost == 0


async def test_a_journal_in_trouble_tries_by_itself_and_tells_when_it_works(tmp_path: Path, disk: Any) -> None:
    writer = journal(tmp_path, on_error="refuse")
    disk.full = True
    with pytest.raises(JournalError):
        writer.open(opening("a"))
    assert not writer.status.healthy
    size = files(tmp_path)[0].stat().st_size
    disk.full = False
    while not writer.status.healthy:
        await asyncio.sleep(0.01)
    assert files(tmp_path)[0].stat().st_size == size
    writer.shutdown()


async def test_lines_that_wait_are_written_without_another_call(tmp_path: Path, disk: Any) -> None:
    writer = journal(tmp_path)
    disk.full = True
    for n in range(1_000):
        call(writer, f"r{n}")
    disk.full = False
    while not writer.status.healthy:
        await asyncio.sleep(0.01)
    assert [each.request_id for each in records(tmp_path)] == [f"r{n}" for n in range(1_000)]
    writer.shutdown()


def test_a_correction_is_a_close_line_alone_or_an_error(tmp_path: Path, disk: Any) -> None:
    writer = journal(tmp_path, "control")
    writer.append(record("a"))
    disk.full = True
    with pytest.raises(JournalError):
        writer.append(record("b"))
    disk.full = False
    writer.append(record("c"))
    assert [each.request_id for each in records(tmp_path)] == ["a", "c"]


def test_an_unusable_directory_is_refused_and_a_missing_one_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot make the journal's directory"):
        journal(tmp_path / "file" / "journal")
    call(journal(tmp_path / "a" / "b"), "x")
    assert len(records(tmp_path / "a" / "b")) == 1


async def test_lines_are_synced_within_the_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(durable, "sync_data", lambda fd: loop.call_soon_threadsafe(synced.set))
    writer = journal(tmp_path, fsync="interval", fsync_interval_ms=5)
    for _ in range(2):
        call(writer, "a")
        await asyncio.wait_for(synced.wait(), HANG_S)
        synced.clear()
    writer.shutdown()


async def test_everybody_waiting_for_durability_shares_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, syncs = threading.Semaphore(0), threading.Semaphore(0), []

    def sync(fd: int) -> None:
        syncs.append(os.fstat(fd).st_size)
        begun.release()
        go_on.acquire()

    writer = journal(tmp_path, fsync="always")
    monkeypatch.setattr(durable, "sync_data", sync)
    call(writer, "first")
    first = asyncio.ensure_future(writer.durable())
    await asyncio.to_thread(begun.acquire)
    for n in range(50):
        call(writer, f"r{n}")
    others = [asyncio.ensure_future(writer.durable()) for _ in range(50)]
    others[7].cancel()
    go_on.release()
    await first
    assert not any(other.done() for other in others[:7]), "a sync that began before their lines does not count"
    await asyncio.to_thread(begun.acquire)
    go_on.release()
    await asyncio.gather(*others[:7], *others[8:])
    assert syncs == [syncs[0], files(tmp_path)[0].stat().st_size]
    await writer.durable()
    assert len(syncs) == 2, "nothing new, nothing to sync"
    go_on.release()
    writer.shutdown()


async def test_a_failed_sync_is_an_error_where_refusal_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for on_error, count in (("pass", 1), ("refuse", 1)):
        writer = journal(tmp_path / on_error, fsync="always", on_error=on_error)
        call(writer, "a")
        with monkeypatch.context() as broken:
            broken.setattr(durable, "sync_data", sync)
            if on_error == "pass":
                await writer.durable()
            else:
                with pytest.raises(JournalError, match="cannot sync"):
                    await writer.durable()
        assert writer.status.errors == count
        writer.shutdown()


FULL_DISK = """
import resource, sys, time
from pathlib import Path
from journals import call, files, journal, opening, record
directory, bound = Path(sys.argv[1]), int(sys.argv[2])
writer = journal(directory, buffer_records=bound)
open_calls = [writer.open(opening(f"open{n}")) for n in range(3)]
size = files(directory)[0].stat().st_size
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 700, hard))
for n in range(20):
    call(writer, f"r{n}")
for n, place in enumerate(open_calls):
    writer.close(place, record(f"open{n}"))
print(writer.status.lost, flush=True)
if sys.stdin.readline() == "free\\n":
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    call(writer, "after")
    writer.shutdown()
    print(writer.status.lost, flush=True)
else:
    time.sleep(60)
"""


def test_a_real_size_limit_loses_to_the_record_what_it_says(tmp_path: Path) -> None:
    child = process(FULL_DISK, tmp_path, 5)
    output, _ = child.communicate(b"free\n")
    before, lost = map(int, output.split())
    assert before == lost > 0
    names = [each.request_id for each in records(tmp_path)]
    assert len(names) == len(set(names)) == 24 - lost
    assert {"open0", "open1", "open2", "after"} <= set(names)


def test_what_a_killed_writer_could_not_save_is_in_its_status(tmp_path: Path) -> None:
    child = process(FULL_DISK, tmp_path, 5)
    assert child.stdout is not None
    lost = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    child.communicate()
    (status,) = [read_status(path) for path in tmp_path.glob("*.status")]
    assert status is not None
    assert status.lost == lost
    on_disk = files(tmp_path)[0].read_bytes()
    with_a_line = {n for n in range(20) if b'"r%d"' % n in on_disk}
    assert status.unsaved + status.lost == 20 - len(with_a_line)


def test_a_status_file_that_the_disk_refuses_is_counted_when_it_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers = Writers(tmp_path)
    (living, dead) = (StatusFile(tmp_path, node="n", worker=name) for name in ("living", "dead"))
    living.status.lost, dead.status.lost, dead.status.unsaved = 2, 3, 1
    living.tell()
    dead.tell()
    writers.refresh()
    assert writers.lost == 5
    dead.release()

    def refused(_: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as refusing:
        refusing.setattr(Path, "read_bytes", refused)
        writers.refresh()
        assert writers.lost == 5
        assert dead.path.exists()
    for _ in range(2):
        writers.refresh()
        assert (writers.lost, dead.path.exists()) == (6, False)
    living.release()
