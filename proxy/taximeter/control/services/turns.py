"""History as the API's handlers see it: every read takes its workspace's turn (door/shares.py)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from taximeter.control.door.shares import Shares
from taximeter.control.services.interfaces import HistoryReader
from taximeter.core.record import Record
from taximeter.sinks.query import Filters, Group, Window

P = ParamSpec("P")
T = TypeVar("T")


def _in_turn(
    ask: Callable[Concatenate[HistoryReader, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[InTurn, P], Coroutine[Any, Any, T]]:
    @wraps(ask)
    async def read(self: InTurn, /, *args: P.args, **named: P.kwargs) -> T:
        async with self.turn():
            found: T = await getattr(self.history, ask.__name__)(*args, **named)
            return found

    return read


class InTurn:
    """Implements services.interfaces.HistoryReader with another; raises what that raises, and RateLimited."""

    def __init__(self, history: HistoryReader, shares: Shares) -> None:
        self.history = history
        self.turn = shares.turn

    usage = _in_turn(HistoryReader.usage)
    ranked = _in_turn(HistoryReader.ranked)
    latency = _in_turn(HistoryReader.latency)
    quantities = _in_turn(HistoryReader.quantities)
    apart_since_us = _in_turn(HistoryReader.apart_since_us)
    track = _in_turn(HistoryReader.track)
    record = _in_turn(HistoryReader.record)
    request = _in_turn(HistoryReader.request)
    arrived = _in_turn(HistoryReader.arrived)
    events = _in_turn(HistoryReader.events)
    listing = _in_turn(HistoryReader.listing)
    names = _in_turn(HistoryReader.names)
    search = _in_turn(HistoryReader.search)
    count = _in_turn(HistoryReader.count)

    async def export(self, filters: Filters, chunk: int = 2_000) -> AsyncIterator[list[Record]]:
        async for records in self._each(self.history.export(filters, chunk)):
            yield records

    async def parts(
        self, filters: Filters, group_by: Sequence[str], window: Window | None = None, tz: str = "UTC"
    ) -> AsyncIterator[list[Group]]:
        async for groups in self._each(self.history.parts(filters, group_by, window, tz)):
            yield groups

    async def _each(self, lists: AsyncIterator[list[T]]) -> AsyncIterator[list[T]]:
        """Each list in a turn of its own: a slow reader holds none."""
        async with aclosing(lists):  # type: ignore[type-var]
            while True:
                async with self.turn():
                    some = await anext(lists, None)
                if some is None:
                    return
                yield some
