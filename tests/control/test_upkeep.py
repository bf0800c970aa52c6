"""What is done now and then: again soon after a failure, and the failure told until then."""

from __future__ import annotations

import asyncio

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

    monkeypatch.setattr(upkeep.asyncio, "sleep", sleep)
    task = asyncio.ensure_future(upkeep.every(60, "audit", act, notes))
    await asyncio.wait_for(done.wait(), HANG_S)
    task.cancel()
    assert seen == [(1.0, {"audit": "gone"}), (1.0, {"audit": "wrong"}), (60, {}), (60, {})]
