"""History as the API's handlers see it: every read takes its workspace's turn (shares.py)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from taximeter.control.door.shares import Shares
from taximeter.core.record import Record
from taximeter.sinks.query import Filters, Group, Ranked, TrackPart, Window

if TYPE_CHECKING:
    from taximeter.control.services.interfaces import HistoryReader


class InTurn:
    """Implements services.interfaces.HistoryReader with another; raises what that raises, and RateLimited."""

    def __init__(self, history: HistoryReader, shares: Shares) -> None:
        self._history = history
        self._turn = shares.turn

    async def usage(
        self, filters: Filters, group_by: Sequence[str] = (), window: Window | None = None, tz: str = "UTC"
    ) -> list[Group]:
        async with self._turn():
            return await self._history.usage(filters, group_by, window, tz)

    async def ranked(self, filters: Filters, by: str, most: int, window: Window, tz: str = "UTC") -> Ranked:
        async with self._turn():
            return await self._history.ranked(filters, by, most, window, tz)

    async def track(
        self, workspace: str, track: str, from_us: int | None = None, to_us: int | None = None
    ) -> list[TrackPart]:
        async with self._turn():
            return await self._history.track(workspace, track, from_us, to_us)

    async def record(self, request_id: str) -> list[Record]:
        async with self._turn():
            return await self._history.record(request_id)

    async def arrived(self, request_ids: Collection[str]) -> set[tuple[str, str]]:
        async with self._turn():
            return await self._history.arrived(request_ids)

    async def events(
        self, filters: Filters, limit: int = 100, page: str | None = None
    ) -> tuple[list[Record], str | None]:
        async with self._turn():
            return await self._history.events(filters, limit, page)

    async def export(self, filters: Filters, chunk: int = 2_000) -> AsyncIterator[list[Record]]:
        """Each list in a turn of its own: a slow reader holds none."""
        async with aclosing(self._history.export(filters, chunk)) as lists:  # type: ignore[type-var]
            while True:
                async with self._turn():
                    records = await anext(lists, None)
                if records is None:
                    return
                yield records

    async def count(self, filters: Filters) -> int:
        async with self._turn():
            return await self._history.count(filters)
