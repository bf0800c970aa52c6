"""Records that one sink cannot take: found, set aside for that sink alone, passed, taken later; each once, always."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delivery.test_deliver import delivering, quick, until
from journals import AT, KeepingSink, MemorySink, closing, digest_upto, process, written
from present import present
from taximeter.core.lines import End, Line
from taximeter.core.record import Record
from taximeter.delivery.aside import Aside, Letter
from taximeter.journal import adopt
from taximeter.sinks.batch import Batch
from taximeter.sinks.unfit import Unfit, is_unfit

__all__ = ["quick"]
ID = "0123456789abcdef" * 2


class Picky(MemorySink):
    """One that cannot take some records, until told that it can; a batch with one of them has no effect at all."""

    def __init__(self, name: str = "picky", bad: Sequence[str] = (), *, durable: bool = True) -> None:
        super().__init__(name)
        self.durable = durable
        self.bad = set(bad)
        self.deliveries = 0

    async def deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
        self.deliveries += 1
        self._look(record for batch in batches for record in batch.records)
        return await super().deliver(batches)

    async def retake(self, records: Sequence[Record]) -> None:
        self._look(records)
        self.applied += records

    def _look(self, records) -> None:
        for record in records:
            if record.request_id in self.bad:
                raise Unfit(f"cannot take {record.request_id}")


class PickyKeeper(Picky, KeepingSink):
    """One that keeps journals, too."""


def journal_of(directory: Path, count: int, journal_id: str = ID, *, ended: bool = False) -> Path:
    lines = [closing(journal_id, seq) for seq in range(1, count + 1)]
    return written(directory, [*lines, *([Line(end=End(seq=count, at=AT))] if ended else [])], journal_id)


def names(count: int) -> list[str]:
    return [f"r{seq}" for seq in range(1, count + 1)]


FEW = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@FEW
@given(bad=st.sets(st.integers(1, 40), max_size=12))
def test_every_other_record_arrives_and_each_bad_one_is_set_aside(tmp_path_factory, quick, bad: set[int]) -> None:
    asyncio.run(one_run(tmp_path_factory.mktemp("journal"), {f"r{seq}" for seq in bad}))


async def one_run(directory: Path, bad: set[str]) -> None:
    path = journal_of(directory, 40)
    sink, other = PickyKeeper("history", bad=sorted(bad)), MemorySink("other")
    async with delivering(directory, sink, other) as delivery:
        assert (await delivery.drain(30, ["history", "other"])).complete
        assert sink.names == [name for name in names(40) if name not in bad]
        assert other.names == names(40)
        assert {letter.record.request_id for letter in delivery.aside.letters("history")} == bad
        health = delivery.health().sinks
        assert (health["history"].set_aside, health["history"].set_aside_records) == (len(bad), len(bad))
        assert (health["other"].set_aside, health["history"].failing) == (0, None)
        for batch in sink.batches:
            assert batch.digest == digest_upto(path, batch.upto)
        assert sink.states[ID].seq == 40


async def test_an_outage_sets_nothing_aside(tmp_path: Path) -> None:
    journal_of(tmp_path, 5)
    sink = MemorySink()
    failures = iter([ConnectionError("away")] * 8)

    def away(moment: str) -> None:
        if moment == "before" and (error := next(failures, None)) is not None:
            raise error

    sink.trouble = away
    async with delivering(tmp_path, sink) as delivery:
        assert (await delivery.drain(30)).complete
        assert sink.names == names(5)
        assert delivery.aside.letters() == []
        assert delivery.health().sinks["history"].errors == 8


async def test_an_outage_while_a_bad_record_is_looked_for_loses_and_doubles_nothing(tmp_path: Path) -> None:
    journal_of(tmp_path, 30)
    sink = Picky("history", ["r17"])
    dice = random.Random(7)

    def flaky(moment: str) -> None:
        if dice.random() < 0.2:
            raise ConnectionError(moment)

    sink.trouble = flaky
    async with delivering(tmp_path, sink) as delivery:
        assert (await delivery.drain(30)).complete
        assert sink.names == [name for name in names(30) if name != "r17"]
        assert [letter.key for letter in delivery.aside.letters()] == [f"history/{ID}:17"]


async def test_a_cursor_that_cannot_be_moved_is_no_records_fault(tmp_path: Path) -> None:
    journal_of(tmp_path, 3)
    sink = MemorySink()

    def broken(moment: str) -> None:
        if moment == "before":
            raise ValueError("nothing can be written")

    sink.trouble = broken
    async with delivering(tmp_path, sink) as delivery:
        await until(delivery, lambda: delivery.health().sinks["history"].errors > 2)
        assert sink.at == {}
        assert len(delivery.aside.letters()) == 1  # tried once, and then the cursor did not pass it
        sink.trouble = lambda moment: None
        assert (await delivery.drain(30)).complete
        assert sink.names == ["r2", "r3"]
        assert (await delivery.replay()).failed.keys() == {f"history/{ID}:1"}  # this sink cannot take any later


async def test_records_set_aside_are_taken_when_asked_for_once(tmp_path: Path) -> None:
    journal_of(tmp_path, 10)
    sink = Picky("history", ["r3", "r7"])
    async with delivering(tmp_path, sink) as delivery:
        await delivery.drain(30)
        key3, key7 = (f"history/{ID}:{seq}" for seq in (3, 7))
        again = await delivery.replay()
        assert (again.replayed, set(again.failed)) == (0, {key3, key7})
        sink.bad = {"r3"}
        again = await delivery.replay([key7, "history/none:1"])
        assert (again.replayed, again.failed) == (1, {"history/none:1": "there is no such letter"})
        sink.bad = set()
        assert (await delivery.replay()).replayed == 1
        assert sorted(sink.names) == sorted(names(10))
        assert (await delivery.replay()).replayed == 0
        assert delivery.health().sinks["history"].set_aside_records == 0


async def test_a_restart_knows_what_was_set_aside_and_never_delivers_it_in_turn(tmp_path: Path) -> None:
    journal_of(tmp_path, 10)
    first = Picky("history", ["r4"])
    async with delivering(tmp_path, first) as delivery:
        await delivery.drain(30)
    again = Picky("history")  # one that lost everything, and could take it now
    async with delivering(tmp_path, again) as delivery:
        await delivery.drain(30)
        assert again.names == [name for name in names(10) if name != "r4"]
        assert (await delivery.replay()).replayed == 1
    assert sorted(again.names) == sorted(names(10))


async def test_a_letter_whose_record_is_still_to_come_waits(tmp_path: Path) -> None:
    path = journal_of(tmp_path, 3)
    Aside(tmp_path).put(Letter(sink="history", problem="p", set_aside_at=1, record=present(closing(ID, 9).close)))
    sink = Picky("history")
    async with delivering(tmp_path, sink) as delivery:
        await delivery.drain(30)
        again = await delivery.replay()
        assert again.replayed == 0
        assert "not come so far" in again.failed[f"history/{ID}:9"]
    assert path.exists()


async def test_a_sink_that_keeps_nothing_leaves_no_letter(tmp_path: Path) -> None:
    journal_of(tmp_path, 3)
    sink = Picky("live", ["r2"], durable=False)
    async with delivering(tmp_path, sink) as delivery:
        await delivery.drain(30, ["live"])
        assert sink.names == ["r1", "r3"]
        assert delivery.aside.letters() == []
        assert delivery.health().sinks["live"].set_aside == 1


async def test_the_files_of_an_adopted_node_bring_their_letters(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    journal_of(theirs, 5, ended=True)
    sink = Picky("history", ["r2"])
    async with delivering(theirs, sink, keep_s=3600) as delivery:
        await delivery.drain(30)
    adopt(theirs, ours)
    assert Aside(theirs).letters() == []
    sink.bad = set()
    async with delivering(ours, sink) as delivery:
        await delivery.drain(30)
        assert (await delivery.replay()).replayed == 1
    assert sorted(sink.names) == names(5)


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from delivery.test_aside import Picky
from journals import now_us
from taximeter.config import JournalSettings
from taximeter.delivery import Delivery, aside
import msgspec

directory, moment = Path(sys.argv[1]), sys.argv[2]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if moment == "before the letter":
    aside.Aside.put = die
if moment == "after the letter":
    put = aside.Aside.put
    aside.Aside.put = lambda self, letter: (put(self, letter), die())
delivery = Delivery(directory, [Picky("history", ["r3"])], settings=JournalSettings(), node="n", now_us=now_us)
asyncio.run(delivery.run())
"""


@pytest.mark.parametrize("moment", ["before the letter", "after the letter"])
async def test_killed_between_the_steps_nothing_is_lost_or_counted_twice(tmp_path: Path, moment: str) -> None:
    journal_of(tmp_path, 6)
    with process(KILLED, tmp_path, moment) as running:
        try:
            assert await asyncio.to_thread(running.wait, 60) == -signal.SIGKILL
        finally:
            running.kill()
    assert [letter.record.request_id for letter in Aside(tmp_path).letters()] == (["r3"] if "after" in moment else [])
    sink = Picky("history", [] if "after" in moment else ["r3"])  # what could be taken now stays aside all the same
    async with delivering(tmp_path, sink) as delivery:
        await delivery.drain(30)
        assert sink.names == [name for name in names(6) if name != "r3"]
        sink.bad = set()
        assert (await delivery.replay()).replayed == 1
    assert sorted(sink.names) == names(6)


def test_an_unreadable_letter_hides_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    aside = Aside(tmp_path)
    aside.put(Letter(sink="s", problem="p" * 10_000, set_aside_at=1, record=present(closing(ID, 1).close)))
    (tmp_path / "aside" / f"{ID}.2.s.letter").write_bytes(b"{")
    (tmp_path / "aside" / "what.letter").write_bytes(b"{}")
    again = Aside(tmp_path)
    assert [letter.key for letter in again.letters()] == [f"s/{ID}:1"]
    assert len(again.letters()[0].problem) == 500
    assert again.seqs["s", ID] == {1, 2}
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("error", "unfit"),
    [
        (Unfit("x"), True), (ValueError("x"), True), (OverflowError("x"), True), (KeyError("x"), True),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "x"), True), (RecursionError("x"), True),
        (ConnectionError("x"), False), (OSError(28, "full"), False), (TimeoutError(), False),
        (RuntimeError("x"), False), (MemoryError(), False), (asyncio.CancelledError(), False),
    ],
)  # fmt: skip
def test_what_is_about_the_records_is_told_from_an_outage(error: BaseException, unfit: bool) -> None:
    assert is_unfit(error) is unfit
