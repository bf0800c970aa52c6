"""Journal files that somebody removes, moves, replaces or cuts while they are written: no call is lost or doubled."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delivery.test_deliver import delivering, quick
from journals import MemorySink, call, files, journal, lines, opening, record, records, settled
from taximeter.core.lines import End
from taximeter.core.record import Outcome
from taximeter.journal import Journal, ending, taken, write
from taximeter.journal.ending import end
from taximeter.journal.files import lock_if_free
from taximeter.journal.status import read_status
from waits import happens

__all__ = ["quick"]


def remove(path: Path) -> None:
    path.unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace(path: Path) -> None:
    stranger = path.with_name("stranger")
    stranger.write_text("not a journal\n")
    stranger.replace(path)


def copy_over(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    copy.replace(path)


def remove_all(path: Path) -> None:
    shutil.rmtree(path.parent)


WAYS = pytest.mark.parametrize("take", [remove, move, replace, copy_over, remove_all])


async def looked(writer) -> None:
    """A round of looking after the files has ended."""
    await writer.durable()


@WAYS
@pytest.mark.parametrize("fsync", ["never", "interval", "always"])
async def test_a_file_taken_away_is_put_back_whole_under_its_name(
    tmp_path: Path, take: Callable[[Path], None], fsync: str, caplog: pytest.LogCaptureFixture
) -> None:
    writer = journal(tmp_path / "j", fsync=fsync)
    opened = writer.open(opening("open"))
    call(writer, "a")
    (path,) = files(tmp_path / "j")
    before = path.read_bytes()
    take(path)
    call(writer, "b")
    await looked(writer)
    assert path.read_bytes().startswith(before)
    assert lock_if_free(path) is None  # its writer lives, for whoever looks
    call(writer, "c")
    writer.close(opened, record("open"))
    writer.shutdown()
    assert [each.request_id for each in records(tmp_path / "j")] == ["a", "b", "c", "open"]
    assert isinstance(lines(path)[-1].end, End)
    assert (writer.status.repaired, writer.status.errors, writer.status.lost) == (1, 0, 0)
    assert "was taken away while it was being written; it is put back, whole" in caplog.text


async def test_what_stood_in_its_place_is_kept(tmp_path: Path) -> None:
    writer = journal(tmp_path)
    call(writer, "a")
    (path,) = files(tmp_path)
    replace(path)
    await looked(writer)
    assert path.with_name(f"{path.name}.replaced").read_text() == "not a journal\n"
    writer.shutdown()


@WAYS
def test_it_is_put_back_when_the_process_ends_right_after(tmp_path: Path, take: Callable[[Path], None]) -> None:
    writer = journal(tmp_path / "j")
    writer.open(opening("open"))
    call(writer, "a")
    (path,) = files(tmp_path / "j")
    take(path)
    writer.shutdown()
    assert [each.request_id for each in records(tmp_path / "j")] == ["a"]
    assert settled(path) == 1


async def test_an_older_file_with_open_calls_is_put_back_too(tmp_path: Path) -> None:
    writer = journal(tmp_path, roll_bytes=4_000)
    opened = writer.open(opening("first"))
    for n in range(20):
        call(writer, f"r{n}")
    assert len(files(tmp_path)) > 1
    opened.path.unlink()
    await looked(writer)
    writer.close(opened, record("first"))
    writer.shutdown()
    assert {each.request_id for each in records(tmp_path)} == {"first", *(f"r{n}" for n in range(20))}


async def test_a_disk_that_refuses_is_asked_again_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = journal(tmp_path)
    call(writer, "a")
    files(tmp_path)[0].unlink()
    with monkeypatch.context() as broken:
        broken.setattr(taken, "replace_lost", refuse)
        for n in range(3):
            call(writer, f"r{n}")
            await looked(writer)
    assert files(tmp_path) == []
    assert (writer.status.errors, writer.status.repaired) == (3, 0)
    assert caplog.text.count("cannot be put back yet") == 1
    await looked(writer)
    writer.shutdown()
    assert [each.request_id for each in records(tmp_path)] == ["a", "r0", "r1", "r2"]


@pytest.mark.parametrize("rolls", [True, False])
async def test_what_cannot_be_put_back_yet_is_kept_though_its_calls_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rolls: bool
) -> None:
    """Another file is begun meanwhile: closed, the lines of the old one would be gone with it."""

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = journal(tmp_path, roll_bytes=2_000)
    opened = writer.open(opening("first"))
    path = opened.path
    with monkeypatch.context() as broken:
        broken.setattr(taken, "replace_lost", refuse)
        if rolls:
            writer.close(opened, record("first"))
            path.unlink()
        for n in range(20):
            call(writer, f"r{n}")
        if not rolls:
            path.unlink()
            writer.close(opened, record("first"))
        await looked(writer)
        assert path not in files(tmp_path)
    await looked(writer)
    assert [each for each in writer._files.all if each.path == path] == []
    assert isinstance(lines(path)[-1].end, End)
    assert {each.request_id for each in records(tmp_path)} == {"first", *(f"r{n}" for n in range(20))}
    writer.shutdown()


async def test_whoever_ends_waits_for_the_disk_a_while(
    tmp_path: Path, disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines in its memory, and a file of which it has the only descriptor, would go with it."""
    held_up = asyncio.Event()

    def refuse(*_: object) -> int:
        held_up.set()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = journal(tmp_path)
    call(writer, "a")
    files(tmp_path)[0].unlink()
    disk.full = True
    call(writer, "b")
    with monkeypatch.context() as broken:
        broken.setattr(taken, "replace_lost", refuse)
        waiting = asyncio.create_task(end(writer))
        await held_up.wait()
        assert not waiting.done()
    disk.full = False
    await waiting
    assert [each.request_id for each in records(tmp_path)] == ["a", "b"]
    assert writer.status.lost == 0


async def test_it_does_not_wait_for_ever(tmp_path: Path, disk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "LAST_WAIT_S", 0.01)
    writer = journal(tmp_path)
    disk.full = True
    call(writer, "a")
    await end(writer)
    assert writer.status.lost == 1


async def test_others_are_told_even_where_all_of_the_directory_was_removed(tmp_path: Path) -> None:
    writer = journal(tmp_path / "j")
    call(writer, "a")
    shutil.rmtree(tmp_path / "j")
    await looked(writer)
    (status,) = map(read_status, (tmp_path / "j").glob("*.status"))
    assert status is not None
    assert (status.repaired, status.worker) == (1, "1")
    writer.shutdown()


async def test_a_writer_whose_status_alone_was_removed_does_not_count_as_gone(tmp_path: Path) -> None:
    writer = journal(tmp_path)
    call(writer, "a")
    (told,) = tmp_path.glob("*.status")
    told.unlink()
    await looked(writer)
    status = read_status(told)
    assert status is not None
    assert (status.repaired, status.worker) == (0, "1")
    assert lock_if_free(told) is None
    writer.shutdown()


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.62, 0.9])
async def test_a_file_that_was_cut_is_ended_and_calls_go_on_in_another(
    tmp_path: Path, kept: float, caplog: pytest.LogCaptureFixture
) -> None:
    writer = journal(tmp_path)
    opened = writer.open(opening("open"))
    for n in range(10):
        call(writer, f"r{n}")
    (path,) = files(tmp_path)
    os.truncate(path, int(path.stat().st_size * kept))
    left = path.read_bytes()
    await looked(writer)
    call(writer, "after")
    writer.close(opened, record("open"))
    writer.shutdown()
    (other,) = set(files(tmp_path)) - {path}
    assert [line.close.request_id for line in lines(other) if line.close] == ["after", "open"]
    assert writer.status.repaired == 1
    assert "was cut by somebody" in caplog.text
    if kept:
        assert isinstance(lines(path)[-1].end, End)  # nobody settles as interrupted what ended in the other file
        assert settled(path) == 0
        whole = [line for line in left[: left.rfind(b"\n") + 1].splitlines() if line.startswith(b'{"close":')]
        assert len([line for line in lines(path) if line.close]) == len(whole) > 0


@pytest.mark.parametrize("take", [remove, move, remove_all])
async def test_an_idle_writer_looks_after_its_files_too(tmp_path: Path, take, monkeypatch) -> None:
    """No call comes where a load balancer leaves a node alone that is not ready."""
    monkeypatch.setattr(write, "ATTEND_S", 0.01)
    writer = journal(tmp_path / "j")
    call(writer, "a")
    await looked(writer)
    (path,) = files(tmp_path / "j")
    take(path)
    async with asyncio.TaskGroup() as group:
        attending = group.create_task(writer.attend())
        await happens(lambda: writer.status.repaired == 1 and path.exists(), "the file put back")
        attending.cancel()
    assert [each.request_id for each in records(tmp_path / "j")] == ["a"]
    writer.shutdown()


async def test_a_directory_that_is_gone_is_made_anew_and_said_once(tmp_path: Path, quick, caplog) -> None:
    """Its missing was told again and again, with a traceback each time, for half a processor."""
    sink, directory = MemorySink(), tmp_path / "j"
    async with delivering(directory, sink) as delivery:
        for name in ("a", "b"):
            writer = journal(directory)
            call(writer, name)
            writer.shutdown()
            assert (await delivery.drain(30)).complete
            if name == "a":
                shutil.rmtree(directory)
                await happens(directory.exists, "the directory")
    assert sink.names == ["a", "b"]
    assert sum(each.getMessage().startswith("the journals' directory") for each in caplog.records) == 1
    assert [each for each in caplog.records if each.exc_info] == []


@pytest.mark.parametrize("take", [remove, move, remove_all])
async def test_every_call_reaches_the_sinks_once_whatever_is_taken_away_meanwhile(
    tmp_path: Path, quick, take: Callable[[Path], None]
) -> None:
    sink, directory, names = MemorySink(), tmp_path / "j", [f"r{n}" for n in range(400)]
    writer = Journal(directory, node="n", worker="1", settings=journal_settings(), now_us=lambda: 0, batched=True)
    async with delivering(directory, sink) as delivery:
        for n, name in enumerate(names):
            call(writer, name)
            if n % 40 == 20:
                await asyncio.sleep(0)
                for path in files(directory):
                    if path.exists():
                        take(path)
            if n % 25 == 0:
                await looked(writer)
        await looked(writer)
        assert (await delivery.drain(30)).complete
        writer.shutdown()
        assert (await delivery.drain(30)).complete
        assert delivery.health().halted == {}
    assert sink.names == names
    assert all(each.outcome is Outcome.OK for each in sink.applied)
    assert writer.status.repaired >= 5


def journal_settings():
    from taximeter.config import JournalSettings

    return JournalSettings(fsync="interval", fsync_interval_ms=5)
