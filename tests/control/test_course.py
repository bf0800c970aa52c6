"""The end of a control process that may never come back: what it tells whom, in which order."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from taximeter.control.process import course
from taximeter.delivery.health import Drained


class Told:
    """Parts that write down what they are asked for."""

    def __init__(self, *, failing: tuple[str, ...] = (), complete: bool = True) -> None:
        self.acts: list[str] = []
        self.tasks: list[asyncio.Task[None]] = [asyncio.ensure_future(asyncio.sleep(60))]
        sinks = [SimpleNamespace(name=name, durable=True) for name in ("history", "redis")]
        health = SimpleNamespace(sinks={each.name: SimpleNamespace(failing=each.name in failing) for each in sinks})

        async def drain(_: float, wanted: list[str], *, ends: bool) -> Drained:
            self.acts.append(f"drain {' '.join(wanted)}{', with ends' if ends else ''}")
            return Drained(complete=complete, lag_seconds=0.0)

        async def settle() -> int:
            self.acts.append("settle")
            return 0

        async def look(*, all_counted: bool) -> None:
            self.acts.append("let go slices")

        async def let_go() -> None:
            ended = all(task.cancelling() for task in self.tasks)
            self.acts.append(f"let go claims{', nobody settles any more' if ended else ''}")

        self.parts: Any = SimpleNamespace(
            sinks=sinks,
            history=sinks[0],
            counters=sinks[1],
            sending=None,
            delivery=SimpleNamespace(health=lambda: health, drain=drain, in_flight=lambda: 0),
            owed=SimpleNamespace(settle=settle, let_go=let_go),
            slices=SimpleNamespace(look=look),
            corrections=SimpleNamespace(close=lambda: self.acts.append("end the journal")),
        )

    async def end(self, *, orphaned: bool = False) -> list[str]:
        await course.end(self.parts, self.tasks, orphaned=orphaned)
        await asyncio.wait(self.tasks)
        assert all(task.cancelled() for task in self.tasks)
        return self.acts


async def test_what_a_node_held_is_given_back_once_it_is_delivered_and_claims_last() -> None:
    assert await Told().end() == [
        "drain history redis, with ends", "settle", "let go slices", "end the journal",
        "drain history redis, with ends", "let go claims, nobody settles any more",
    ]  # fmt: skip


async def test_where_history_does_not_answer_its_claims_are_the_next_starts() -> None:
    acts = await Told(failing=("history",)).end()
    assert acts == ["drain redis, with ends", "let go slices", "end the journal", "drain redis, with ends"]


@pytest.mark.parametrize(("complete", "orphaned"), [(False, False), (True, True)])
async def test_nothing_is_given_back_where_something_is_still_to_be_delivered(complete: bool, orphaned: bool) -> None:
    acts = await Told(complete=complete).end(orphaned=orphaned)
    assert not [act for act in acts if act.startswith(("settle", "let go"))]
