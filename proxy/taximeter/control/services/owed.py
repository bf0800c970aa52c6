"""Calls that are billed later: what was told of them becomes their settlement; what nobody tells is written off.

Each settlement is written into the control process's own journal, once: history says which are not there yet.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from taximeter.control.services.corrections import Corrections
from taximeter.control.services.reprice import Prices
from taximeter.core.deferred import CHARGES, as_charged_now, settlement, unsaid
from taximeter.core.errors import JournalError, NotReady
from taximeter.core.record import Record
from taximeter.journal import gone
from taximeter.node.audit import AuditLog
from taximeter.sinks.history.read.owed import Owed, OwedStanding, Unsettled

log = logging.getLogger("taximeter.owed")

AT_ONCE = 1_000
"""Settlements written between two looks at whether they have arrived."""
LOOK_S = 15.0
"""How often it is looked without anything having been delivered: a promise may come from another node later than what
tells of it."""
STRAY_DAYS = 7
"""How long is remembered what was told of an object that nobody was promised: the promise may be on its way."""
DAY_US = 86_400 * 1_000_000
_WORDS = "What calls that were billed later used is written then."


class OwedHistory(Protocol):
    """What is asked of history."""

    @property
    def owed_news(self) -> int: ...

    async def unsettled(self, limit: int) -> list[Unsettled]: ...

    async def owed(self, workspace: str | None, states: Sequence[str], limit: int) -> list[Owed]: ...

    async def owed_standing(self) -> OwedStanding: ...

    async def write_off_owed(self, before_us: int, now_us: int) -> list[Owed]: ...

    async def take_over_owed(self, nodes: Sequence[str]) -> int: ...

    async def let_go_owed(self) -> int: ...

    async def forget_owed(self, before_us: int, strays_us: int) -> None: ...

    async def record(self, request_id: str) -> list[Record]: ...


class OwedLedger:
    """Settles, writes off and lists what is owed."""

    def __init__(
        self,
        history: OwedHistory,
        corrections: Corrections,
        prices: Prices,
        *,
        journals: Path,
        audit: AuditLog,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`prices`: those in force; `journals`: the directory of this node's journals, in which `adopt` says whose
        else it has to answer for."""
        self._history = history
        self._corrections = corrections
        self._prices = prices
        self._journals = journals
        self._audit = audit
        self._now_us = now_us
        self._monotonic_s = monotonic_s
        self._looked_s = float("-inf")
        self._news = -1
        self.standing = OwedStanding()
        """How much was owed at the last look, by all nodes on the database."""

    def figures(self) -> tuple[int, float, int]:
        """Of what all nodes on the database are owed: objects outstanding, seconds since the oldest was promised,
        objects written off."""
        standing = self.standing
        oldest_us = self._now_us() if standing.oldest_us is None else standing.oldest_us
        return standing.outstanding, max(0, self._now_us() - oldest_us) / 1e6, standing.expired

    async def settle(self) -> int:
        """Write the settlements of what this node has delivered; returns how many. Raises NotReady,
        HistoryUnavailable: what was written is not written again, and the rest is next time."""
        nodes = gone.gone(self._journals)
        news, now_s = self._history.owed_news, self._monotonic_s()
        if news == self._news and now_s - self._looked_s < LOOK_S and not nodes:
            return 0
        await self._take_over(nodes)
        written = await self._settle() if await self._history.unsettled(1) else 0
        self.standing = await self._history.owed_standing()
        if not written:  # else there may be more
            self._news, self._looked_s = news, now_s
        return written

    async def _settle(self) -> int:
        async with self._corrections.writing() as journal:
            found = await self._history.unsettled(AT_ONCE)
            try:
                for each in found:
                    for record in await self._settlements(each):
                        journal.append(record)
            except JournalError as error:
                raise NotReady(f"{error}. {_WORDS}") from error
            await journal.durable()
        return len(found)

    async def _settlements(self, each: Unsettled) -> list[Record]:
        """The settlement last: without it, all is done again."""
        asked, before = each.asked, None
        if not each.told.line and any(getattr(asked, name) is not None for name in CHARGES):
            records = await self._history.record(asked.request_id)
            before, asked = unsaid(asked, records), as_charged_now(asked, records)
        settled = settlement(asked, each.told)
        if settled.kind == "usage":  # a correction is no use, and has no price
            settled.cost_nusd, settled.price_ref = self._prices.cost(settled)
            settled.unpriced_reason = self._prices.why(settled) if settled.cost_nusd is None else None
        return [settled] if before is None else [before, settled]

    async def let_go(self) -> None:
        """This node ends, and everything it wrote has arrived: what it has claimed and cannot settle yet, as another
        node is still to bring the promise, is settled by whichever looks next. Raises HistoryUnavailable."""
        if lines := await self._history.let_go_owed():
            log.info("%d lines that this node had read and could not settle yet are left to the others", lines)

    async def _take_over(self, nodes: list[str]) -> None:
        """What nodes that are gone had claimed, once everything they wrote has arrived; what others let go of."""
        if nodes:
            async with self._corrections.writing():
                lines = await self._history.take_over_owed(nodes)
                gone.forget(self._journals, nodes)
        else:
            lines = await self._history.take_over_owed(())
        if lines:
            log.info("%d lines that %s had read are settled here", lines, ", ".join(nodes) or "nodes that have ended")

    async def write_off(self, days: int) -> int:
        """Write off what was promised longer ago than so many days; returns how many objects. What budgets are charged
        stays charged: nobody knows what the calls used."""
        now_us, number = self._now_us(), 0
        while given_up := await self._history.write_off_owed(now_us - days * DAY_US, now_us):
            number += len(given_up)
            for each in given_up:
                self._audit.note("owed.write_off", each.object, before=info_words(each), level=logging.WARNING)
        return number

    async def forget(self, before_us: int, owed_days: int) -> None:
        """Forget what is no longer kept: `before_us` is where single records begin. What is owed is written off first,
        and known for some days as that."""
        strays_us = self._now_us() - STRAY_DAYS * DAY_US
        await self._history.forget_owed(min(before_us, strays_us - owed_days * DAY_US), strays_us)

    async def listed(self, workspace: str | None, states: Sequence[str], limit: int) -> list[Owed]:
        """Objects in these states, the oldest first."""
        return await self._history.owed(workspace, states, limit)


class Given(msgspec.Struct, kw_only=True):
    """Of an object that was given up, for the audit log."""

    workspace: str
    provider: str
    request_id: str
    key_id: str | None
    track: str | None


def info_words(owed: Owed) -> Given:
    """What the audit log says of it."""
    asked = owed.asked
    return Given(
        workspace=owed.workspace,
        provider=owed.provider,
        request_id=asked.request_id,
        key_id=asked.key_id,
        track=asked.track,
    )
