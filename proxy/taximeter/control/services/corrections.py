"""The control process's own journal: what is corrected is written into it, and every sink follows."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import msgspec

from taximeter.budgets.responses import ChargeInfo, Settlement
from taximeter.budgets.settlements import Charged, charge_info, settle
from taximeter.config import Settings
from taximeter.control.services.interfaces import Delivery
from taximeter.control.services.reprice import Exports, Prices, RepriceResponse, reprice, response
from taximeter.core.errors import ConfigError, JournalError, NotReady
from taximeter.core.record import Record
from taximeter.core.times import range_us
from taximeter.journal import Journal
from taximeter.pricebook import PriceBook, compile_prices
from taximeter.sinks.query import Filters

DRAIN_S = 60.0
"""How long a repricing waits until history has what is in the journals, before and after."""
LISTED_S = 2.0
"""How long a list of charges waits for what is on its way to history."""
ENDING = "This process is ending; nothing more is corrected by it."
WORKER = "control"
"""The writer's name in the journal's header."""


class Corrected(Exports, Charged, Protocol):
    """What is asked of history."""


class Corrections:
    """Prices periods again, one at a time, and holds the journal the corrections are written into."""

    def __init__(
        self,
        history: Corrected,
        delivery: Delivery,
        *,
        prices: Callable[[], Prices],
        journal: Callable[[], Journal],
    ) -> None:
        """`prices` gives the prices as they are now (may block, raises ConfigError); `journal` makes the journal, at
        the first correction."""
        self._history = history
        self._delivery = delivery
        self._prices = prices
        self._make_journal = journal
        self._journal: Journal | None = None
        self._closed = False
        self._lock = asyncio.Lock()

    async def reprice(self, filters: Filters, *, dry_run: bool) -> RepriceResponse:
        """Price a period again. Raises NotReady; a second run does what is left."""
        async with self._lock:
            await self._up_to_date()
            try:
                prices = await asyncio.to_thread(self._prices)
            except ConfigError as error:  # a price file that is being edited, while calls go on by the list in force
                raise NotReady(f"The prices cannot be used: {error}") from error
            journal = None if dry_run else self._opened()
            try:
                changes = await reprice(self._history, prices, filters, None if journal is None else journal.append)
            except JournalError as error:
                raise NotReady(
                    f"{error}. Corrections written so far count; run it again, and the rest is written."
                ) from error
            if journal is not None:
                await journal.durable()
                await self._up_to_date()
            return response(changes, filters, dry_run=dry_run)

    async def charges(self, workspace: str | None) -> list[ChargeInfo]:
        """Calls whose use is charged to budgets though it is not known, the latest first."""
        await self._delivery.drain(LISTED_S, ("history",))
        return [charge_info(each) for each in await self._history.charges(workspace)]

    async def settle(self, request_id: str, known: Settlement) -> list[ChargeInfo]:
        """Set what a request is charged to what is known now. Raises NotFound, BadRequest, NotReady."""
        async with self._lock:
            await self._up_to_date()
            journal = self._opened()
            try:
                settled = await settle(self._history, request_id, known, journal.append)
            except JournalError as error:
                raise NotReady(f"{error}. Try again: what was written counts, the rest is written then.") from error
            await journal.durable()
            await self._delivery.drain(DRAIN_S, ("history", "redis"))
            return settled

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Journal]:
        """The journal, for one at a time, and when history has everything that was written before. Raises NotReady."""
        async with self._lock:
            await self._up_to_date()
            yield self._opened()

    def note(self, record: Record) -> None:
        """Write down what was told of a call that is billed later. Raises JournalError."""
        if self._closed:
            raise JournalError(ENDING)
        self._opened().append(record)

    async def _up_to_date(self) -> None:
        """Corrections on their way must be known, or they would be written twice."""
        if not (await self._delivery.drain(DRAIN_S, ("history",))).complete:
            raise NotReady("HistoryReader does not have everything that is in the journal yet; try again later.")

    def _opened(self) -> Journal:
        if self._closed:  # a journal begun now would not be ended before the next start
            raise NotReady(ENDING)
        if self._journal is None:
            self._journal = self._make_journal()
        return self._journal

    def close(self) -> None:
        """End the journal; there will be no other."""
        self._closed = True
        if self._journal is not None:
            self._journal.shutdown()


def prices_now(settings: Settings) -> PriceBook:
    """The prices as prices.toml, the environment and genai-prices are now, which may be newer than those in use.

    Compiled in a process of its own, which takes the 41 MB with it. Raises ConfigError.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prices.json"
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
            child.submit(_compile, settings, path).result()
        return PriceBook.load(path)


def _compile(settings: Settings, path: Path) -> None:
    compile_prices(settings, path)


class RepriceRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What to price again."""

    from_: str = msgspec.field(name="from")
    """First moment: a date or RFC 3339."""
    to: str | None = None
    """First moment no longer in; null: until now."""
    tz: str = "UTC"
    """IANA time zone of dates."""
    dry_run: bool = False
    """Only show the difference."""


def filters_of(period: RepriceRequest) -> Filters:
    """The period as history's filters. Raises BadRequest."""
    from_us, to_us = range_us(period.from_, period.to, period.tz)
    return Filters(from_us=from_us, to_us=to_us)
