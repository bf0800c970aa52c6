"""What is done now and then: again soon after a failure, and the failure told until then."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest

from taximeter.control.process import upkeep
from taximeter.control.process.upkeep import Missing
from taximeter.core.errors import ConfigError
from taximeter.sinks.health import SinkHealth
from waits import HANG_S


async def test_a_failure_is_told_and_tried_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = [ConnectionError("gone"), ConfigError("wrong"), None, None]
    notes: dict[str, str] = {}
    seen: list[tuple[float, dict[str, str]]] = []
    done = asyncio.Event()

    async def act() -> None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    async def sleep(pause_s: float) -> None:
        seen.append((pause_s, dict(notes)))
        if not outcomes:
            done.set()
            await asyncio.Event().wait()

    monkeypatch.setattr("taximeter.control.process.upkeep.asyncio.sleep", sleep)
    task = asyncio.ensure_future(upkeep.every(60, "audit", act, notes))
    await asyncio.wait_for(done.wait(), HANG_S)
    task.cancel()
    assert seen == [(1.0, {"audit": "gone"}), (1.0, {"audit": "wrong"}), (60, {}), (60, {})]


@pytest.mark.parametrize("failing", [False, True])
async def test_upkeep_ends_though_what_it_was_doing_took_no_notice(failing: bool) -> None:
    """A library may swallow the one cancellation there is; the process would then be killed after 30 s."""
    began = asyncio.Event()

    async def act() -> None:
        began.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if failing:
            raise OSError("gone")

    task = asyncio.create_task(upkeep.every(3_600.0, "counting", act, {}))
    await began.wait()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=HANG_S)
    assert done and task.cancelled()


def test_a_start_without_a_sink_is_told_loudly_once_and_reminded_of(caplog):
    caplog.set_level(logging.INFO)
    missing = Missing()
    for _ in range(5):  # tried every second
        missing.tell("The history does not answer", OSError("refused"))
    (first,) = caplog.records
    assert first.levelno == logging.ERROR and "Calls are relayed, and kept in the journal" in first.getMessage()
    missing.remind({})
    assert caplog.messages[-1] == "The history does not answer: refused. Calls are kept in the journal."
    missing.found()
    missing.remind({})
    assert len(caplog.messages) == 3 and "does now" in caplog.messages[-1]


def test_a_sink_that_goes_on_failing_is_told_again_with_what_waits_for_it(caplog):
    sinks = {"history": sink(None), "redis": sink("refused", 7), "webhook": sink("down", None)}
    Missing().remind(sinks)
    assert caplog.messages == [
        "Sink redis still fails, 7 records wait for it: refused",
        "Sink webhook still fails, an unknown number of records wait for it: down",
    ]


def sink(failing, lag=0):
    return SinkHealth(
        lag_records=lag, lag_seconds=0.0, errors=0, duplicates_skipped=0, failing=failing, set_aside=0,
        set_aside_records=0,
    )  # fmt: skip
