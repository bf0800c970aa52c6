"""The webhook's receiver, without a socket: it keeps what it took, and may be down, refuse, or lose its answer."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from simulation.virtual.world import World
from taximeter.sinks.webhook.letters import Letter
from taximeter.sinks.webhook.sender import Attempt


class Receiver:
    """Takes each key once, as an idempotent receiver does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.mood = ""
        """"": it takes what comes; else `down`, `refuses`, `loses the answer`."""
        self.taken: dict[str, Letter] = {}
        self.unlike: list[str] = []
        """Keys that came again with another body."""

    async def post(self, letter: Letter) -> Attempt:
        world = self.world
        world.step(f"post {letter.key}")
        await asyncio.sleep(world.order.expovariate(1 / 0.01))
        if self.mood == "down":
            return Attempt("ConnectError: refused")
        if self.mood == "refuses":
            return Attempt("answered 503", 1.0)
        before = self.taken.setdefault(letter.key, letter)
        if before.body != letter.body:
            self.unlike.append(letter.key)
        world.counts["posts to the webhook"] += 1
        if self.mood == "loses the answer":
            return Attempt("no answer within 10 s")
        await asyncio.sleep(world.order.expovariate(1 / 0.01))
        world.step("posted")
        return Attempt()


class SimSender:
    """In place of webhook.sender.Sender."""

    receiver: Receiver

    def __init__(self, *_: Any, **__: Any) -> None:
        """Settings say where to; there is only one."""

    async def send(self, letter: Letter) -> Attempt:
        return await self.receiver.post(letter)

    async def close(self) -> None:
        """There is nothing to close."""


@contextlib.contextmanager
def receiving(receiver: Receiver) -> Iterator[None]:
    """Letters sent in the block come here."""
    module: Any = importlib.import_module("taximeter.sinks.webhook.sink")
    SimSender.receiver = receiver
    real, module.Sender = module.Sender, SimSender
    try:
        yield
    finally:
        module.Sender = real
