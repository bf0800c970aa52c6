"""A child is started, replaced and given up on: with children that live and die as the test says."""

from __future__ import annotations

import asyncio
import signal

import pytest

from taximeter.core.errors import DataDirError
from taximeter.supervisor import keeper as module
from taximeter.supervisor.keeper import Keeper, StartError
from waits import HANG_S


class Child:
    """A managed child in the test's hand."""

    def __init__(self, pid: int, *, works: bool = True, obeys: bool = True) -> None:
        self.pid = pid
        self.ready = asyncio.Event()
        self.exited = asyncio.Event()
        self.code: int | None = None
        self.retired = False
        self.said = ""
        self._works, self._obeys = works, obeys

    async def watch(self) -> None:
        if self._works:
            self.ready.set()
        else:
            self.end(1)

    def check(self) -> int | None:
        return self.code

    def retire(self) -> None:
        self.retired = True

    def terminate(self) -> None:
        if self._obeys:
            self.end(0)

    def kill(self) -> None:
        self.end(-signal.SIGKILL)

    def end(self, code: int) -> None:
        self.code = code
        self.exited.set()


class Slot:
    """Children handed out one after another."""

    def __init__(self, *children: Child) -> None:
        self.children = list(children)
        self.started: list[Child] = []
        self.new = asyncio.Event()
        self.stopping = asyncio.Event()
        self.keeper = Keeper("worker 1", self.start, self.stopping)

    def start(self) -> Child:
        self.started.append(self.children.pop(0))
        self.new.set()
        return self.started[-1]

    async def next(self) -> Child:
        await asyncio.wait_for(self.new.wait(), HANG_S)
        self.new.clear()
        return self.started[-1]


async def test_a_child_that_dies_is_replaced_at_once(caplog: pytest.LogCaptureFixture) -> None:
    slot = Slot(Child(11), Child(12))
    run = asyncio.ensure_future(slot.keeper.run())
    (await slot.next()).end(-signal.SIGKILL)
    second = await slot.next()
    assert "worker 1 (process 11) was killed by SIGKILL; it is replaced" in caplog.text
    slot.stopping.set()
    await slot.keeper.end(10)
    await run
    assert (second.pid, second.code) == (12, 0)


async def test_a_child_that_is_never_ready_fails_the_start_after_three_attempts() -> None:
    slot = Slot(*(Child(pid, works=False) for pid in (1, 2, 3)))
    with pytest.raises(StartError, match=r"worker 1 does not start: it \(process 3\) ended with exit code 1"):
        await slot.keeper.run()


async def test_however_slowly_a_child_fails_to_get_ready_the_start_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEADY_S", 0.0)
    slot = Slot(*(Child(pid, works=False) for pid in (1, 2, 3)))
    with pytest.raises(StartError, match="worker 1 does not start"):
        await asyncio.wait_for(slot.keeper.run(), HANG_S)


async def test_what_cannot_even_be_started_fails_the_start_with_the_reason() -> None:
    def start() -> Child:
        raise DataDirError("no such disk")

    with pytest.raises(StartError, match="no such disk"):
        await Keeper("valkey", start, asyncio.Event()).run()


async def test_a_child_that_was_ready_once_is_never_given_up_but_restarted_ever_more_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delays: list[float] = []

    async def until(event: asyncio.Event, timeout_s: float) -> bool:
        delays.append(timeout_s)
        return event.is_set()

    monkeypatch.setattr(module, "within", until)
    slot = Slot(Child(1), *(Child(pid, works=False) for pid in range(2, 12)), Child(12))
    run = asyncio.ensure_future(slot.keeper.run())
    (await slot.next()).end(1)
    while slot.started[-1].pid != 12:
        await slot.next()
    assert delays == [0.4, 0.8, 1.6, 3.2, 6.4, *[10.0] * 5]
    slot.stopping.set()
    slot.started[-1].terminate()
    await run


async def test_a_child_that_does_not_obey_is_killed() -> None:
    slot = Slot(Child(1, obeys=False))
    run = asyncio.ensure_future(slot.keeper.run())
    child = await slot.next()
    slot.stopping.set()
    await slot.keeper.end(0.01)
    await run
    assert child.code == -signal.SIGKILL


async def test_a_slot_without_a_child_has_nothing_to_end() -> None:
    await Slot().keeper.end(1)


async def test_a_successor_takes_over_when_it_is_ready_and_the_one_before_may_end() -> None:
    slot = Slot(Child(1))
    run = asyncio.ensure_future(slot.keeper.run())
    first, second = await slot.next(), Child(2)
    await asyncio.wait_for(slot.keeper.ready.wait(), HANG_S)
    assert await slot.keeper.bring(lambda: second) == ""
    assert (slot.keeper.child, first.retired) == (first, False), "nothing has changed yet"
    slot.keeper.succeed()
    assert (slot.keeper.child, first.retired) == (second, True)
    first.end(0)
    slot.keeper.look()
    assert slot.keeper.children == [second]
    slot.stopping.set()
    await slot.keeper.end(10)
    await run
    assert second.code == 0


async def test_a_successor_that_does_not_start_changes_nothing_and_says_why() -> None:
    slot = Slot(Child(1))
    run = asyncio.ensure_future(slot.keeper.run())
    first, bad = await slot.next(), Child(2, works=False)
    bad.said = "no such file"
    assert await slot.keeper.bring(lambda: bad) == (
        "worker 1 does not start: it (process 2) ended with exit code 1; no such file."
    )
    assert (slot.keeper.child, slot.keeper.successor, first.retired) == (first, None, False)
    slot.stopping.set()
    await slot.keeper.end(10)
    await run


async def test_a_successor_that_dies_after_it_took_over_is_replaced_though_the_one_before_lives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    slot = Slot(Child(1), Child(3))
    run = asyncio.ensure_future(slot.keeper.run())
    first, second = await slot.next(), Child(2)
    await slot.keeper.bring(lambda: second)
    slot.keeper.succeed()
    second.end(-signal.SIGKILL)
    third = await slot.next()
    assert "worker 1 (process 2) was killed by SIGKILL; it is replaced" in caplog.text
    assert not first.exited.is_set(), "it has calls yet"
    slot.stopping.set()
    await slot.keeper.end(10)
    await run
    assert (third.code, first.code) == (0, 0)


async def test_a_slot_that_is_dismissed_while_its_child_waits_to_be_started_again_starts_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would go by the settings of that moment for ever, as no reload replaces it."""
    slot = Slot(Child(1), Child(2, works=False), Child(3, works=False), Child(4))

    async def until(_event: asyncio.Event, _timeout_s: float) -> bool:
        slot.keeper.dismiss()
        return False

    monkeypatch.setattr(module, "within", until)
    run = asyncio.ensure_future(slot.keeper.run())
    (await slot.next()).end(1)
    await asyncio.wait_for(run, HANG_S)
    assert [child.pid for child in slot.started] == [1, 2]


async def test_a_dismissed_slot_ends_behind_its_child() -> None:
    slot = Slot(Child(1))
    run = asyncio.ensure_future(slot.keeper.run())
    child = await slot.next()
    slot.keeper.dismiss()
    assert child.retired
    child.end(0)
    await asyncio.wait_for(run, HANG_S)
