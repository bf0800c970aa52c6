"""A journal file whose machine lost power: it is shorter than what sinks have of it, and goes on behind that."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from delivery.test_deliver import delivering, quick, until
from journals import AT, KeepingSink, MemorySink, closing, digest_upto, lines, now_us, opening, written
from taximeter.core.lines import Cut, End, Line
from taximeter.core.record import Outcome, Record
from taximeter.delivery import Delivery
from taximeter.journal.files import lock_if_free
from taximeter.journal.machine import boot_id, is_earlier
from taximeter.journal.mend import mend, rest_of
from taximeter.journal.read import departs
from taximeter.journal.tail import Tail
from taximeter.sinks.sink import JournalState

ID = "0123456789abcdef" * 2
__all__ = ["quick"]


def shortened(directory: Path, kept: int, *, boot: str = "another") -> tuple[Path, KeepingSink]:
    """A file with two calls, r1 and r2, and one that is open; of its lines so many are left. History has all of it."""
    first, second, third = (Line(open=opening(name)) for name in ("r1", "r2", "r3"))
    items = [first, closing(ID, 1), second, third, closing(ID, 2)]
    history = KeepingSink()
    path = written(directory, items, ID, boot)
    history.states[ID] = JournalState(seq=2, digest=digest_upto(path, 2), ended=False)
    history.at[ID] = 2
    history.applied = [item.close for item in items if item.close is not None]
    written(directory, items[:kept], ID, boot)
    return path, history


def is_verified(delivery: Delivery) -> bool:
    return any("history" in feed.verified for feed in delivery._files.by_id.values())


async def test_it_is_mended_and_every_sink_has_every_record_once(tmp_path: Path) -> None:
    path, history = shortened(tmp_path, 4)
    redis, webhook = MemorySink("redis"), MemorySink("webhook")
    redis.at[ID] = 1
    async with delivering(tmp_path, history, redis, webhook) as delivery:
        await until(delivery, lambda: {each.at.get(ID) for each in (history, redis, webhook)} == {3})
        await until(delivery, lambda: history.states[ID].ended)
        assert not delivery.health().halted
    assert (history.names, redis.names, webhook.names) == (["r1", "r2", "r3"], ["r2", "r3"], ["r1", "r2", "r3"])
    assert history.applied[-1].outcome is Outcome.INTERRUPTED
    assert lines(path)[-1].end is not None
    async with delivering(tmp_path, history, redis) as delivery:  # it is known again
        await until(delivery, lambda: is_verified(delivery))
        assert not delivery.health().halted


async def test_what_another_sink_had_taken_is_lost_and_no_other_record_is_taken_for_it(tmp_path: Path) -> None:
    path, history = shortened(tmp_path, 4)
    history.at[ID], history.applied = 1, history.applied[:1]
    history.states[ID] = JournalState(seq=1, digest=digest_upto(path, 1), ended=False)
    redis = MemorySink("redis")
    redis.at[ID] = 9
    async with delivering(tmp_path, history, redis) as delivery:
        await until(delivery, lambda: history.at[ID] == redis.at[ID] == 11)
    assert (history.names, redis.names) == (["r1", "r2", "r3"], ["r2", "r3"])
    assert [each.event_id for each in redis.applied] == [f"{ID}:10", f"{ID}:11"]


@pytest.mark.parametrize("known", [2, 3])
async def test_a_call_whose_end_was_torn_out_of_the_middle_is_not_settled_again(tmp_path: Path, known: int) -> None:
    """A page that was not written, before one that was; `known`: how far history had come."""
    opened = [Line(open=opening(name)) for name in ("r1", "r2", "r3", "r4")]
    closed = [closing(ID, 1), closing(ID, 2), closing(ID, 3)]
    history, redis = KeepingSink(), MemorySink("redis")
    path = written(tmp_path, [*opened, *closed], ID, "another")
    history.states[ID] = JournalState(seq=known, digest=digest_upto(path, known), ended=False)
    history.at[ID] = redis.at[ID] = known
    history.applied = [each.close for each in closed[:known] if each.close is not None]
    whole = path.read_bytes()
    start = whole.index(b'{"close":{"event_id":"%s:2"' % ID.encode())
    end = whole.index(b"\n", start)
    path.write_bytes(whole[:start] + bytes(end - start) + whole[end:])
    async with delivering(tmp_path, history, redis) as delivery:
        await until(delivery, lambda: history.states[ID].ended)
        assert not delivery.health().halted
    assert history.names == ["r1", "r2", "r3", "r4"]
    assert history.applied[-1].outcome is Outcome.INTERRUPTED
    history.states[ID] = JournalState(seq=known, digest="of what was before", ended=False)
    async with delivering(tmp_path, history, redis) as delivery:  # it is known again
        await until(delivery, lambda: is_verified(delivery))
        assert not delivery.health().halted
        assert not delivery.health().in_flight


async def test_mending_that_was_cut_short_settles_no_call_again(tmp_path: Path) -> None:
    """Control dies after any of its writes: the next one knows still which calls are over, though none of the lines
    written by then tells of those that were torn out of the middle."""
    opened = [Line(open=opening(name)) for name in ("r1", "r2", "r3", "r4", "r5")]
    closed = [closing(ID, n) for n in (1, 2, 3, 4)]
    path = written(tmp_path, [*opened, *closed], ID, "another")
    digest, records = digest_upto(path, 4), [each.close for each in closed if each.close is not None]
    *kept, _ = path.read_bytes().splitlines(keepends=True)
    kept[7] = bytes(len(kept[7]) - 1) + b"\n"  # of r2
    path.write_bytes(b"".join(kept))
    fd, tail = lock_if_free(path), Tail(path)
    assert fd is not None
    tail.read()
    mend(fd, tail, 6, records[1:], now_us=now_us())
    os.close(fd)
    appended = path.read_bytes().splitlines(keepends=True)[len(kept) :]
    assert len(appended) == 3
    for count in range(4):
        path.write_bytes(b"".join([*kept, *appended[:count]]))
        history, redis = KeepingSink(), MemorySink("redis")
        history.states[ID], history.at[ID] = JournalState(seq=4, digest=digest, ended=False), 4
        history.applied, redis.at[ID] = [*records], 6
        async with delivering(tmp_path, history, redis) as delivery:
            await until(delivery, lambda history=history: history.states[ID].ended)
            assert not delivery.health().halted
        assert history.names == ["r1", "r2", "r3", "r4", "r5"]
        assert (redis.names, redis.at[ID]) == (["r5"], 7)


async def test_it_waits_for_a_sink_that_does_not_answer(tmp_path: Path) -> None:
    path, history = shortened(tmp_path, 4)
    redis, down = MemorySink("redis"), True

    def trouble(_: str) -> None:
        if down:
            raise ConnectionError("down")

    redis.trouble = trouble
    before = path.read_bytes()
    async with delivering(tmp_path, history, redis) as delivery:
        await until(delivery, lambda: is_verified(delivery))
        for _ in range(3):
            await delivery._follower.look_now()
        assert path.read_bytes() == before
        down, redis.at[ID] = False, 5
        await until(delivery, lambda: redis.at[ID] == 6)
    assert (history.at[ID], redis.names) == (6, ["r3"])


@pytest.mark.parametrize(("kept", "boot"), [(4, ""), (4, boot_id()), (4, "forgotten")])
async def test_what_may_be_a_copy_is_halted(tmp_path: Path, kept: int, boot: str) -> None:
    """The machine was not started since, or that is not known, or history has forgotten single records of the time."""
    path, history = shortened(tmp_path, kept, boot=boot)
    history.remembers = boot != "forgotten"
    before = path.read_bytes()
    async with delivering(tmp_path, history) as delivery:
        await until(delivery, lambda: delivery.health().halted)
        assert "it seems to be restored from a copy" in delivery.health().halted[path.name]
    assert path.read_bytes() == before


async def test_one_that_had_ended_ends_where_it_did(tmp_path: Path) -> None:
    path, history = shortened(tmp_path, 3)
    history.states[ID] = JournalState(seq=2, digest=history.states[ID].digest, ended=True)
    redis = MemorySink("redis")
    async with delivering(tmp_path, history, redis) as delivery:
        await until(delivery, lambda: redis.at.get(ID) == 2 and lines(path)[-1].end is not None)
        assert not delivery.health().halted
    assert history.names == redis.names == ["r1", "r2"]
    assert lines(path)[-1].end == End(seq=2, at=lines(path)[-1].end.at)  # type: ignore[union-attr]


@pytest.mark.parametrize("kept", [4, 5])
async def test_one_that_had_ended_without_a_call_that_is_open_in_it_is_a_copy(tmp_path: Path, kept: int) -> None:
    """A power loss took the call, the file was ended, and then put back as it had been before: nothing is appended."""
    path, history = shortened(tmp_path, kept)
    history.states[ID] = JournalState(seq=2, digest=history.states[ID].digest, ended=True)
    before = path.read_bytes()
    async with delivering(tmp_path, history, MemorySink("redis")) as delivery:
        await until(delivery, lambda: delivery.health().halted)
        assert "it seems to be restored from a copy" in delivery.health().halted[path.name]
    assert path.read_bytes() == before


async def test_a_file_of_which_no_line_is_left_is_removed(tmp_path: Path) -> None:
    path, history = shortened(tmp_path, 4)
    path.write_bytes(path.read_bytes()[:20])
    async with delivering(tmp_path, history) as delivery:
        await until(delivery, lambda: not path.exists() and not delivery._files.by_id)
    assert history.names == ["r1", "r2"]


def mended(path: Path, known: int, lost: Sequence[Record]) -> Tail:
    fd = lock_if_free(path)
    assert fd is not None
    tail = Tail(path)
    tail.read()
    if tail.seq < known:
        mend(fd, tail, known, lost, now_us=now_us())
        tail.read()
    os.close(fd)
    return tail


def test_mending_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    path, history = shortened(tmp_path, 2)
    with path.open("ab") as file:
        file.write(b'{"close":{"ev')
    lost = [record for record in history.applied if record.event_id != f"{ID}:1"]
    assert mended(path, 2, lost).seq == 2
    whole = path.read_bytes()
    for cut in range(whole.index(b'{"cut":'), len(whole) + 1, 7):
        path.write_bytes(whole[:cut])
        tail = mended(path, 2, lost)
        assert (tail.seq, tail.unreadable, tail.broken) == (2, 0, None)
        assert path.read_bytes().count(b'{"close":{"event_id":"') == 2


def test_a_mended_file_departs_only_where_numbers_are_missing(tmp_path: Path) -> None:
    path, history = shortened(tmp_path, 2)
    mended(path, 5, history.applied)
    assert departs(path, 2, "its bytes were others", ended=False) is None
    assert departs(path, 2, "its bytes were others", ended=True) is None
    assert departs(path, 5, "its bytes were others", ended=False) is None
    assert departs(path, 6, "", ended=False) == "records up to seq 6 were delivered from it, but it ends before"
    assert rest_of(path) == ("another", 5, AT + 5, True, False, 2, AT + 5)


def test_what_is_left_of_a_file(tmp_path: Path) -> None:
    path = written(tmp_path, [closing(ID, 3), Line(cut=Cut(seq=7, at=AT)), Line(end=End(seq=7, at=AT))], ID, "b")
    assert rest_of(path) == ("b", 7, AT, True, True, 0, AT)
    path.write_bytes(path.read_bytes() + b'{"close":torn\n{"cut":torn\n')
    assert rest_of(path).seq == 7
    path.write_bytes(b"")
    assert rest_of(path) == ("", 0, 0, False, False, 0, 0)


def test_starts_of_a_machine_are_told_apart_where_they_are_known() -> None:
    assert is_earlier("a", "b")
    assert not any((is_earlier("a", "a"), is_earlier("", "b"), is_earlier("a", "")))


def test_a_system_that_tells_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taximeter.journal.machine._BOOT_ID", tmp_path / "none")
    assert boot_id() == ""
