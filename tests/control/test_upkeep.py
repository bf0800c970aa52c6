"""What is done now and then: again soon after a failure, and the failure told until then."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from taximeter.control.process import upkeep
from taximeter.core.errors import ConfigError
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
