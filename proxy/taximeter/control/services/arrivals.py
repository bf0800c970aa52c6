"""Waiting until requests are in history (`?after=`): one look for everybody who waits, whenever delivery got on.

A shared history cannot call us when another node delivers to it, so there is a look every POLL_S besides, however many
wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING

from taximeter.sinks.history.database import HistoryUnavailable

if TYPE_CHECKING:
    from taximeter.control.services.interfaces import Delivery, RecordsReader

POLL_S = 0.25
SINK = "history"


class Waiter:
    """One caller, and what it still waits for."""

    def __init__(self, missing: set[str], workspace: str | None) -> None:
        self.missing = missing
        self.workspace = workspace
        """All it may see; None: everything."""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def found(self, arrived: Collection[tuple[str, str]]) -> None:
        self.missing -= seen(arrived, self.workspace)
        if not self.missing and not self.done.done():
            self.done.set_result(None)


class Arrivals:
    """Everybody who waits for requests to be in history."""

    def __init__(self, history: RecordsReader, delivery: Delivery) -> None:
        self._history = history
        self._delivery = delivery
        self._waiting: set[Waiter] = set()
        self._looking: asyncio.Task[None] | None = None
        self.looks = 0
        """At history, on behalf of all."""

    async def wait(self, request_ids: Collection[str], workspace: str | None, timeout_s: float) -> bool:
        """Whether all of these are in history within `timeout_s`; those of another workspace never are.

        Raises HistoryUnavailable.
        """
        waiter = Waiter(set(request_ids), workspace)
        self._waiting.add(waiter)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_for_all())
        try:
            await asyncio.wait_for(waiter.done, timeout_s)
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(waiter)
            if not self._waiting and self._looking is not None:
                self._looking.cancel()
                self._looking = None
        return True

    async def _look_for_all(self) -> None:
        while True:
            place = self._delivery.place(SINK)
            self.looks += 1
            try:
                arrived = await self._history.arrived({name for each in self._waiting for name in each.missing})
            except HistoryUnavailable as error:
                for each in self._waiting:
                    if not each.done.done():
                        each.done.set_exception(error)
                arrived = set()
            for each in self._waiting:
                each.found(arrived)
            await self._delivery.beyond(SINK, place, POLL_S)


def seen(arrived: Collection[tuple[str, str]], workspace: str | None) -> set[str]:
    """The requests among (request, its workspace) that a workspace may know of."""
    return {request_id for request_id, whose in arrived if workspace in (None, whose)}
