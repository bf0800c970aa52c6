"""Statements for the control plane: off the loop, and closed only when what had ended is in history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from taximeter.billing.books import Books, Tariff
from taximeter.billing.period import Asked, Period
from taximeter.billing.statement import MarginList, Standing, Statement
from taximeter.core.errors import NotReady
from taximeter.sinks.history.sink import History

DRAIN_S = 30.0
"""How long closing waits for what has ended to be in history."""
PREVIEW_S = 5.0
T = TypeVar("T")


class Drained(Protocol):
    """How far a drain came."""

    @property
    def complete(self) -> bool: ...
    @property
    def lag_seconds(self) -> float: ...


class Delivery(Protocol):
    """Brings this node's journals into history."""

    async def drain(self, timeout_s: float, sinks: tuple[str, ...] = ("history",)) -> Drained: ...


class Billing:
    """Statements of this history. Methods raise HistoryUnavailable."""

    def __init__(self, history: History, delivery: Delivery, *, now_us: Callable[[], int]) -> None:
        self._history = history
        self._delivery = delivery
        self._now_us = now_us
        self._books = Books(history.reader)
        self._lock = asyncio.Lock()

    async def preview(self, asked: Asked, tariff: Tariff) -> Statement:
        """As it would be closed now. Raises BadRequest, NotFound."""
        await self._delivery.drain(PREVIEW_S)
        return await self._history.read(self._books.preview, asked, tariff)

    async def close(self, asked: Asked, tariff: Tariff, *, by: str, anyway: bool = False) -> Statement:
        """Close it. Raises as `preview`, Conflict, and NotReady where calls of this node are not in history yet
        (`anyway`: they are left to the next statement).
        """
        async with self._lock:
            drained = await self._delivery.drain(DRAIN_S)
            if not drained.complete and not anyway:
                raise NotReady(
                    f"History is {drained.lag_seconds:.0f} s behind the journal; close it when it is not, or force it: "
                    "what comes later is on the next statement."
                )
            now_us = self._now_us()
            draft = await self._history.read(lambda: self._books.draft(asked, tariff, by=by, now_us=now_us))
            return await self._history.write(lambda _: self._books.keep(draft, now_us))

    async def show(self, workspace: str, number: int) -> Statement:
        """A closed one. Raises NotFound."""
        return await self._history.read(self._books.show, workspace, number)

    async def standing(self, workspace: str | None) -> list[Standing]:
        """Closed statements beside the ledger; None: of each workspace that has some. Raises NotFound."""
        await self._delivery.drain(PREVIEW_S)
        return await self._history.read(self._standing, workspace)

    async def margins(self, period: Period, tariff: Tariff) -> MarginList:
        """Every workspace with calls in a period."""
        await self._delivery.drain(PREVIEW_S)
        return await self._history.read(self._books.margins, period, tariff)

    def _standing(self, workspace: str | None) -> list[Standing]:
        names = self._books.workspaces() if workspace is None else [workspace]
        return [self._books.standing(name) for name in names]
