"""Delivery against real files and a sink at the seam: every record once, whatever fails."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from journals import (
    AT,
    KeepingSink,
    MemorySink,
    call,
    closing,
    digest_upto,
    files,
    journal,
    now_us,
    opening,
    process,
    record,
    written,
)
from taximeter.config import JournalSettings
from taximeter.control.services.live import Live
from taximeter.core.errors import JournalError
from taximeter.core.lines import End, Line
from taximeter.core.record import Outcome
from taximeter.delivery import Delivery, feed, follow, shipper
from taximeter.journal import Journal, adopt, tail
from taximeter.sinks.batch import Batch
from taximeter.sinks.query import Filters
from taximeter.sinks.sink import JournalState, Sink
from waits import HANG_S

ID = "0123456789abcdef" * 2


@asynccontextmanager
async def delivering(directory: Path, *sinks: Sink, **settings: object) -> AsyncIterator[Delivery]:
    delivery = Delivery(directory, sinks, settings=msgspec.convert(settings, JournalSettings), node="n", now_us=now_us)
    task = asyncio.ensure_future(delivery.run())
    try:
        yield delivery
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            raise task.exception() or AssertionError("delivery ended by itself")


async def until(delivery: Delivery, done: object) -> None:
    """Wait, without a clock, until a condition holds; every look at the files and every answer lets it be checked."""
    async with asyncio.timeout(HANG_S):
        while not done():  # type: ignore[operator]
            await delivery._follower.moves.wait()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same waits, shorter."""
    monkeypatch.setattr(shipper, "BACK_OFF_S", (0.001, 0.01))
    monkeypatch.setattr(follow, "TEND_S", 0.02)
    monkeypatch.setattr(follow, "TIDY_S", 0.02)


def writer_id(directory: Path) -> str:
    (path,) = files(directory)
    return path.stem


def sinks_of(count: int) -> list[MemorySink]:
    return [MemorySink(f"sink{n}") for n in range(count)]


async def test_a_drain_sees_every_call_closed_before_it(tmp_path: Path) -> None:
    writer, sink = journal(tmp_path), MemorySink()
    async with delivering(tmp_path, sink) as delivery:
        for n in range(200):
            call(writer, f"r{n}")
            if n % 10 == 0:
                drained = await delivery.drain(10)
                assert (drained.complete, drained.lag_seconds) == (True, 0)
                assert sink.names == [f"r{each}" for each in range(n + 1)]


async def test_a_drain_sees_a_journal_that_began_just_before_it(tmp_path: Path) -> None:
    sink = MemorySink()
    async with delivering(tmp_path, sink) as delivery:
        for n in range(20):
            writer = journal(tmp_path, str(n))
            call(writer, f"r{n}")
            assert (await delivery.drain(10)).complete
            assert len(sink.names) == n + 1


async def test_a_drain_is_bounded_and_tells_how_old_the_oldest_record_is(tmp_path: Path) -> None:
    writer, sink = journal(tmp_path), MemorySink()

    def down(moment: str) -> None:
        raise ConnectionError("down")

    sink.trouble = down
    async with delivering(tmp_path, sink) as delivery:
        settled = record("r")
        settled.ended_at = now_us() - 60_000_000
        writer.close(writer.open(opening("r")), settled)
        drained = await delivery.drain(0.05)
        assert not drained.complete
        assert 60 <= drained.lag_seconds < 90
        with pytest.raises(KeyError):
            await delivery.drain(1, ["nothing"])


async def test_records_reach_an_idle_sink_without_being_asked_for(tmp_path: Path) -> None:
    writer, sink = journal(tmp_path), MemorySink()
    async with delivering(tmp_path, sink) as delivery:
        await delivery.drain(10)
        call(writer, "a")
        await until(delivery, lambda: sink.names == ["a"])


async def test_batches_follow_each_other_and_carry_the_files_digest(tmp_path: Path) -> None:
    writer, sink = journal(tmp_path, roll_bytes=4_000), KeepingSink()
    async with delivering(tmp_path, sink) as delivery:
        for n in range(30):
            call(writer, f"r{n}")
            if n % 4 == 0:
                await delivery.drain(10)
        writer.shutdown()
        await until(delivery, lambda: all(state.ended for state in sink.states.values()))
        assert (await delivery.drain(10)).complete
    assert sorted(sink.names, key=lambda name: int(name[1:])) == [f"r{n}" for n in range(30)]
    for path in files(tmp_path):
        batches = [batch for batch in sink.batches if batch.journal_id == path.stem]
        assert [batch.after for batch in batches] == [0, *(batch.upto for batch in batches[:-1])]
        for batch in batches:
            assert [each.event_id for each in batch.records] == [
                f"{path.stem}:{seq}" for seq in range(batch.after + 1, batch.upto + 1)
            ]
            assert batch.digest == digest_upto(path, batch.upto)
        assert [batch.ended for batch in batches] == [False] * (len(batches) - 1) + [True]


async def test_the_end_is_told_apart_only_to_a_sink_that_keeps_journals(tmp_path: Path) -> None:
    writer, keeper, other = journal(tmp_path), KeepingSink(), MemorySink("other")
    async with delivering(tmp_path, keeper, other) as delivery:
        call(writer, "a")
        await delivery.drain(10, ["history", "other"])
        writer.shutdown()
        await until(delivery, lambda: keeper.states[files(tmp_path)[0].stem].ended)
    assert [(len(batch.records), batch.ended) for batch in keeper.batches] == [(1, False), (0, True)]
    assert [(len(batch.records), batch.ended) for batch in other.batches] == [(1, False)]


@pytest.mark.parametrize("seed", range(12))
async def test_every_record_is_applied_once_to_every_sink_whatever_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Sinks fail before and after the effect and when asked; delivery is killed and begun again; files roll."""
    dice = random.Random(seed)
    monkeypatch.setattr(tail, "SLAB_BYTES", dice.choice([700, 5_000, 256 * 1024]))
    monkeypatch.setattr(follow, "BUFFER_RECORDS", dice.choice([1, 20, 8_192]))
    monkeypatch.setattr(feed, "MARK_RECORDS", dice.choice([1, 7, 256]))
    monkeypatch.setattr(shipper, "BATCH_RECORDS", dice.choice([1, 10, 1_000]))
    monkeypatch.setattr(shipper, "SLOW_S", dice.choice([0.0, 1.0]))
    sinks: list[MemorySink] = [KeepingSink(), *sinks_of(2)]

    def trouble(moment: str) -> None:
        if dice.random() < 0.3:
            raise ConnectionError(moment)

    for sink in sinks:
        sink.trouble = trouble
    writers = [journal(tmp_path, str(n), roll_bytes=dice.choice([2_000, 1_000_000])) for n in range(2)]
    open_calls = []
    count = 0
    for _ in range(4):
        async with delivering(tmp_path, *sinks) as delivery:
            for _ in range(60):
                writer = dice.choice(writers)
                open_calls.append((writer, writer.open(opening(f"r{count}")), f"r{count}"))
                count += 1
                if dice.random() < 0.8:
                    writer, place, name = open_calls.pop(dice.randrange(len(open_calls)))
                    writer.close(place, record(name))
                if dice.random() < 0.3:
                    await asyncio.sleep(0)
            if dice.random() < 0.5:
                await delivery.drain(0.02)
    for writer in writers:
        writer.shutdown()
    for sink in sinks:
        sink.trouble = lambda moment: None
    async with delivering(tmp_path, *sinks) as delivery:
        await until(delivery, lambda: delivery.in_flight() == 0 and len(sinks[0].names) == count)
        assert (await delivery.drain(20, [sink.name for sink in sinks])).complete
        health = delivery.health()
    for sink in sinks:
        assert sorted(sink.names) == sorted(f"r{n}" for n in range(count))
        interrupted = {each.request_id for each in sink.applied if each.outcome == Outcome.INTERRUPTED}
        assert interrupted == {name for _, _, name in open_calls}
    assert health.halted == {}
    assert {name: each.lag_records for name, each in health.sinks.items()} == {sink.name: 0 for sink in sinks}


async def test_a_sink_that_fails_holds_nobody_up_and_gets_everything_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "BUFFER_RECORDS", 50)
    writer, good, bad = journal(tmp_path), MemorySink(), MemorySink("bad")
    down = True

    def trouble(moment: str) -> None:
        if down:
            raise ConnectionError("down")

    bad.trouble = trouble
    async with delivering(tmp_path, good, bad) as delivery:
        for n in range(1_000):
            call(writer, f"r{n}")
        assert (await delivery.drain(10)).complete
        assert len(good.names) == 1_000
        health = delivery.health().sinks["bad"]
        assert (health.lag_records, health.failing) == (None, "ConnectionError: down")
        assert health.errors > 0
        assert health.lag_seconds > 0
        down = False
        assert (await delivery.drain(10, ["bad"])).complete
        assert bad.names == good.names
        assert delivery.health().sinks["bad"].failing is None


async def test_while_it_is_held_every_sink_is_seen_to_get_nothing(tmp_path: Path) -> None:
    """An alert looks at errors and lag: a node that cannot begin must not look up to date."""
    writer, sink = journal(tmp_path), MemorySink("history")

    async def history_is(journal_ids: Iterable[str]) -> dict[str, int]:
        for _ in range(100):  # history has every chance to be first
            if not sink.names:
                await asyncio.sleep(0.001)
        return await sink.cursors(journal_ids)

    begins_there = Live(history_is)
    call(writer, "r1")
    delivery = Delivery(
        tmp_path, [sink, begins_there], settings=JournalSettings(), node="n", now_us=lambda: now_us() + 9_000_000
    )
    delivery.hold("no history")
    task = asyncio.ensure_future(delivery.run())
    await until(delivery, lambda: delivery.health().lag_seconds and delivery.health().sinks[sink.name].errors > 1)
    told = delivery.health().sinks[sink.name]
    assert (told.failing, told.lag_records, sink.names) == ("NotBegun: no history", None, [])
    with begins_there.watch(Filters()) as seen:
        await delivery.release()
        await until(delivery, lambda: sink.names == ["r1"])
        shown = await seen.next(3)
    assert shown is not None and shown.request_id == "r1", "though history had it before"
    assert delivery.health().sinks[sink.name].failing is None
    task.cancel()
    await asyncio.wait([task])


async def test_memory_is_bounded_while_a_sink_is_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "BUFFER_RECORDS", 100)
    monkeypatch.setattr(tail, "SLAB_BYTES", 10_000)
    go_on = asyncio.Event()

    class Slow(MemorySink):
        async def deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
            await go_on.wait()
            return await super().deliver(batches)

    writer, slow = journal(tmp_path), Slow("slow")
    for n in range(1_000):
        call(writer, f"r{n}")
    (path,) = files(tmp_path)
    async with delivering(tmp_path, slow) as delivery:
        only = delivery._files.by_id
        await until(delivery, lambda: path.stem in only and only[path.stem].buffered >= 100)
        assert only[path.stem].buffered < 100 + 10_000 // 200
        assert only[path.stem].seq < 1_000, "a sink that keeps up is waited for, so that each record is decoded once"
        go_on.set()
        assert (await delivery.drain(10, ["slow"])).complete
        await until(delivery, lambda: only[path.stem].buffered == 0)
    assert len(slow.names) == 1_000


async def test_whoever_waits_for_a_slow_sink_waits_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is full, one sink has everything, one takes its time, a drain waits: to look at the files helps nobody."""
    monkeypatch.setattr(follow, "BUFFER_RECORDS", 10)
    monkeypatch.setattr(tail, "SLAB_BYTES", 10_000)
    monkeypatch.setattr(follow, "TEND_S", 60.0)
    go_on = asyncio.Event()

    class Slow(MemorySink):
        async def deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
            await go_on.wait()
            return await super().deliver(batches)

    writer, quick, slow = journal(tmp_path), MemorySink("quick"), Slow("slow")
    for n in range(200):
        call(writer, f"r{n}")
    async with delivering(tmp_path, quick, slow) as delivery:
        follower = delivery._follower
        await until(delivery, lambda: follower._held_up and quick.names)
        draining = asyncio.ensure_future(delivery.drain(10, ["slow"]))
        await until(delivery, lambda: True)
        before = follower._looks
        for _ in range(300):  # turns of the loop
            await asyncio.sleep(0)
        assert follower._looks - before < 10
        go_on.set()
        assert (await draining).complete
    assert len(slow.names) == 200


async def test_a_sink_gets_no_two_batches_at_a_time_and_sinks_go_on_side_by_side(tmp_path: Path) -> None:
    meeting = asyncio.Barrier(2)

    class Meeting(MemorySink):
        inside = 0

        async def deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
            assert self.inside == 0
            self.inside = 1
            async with asyncio.timeout(HANG_S):
                await meeting.wait()
            self.inside = 0
            return await super().deliver(batches)

    writer, one, two = journal(tmp_path), Meeting("one"), Meeting("two")
    call(writer, "a")
    async with delivering(tmp_path, one, two) as delivery:
        assert (await delivery.drain(10, ["one", "two"])).complete


async def test_a_sink_that_was_ahead_of_its_answer_is_counted_as_skipping(tmp_path: Path) -> None:
    """Another delivery (the old control process, still ending) applied the batch first."""
    writer, sink = journal(tmp_path), MemorySink()
    for n in range(5):
        call(writer, f"r{n}")
    (path,) = files(tmp_path)

    class Raced(MemorySink):
        async def deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
            if not self.applied:
                (batch,) = batches
                self.apply(Batch(journal_id=path.stem, after=0, upto=3, records=batch.records[:3]))
            return await super().deliver(batches)

    sink = Raced()
    async with delivering(tmp_path, sink) as delivery:
        assert (await delivery.drain(10)).complete
        assert delivery.health().sinks["history"].duplicates_skipped == 3
    assert sink.names == [f"r{n}" for n in range(5)]


async def test_a_sink_that_lost_its_data_gets_everything_again(tmp_path: Path) -> None:
    writer, sink, other = journal(tmp_path), MemorySink(), MemorySink("other")
    async with delivering(tmp_path, sink, other) as delivery:
        for n in range(5):
            call(writer, f"r{n}")
        assert (await delivery.drain(10)).complete
        sink.at.clear()
        sink.applied.clear()
        call(writer, "r5")
        await until(delivery, lambda: len(sink.names) == 6)
    assert sink.names == other.names == [f"r{n}" for n in range(6)]


async def test_a_sink_that_went_back_is_asked_though_nothing_more_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipper, "ASK_AGAIN_S", 0.05)
    writer, sink = journal(tmp_path), MemorySink()
    for n in range(5):
        call(writer, f"r{n}")
    async with delivering(tmp_path, sink) as delivery:
        assert (await delivery.drain(10)).complete
        sink.at[writer_id(tmp_path)] = 2  # another node did that to it
        del sink.applied[2:]
        await until(delivery, lambda: len(sink.names) == 5)
    assert sink.names == [f"r{n}" for n in range(5)]


async def test_a_sink_that_lost_an_ended_journal_nobody_had_to_read_gets_it_again(tmp_path: Path) -> None:
    writer, sink, other = journal(tmp_path), MemorySink(), MemorySink("other")
    for n in range(5):
        call(writer, f"r{n}")
    writer.shutdown()
    async with delivering(tmp_path, sink, other) as delivery:
        assert (await delivery.drain(10, ["history", "other"])).complete
    (path,) = files(tmp_path)
    failed = False

    def trouble(moment: str) -> None:
        nonlocal failed
        if failed:
            failed = False
            raise ConnectionError("a failover")

    sink.trouble = trouble
    async with delivering(tmp_path, sink, other) as delivery:
        assert (await delivery.drain(10)).complete
        assert delivery._files.by_id[path.stem].tail.calls == {}
        sink.at[path.stem] = 2
        del sink.applied[2:]
        failed = True
        call(journal(tmp_path), "more")
        await until(delivery, lambda: len(sink.names) == 6)
    assert sorted(sink.names) == sorted(other.names) == ["more", *(f"r{n}" for n in range(5))]


async def test_a_sink_that_applies_nothing_is_failing(tmp_path: Path) -> None:
    class Stubborn(MemorySink):
        def apply(self, batch: Batch) -> None:
            pass

    writer, sink = journal(tmp_path), Stubborn()
    call(writer, "a")
    async with delivering(tmp_path, sink) as delivery:
        await until(delivery, lambda: delivery.health().sinks["history"].errors > 2)
        assert delivery.health().sinks["history"].failing == "NoProgress: sink history applied nothing of 1 batches"


async def test_a_dead_writers_calls_are_settled_and_its_file_ended(tmp_path: Path) -> None:
    writer, sink = journal(tmp_path), KeepingSink()
    async with delivering(tmp_path, sink) as delivery:
        writer.open(opening("open", track="t"))
        call(writer, "closed")
        await delivery.drain(10)
        assert (delivery.in_flight(), delivery.in_flight("acme", "t"), delivery.in_flight("acme", "u")) == (1, 1, 0)
        waiting = asyncio.ensure_future(delivery.settled("t", 30))
        writer.shutdown()
        assert await waiting
        await until(delivery, lambda: len(sink.names) == 2)
        assert delivery.health().settled == 1
    assert [each.outcome for each in sink.applied] == [Outcome.OK, Outcome.INTERRUPTED]


async def test_waiting_for_a_track_is_bounded(tmp_path: Path) -> None:
    writer = journal(tmp_path)
    place = writer.open(opening("open", track="t"))
    async with delivering(tmp_path, MemorySink()) as delivery:
        assert not await delivery.settled("t", 0.05)
        assert not await delivery.settled("t", 0.05, "acme")
        assert await delivery.settled("t", 10, "other")
        assert await delivery.settled("u", 10)
        writer.close(place, record("open", track="t"))
        assert await delivery.settled("t", 10)


WORKER = """
import random, sys, time
from pathlib import Path
from journals import journal, opening, record
dice = random.Random(int(sys.argv[2]))
writer = journal(Path(sys.argv[1]), roll_bytes=30_000)
calls = {}
for n in range(100_000):
    if calls and dice.random() < 0.5:
        name = dice.choice(list(calls))
        writer.close(calls.pop(name), record(name))
    else:
        name = f"{sys.argv[2]}-{n}"
        calls[name] = writer.open(opening(name))
    time.sleep(0.0002)
"""


async def test_workers_killed_under_load_leave_every_call_with_one_record(tmp_path: Path) -> None:
    sinks = [KeepingSink(), *sinks_of(1)]
    async with delivering(tmp_path, *sinks) as delivery:
        for seed in range(3):
            child = process(WORKER, tmp_path, seed)
            await until(delivery, lambda seed=seed: sum(name.startswith(f"{seed}-") for name in sinks[0].names) > 100)
            child.send_signal(signal.SIGKILL)
            child.communicate()
            assert await delivery.drain(10)
        await until(
            delivery, lambda: delivery.in_flight() == 0 and not delivery._files.by_id.keys() - sinks[0].at.keys()
        )
        await until(delivery, lambda: all(each.ended for each in delivery._files.by_id.values()))
        assert (await delivery.drain(10, [sink.name for sink in sinks])).complete
    opened = [
        line.open.request_id
        for path in files(tmp_path)
        for line in (msgspec.json.decode(each, type=Line) for each in path.read_bytes().splitlines())
        if line.open is not None
    ]
    for sink in sinks:
        assert sorted(sink.names) == sorted(opened)


async def test_two_deliveries_at_once_apply_and_settle_everything_once(tmp_path: Path) -> None:
    """The old control process still ends while the new one begins."""
    sinks = [KeepingSink(), *sinks_of(1)]
    names = [sink.name for sink in sinks]
    async with delivering(tmp_path, *sinks) as old, delivering(tmp_path, *sinks) as new:
        for n in range(30):
            writer = journal(tmp_path, str(n))
            for m in range(20):
                call(writer, f"{n}-{m}")
            writer.open(opening(f"{n}-open"))
            writer.shutdown()
            await asyncio.sleep(0)
        await until(old, lambda: len(sinks[0].names) == 30 * 21)
        assert (await old.drain(10, names)).complete
        assert (await new.drain(10, names)).complete
        assert old.health().settled + new.health().settled == 30
        assert old.health().halted == new.health().halted == {}
    for sink in sinks:
        assert len(sink.names) == len(set(sink.names)) == 30 * 21


async def test_an_adopted_directory_is_delivered_from_where_each_sink_was(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    sink, other = KeepingSink(), MemorySink("other")
    writer = journal(theirs)
    for n in range(5):
        call(writer, f"r{n}")
    writer.open(opening("open"))
    async with delivering(theirs, sink) as delivery:
        assert (await delivery.drain(10)).complete
        writer.shutdown()
    async with delivering(ours, sink, other) as delivery:
        assert adopt(theirs, ours) == [sink.applied[0].event_id.partition(":")[0]]
        await until(delivery, lambda: len(other.names) == 6 and len(sink.names) == 6)
        assert delivery.health().halted == {}
    assert sink.names == other.names == [*(f"r{n}" for n in range(5)), "open"]


async def test_a_bad_line_is_skipped_and_alarmed_and_the_rest_delivered(tmp_path: Path) -> None:
    path = written(tmp_path, [closing(ID, n) for n in (1, 2, 3)], ID)
    path.write_bytes(path.read_bytes().replace(b'"request_id":"r2"', b'"request_id":!!!!'))
    sink = MemorySink()
    async with delivering(tmp_path, sink) as delivery:
        await until(delivery, lambda: sink.names == ["r1", "r3"])
        assert (await delivery.drain(10)).complete
        assert delivery.health().unreadable_lines == 1
    assert sink.at == {ID: 3}


async def test_an_ended_file_is_removed_when_durable_sinks_have_it_and_it_is_old(tmp_path: Path) -> None:
    keeper, durable, fleeting = KeepingSink(), MemorySink("redis"), MemorySink("metrics", durable=False)
    down = True

    def trouble(moment: str) -> None:
        if down:
            raise ConnectionError("down")

    durable.trouble = fleeting.trouble = trouble
    old = written(tmp_path, [closing(ID, 1), Line(end=End(seq=1, at=AT))], ID)
    young_id = "f" * 32
    young = written(tmp_path, [closing(young_id, 1), Line(end=End(seq=1, at=now_us()))], young_id)
    async with delivering(tmp_path, keeper, durable, fleeting, keep_s=60) as delivery:
        assert (await delivery.drain(10)).complete
        assert old.exists()
        down = False
        await until(delivery, lambda: not old.exists())
        assert (await delivery.drain(10, ["history", "redis"])).complete
        assert young.exists()
        assert list(delivery._files.by_id) == [young_id]
    assert keeper.names == durable.names == ["r1", "r1"]


async def test_a_sink_that_went_back_gets_what_it_lost_before_the_file_is_removed(tmp_path: Path) -> None:
    keeper, durable = KeepingSink(), MemorySink("redis")
    went_back = False

    def trouble(moment: str) -> None:
        nonlocal went_back
        if moment == "cursors" and durable.applied and not went_back:
            went_back = True
            durable.at.clear()
            durable.applied.clear()

    durable.trouble = trouble
    old = written(tmp_path, [closing(ID, 1), Line(end=End(seq=1, at=AT))], ID)
    async with delivering(tmp_path, keeper, durable, keep_s=60) as delivery:
        await until(delivery, lambda: not old.exists())
    assert went_back
    assert durable.names == ["r1"]


async def test_a_deleted_journal_that_comes_back_is_known_and_not_counted_twice(tmp_path: Path) -> None:
    sink = KeepingSink()
    path = written(tmp_path / "journal", [closing(ID, 1), closing(ID, 2), Line(end=End(seq=2, at=AT))], ID)
    shutil.copy(path, tmp_path / "backup")
    async with delivering(path.parent, sink, keep_s=0) as delivery:
        await until(delivery, lambda: not path.exists())
        shutil.copy(tmp_path / "backup", path)
        await until(delivery, lambda: not path.exists())
        assert delivery.health().halted == {}
    assert sink.names == ["r1", "r2"]


async def test_a_journal_restored_from_a_copy_is_halted_and_alarmed(tmp_path: Path) -> None:
    """History knows three records of it; the copy has one, and a call open that closed long ago."""
    sink, other = KeepingSink(), MemorySink("other")
    lines = [closing(ID, 1), Line(open=opening("r2"))]
    path = written(tmp_path, [*lines, closing(ID, 2), closing(ID, 3)], ID)
    sink.states[ID] = JournalState(seq=3, digest=digest_upto(path, 3), ended=False)
    sink.at[ID] = 3
    before = written(tmp_path, lines, ID).read_bytes()
    async with delivering(tmp_path, sink, other) as delivery:
        await until(delivery, lambda: delivery.health().halted)
        (reason,) = delivery.health().halted.values()
        assert reason.endswith("it seems to be restored from a copy")
        drained = await delivery.drain(10)
        assert (drained.complete, drained.lag_seconds) == (False, 0)
        assert delivery.in_flight() == 0
    assert path.read_bytes() == before, "nothing is appended to a file that is not what it seems"
    assert sink.names == []


async def test_a_copy_that_went_on_differently_is_halted_not_swallowed(tmp_path: Path) -> None:
    sink = KeepingSink()
    path = written(tmp_path, [closing(ID, 1), closing(ID, 2)], ID)
    sink.states[ID] = JournalState(seq=2, digest=digest_upto(path, 2), ended=False)
    sink.at[ID] = 2
    written(tmp_path, [closing(ID, n, f"other{n}") for n in (1, 2, 3)], ID)
    async with delivering(tmp_path, sink) as delivery:
        await until(delivery, lambda: delivery.health().halted)
        assert "its bytes up to seq 2 are not those" in delivery.health().halted[path.name]
    assert sink.names == []


async def test_without_a_keeper_a_sink_ahead_of_the_file_halts_it(tmp_path: Path) -> None:
    sink = MemorySink()
    sink.at[ID] = 9
    path = written(tmp_path, [closing(ID, 1)], ID)
    async with delivering(tmp_path, sink) as delivery:
        await until(delivery, lambda: delivery.health().halted)
        assert "a sink has its records up to seq 9, but it ends at 1" in delivery.health().halted[path.name]


async def test_a_dead_file_waits_for_history_to_be_asked_before_anything_is_appended(tmp_path: Path) -> None:
    sink = KeepingSink()
    down = True

    def trouble(moment: str) -> None:
        if down:
            raise ConnectionError("down")

    sink.trouble = trouble
    path = written(tmp_path, [Line(open=opening("a"))], ID)
    before = path.read_bytes()
    async with delivering(tmp_path, sink) as delivery:
        await until(delivery, lambda: delivery.health().sinks["history"].errors > 3 and delivery.in_flight() == 1)
        assert path.read_bytes() == before
        down = False
        await until(delivery, lambda: sink.names == ["a"])


async def test_a_file_replaced_by_another_is_read_anew(tmp_path: Path) -> None:
    sink = MemorySink()
    path = written(tmp_path, [closing(ID, 1)], ID)
    async with delivering(tmp_path, sink) as delivery:
        assert (await delivery.drain(10)).complete
        fresh = written(tmp_path / "elsewhere", [closing(ID, 1), closing(ID, 2)], ID)
        os.replace(fresh, path)
        await until(delivery, lambda: sink.names == ["r1", "r2"])


async def test_a_file_removed_undelivered_is_forgotten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = MemorySink()

    def down(moment: str) -> None:
        raise ConnectionError("down")

    sink.trouble = down
    path = written(tmp_path, [closing(ID, 1), Line(open=opening("x"))], ID)
    async with delivering(tmp_path, sink) as delivery:
        await until(delivery, lambda: ID in delivery._files.by_id)
        path.unlink()
        await until(delivery, lambda: not delivery._files.by_id)
    assert "was removed before every sink had its records" in caplog.text


async def test_strange_files_are_told_and_do_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "notes.jsonl").write_text("hello\n")
    (tmp_path / f"{'a' * 32}.jsonl").write_text("hello\n")
    (tmp_path / f"{'b' * 32}.jsonl").write_bytes(b"")
    (tmp_path / "readme.txt").write_text("hello\n")
    writer, sink = journal(tmp_path), MemorySink()
    call(writer, "a")
    async with delivering(tmp_path, sink) as delivery:
        await until(delivery, lambda: sink.names == ["a"])
        await until(delivery, lambda: len(delivery.health().halted) == 2)
        assert delivery.health().halted == {
            "notes.jsonl": "its name is not a journal's",
            f"{'a' * 32}.jsonl": "its first line is not a journal's header",
        }
        await until(delivery, lambda: not (tmp_path / f"{'b' * 32}.jsonl").exists())


async def test_writers_troubles_are_told_while_they_live_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, other = journal(tmp_path), journal(tmp_path, "2")
    async with delivering(tmp_path, MemorySink()) as delivery:
        health = delivery.health()
        assert (health.journal_healthy, health.journal_errors, health.records_lost) == (True, 0, 0)
        assert sorted(status.worker for status in health.writers) == ["1", "2"]
        trouble(writer, monkeypatch)
        health = delivery.health()
        assert (health.journal_healthy, health.records_lost) == (False, 1)
        errors = health.journal_errors
        assert errors > 0
        monkeypatch.undo()
        writer.shutdown()
        health = delivery.health()
        assert (health.journal_healthy, health.journal_errors, health.records_lost) == (True, errors, 1)
        assert [status.worker for status in health.writers] == ["2"]
        assert len(list(tmp_path.glob("*.status"))) == 1
        other.shutdown()


def trouble(writer: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """One record lost: the buffer is full and the disk refuses."""

    def refuse(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer._lines.waiting, "_bound", 0)
    monkeypatch.setattr("taximeter.journal.file.os.write", refuse)
    call(writer, "lost")


async def test_files_whose_creation_was_cut_off_are_swept_away(tmp_path: Path) -> None:
    fresh, old = tmp_path / f".{'a' * 32}.jsonl.new", tmp_path / f".{'b' * 32}.jsonl.new"
    for path in (fresh, old):
        path.write_bytes(b"")
    os.utime(old, (1, 1))
    async with delivering(tmp_path, MemorySink()) as delivery:
        await until(delivery, lambda: not old.exists())
        assert fresh.exists()


def test_an_unusable_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot make the journal's directory"):
        Delivery(tmp_path / "file" / "journal", [], settings=JournalSettings(), node="n", now_us=now_us)
