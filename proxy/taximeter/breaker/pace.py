"""How fast places use what they use, by the records of this node that ended just now: a sink that keeps nothing."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from taximeter.breaker.rule import Place, Scope, Unit
from taximeter.sinks.batch import Batch
from taximeter.sinks.passing import Passing

if TYPE_CHECKING:
    from taximeter.core.record import Record

log = logging.getLogger("taximeter.breaker")

BUCKETS = 12
"""Parts of a window: it moves on by one of these."""
PLACES = 20_000
"""Most places measured at once; of more, those not measured yet wait until one has been silent for a window."""


class Pace:
    """What places used in the last `window_us`, for one breaker."""

    def __init__(self, scope: Scope, unit: Unit, window_s: float) -> None:
        self.scope = scope
        self.unit = unit
        self.window_us = int(window_s * 1_000_000)
        self._bucket_us = max(1, self.window_us // BUCKETS)
        self._used: dict[Place, dict[int, int]] = {}
        self._told = False

    def add(self, record: Record) -> None:
        """Count a record for the moment at which it ended. What is not known is not counted."""
        amount = record.cost_nusd if self.unit == "usd" else record.total_tokens
        place = place_of(record, self.scope)
        if not amount or amount < 0 or place is None or record.kind != "usage":
            return
        buckets = self._used.get(place)
        if buckets is None:
            if len(self._used) >= PLACES:
                self._tell()
                return
            buckets = self._used[place] = {}
        number = record.ended_at // self._bucket_us
        buckets[number] = buckets.get(number, 0) + amount

    def rates(self, now_us: int) -> dict[Place, int]:
        """What each place used in the window, for a minute; places that were silent are forgotten."""
        first = (now_us - self.window_us) // self._bucket_us + 1
        found = {}
        for place, buckets in list(self._used.items()):
            for number in [each for each in buckets if each < first]:
                del buckets[number]
            if buckets:
                found[place] = sum(buckets.values()) * 60_000_000 // self.window_us
            else:
                del self._used[place]
        return found

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            log.warning("more than %d %ss are in use at once: the breaker does not see the rest", PLACES, self.scope)


def place_of(record: Record, scope: Scope) -> Place | None:
    """The place a record counts for; None: it names none."""
    if scope == "workspace":
        return Place(record.workspace)
    if scope == "key":
        return Place(record.workspace, key_id=record.key_id) if record.key_id else None
    return Place(record.workspace, track=record.track) if record.track else None


class Paces:
    """The sink named `breaker`. It begins, in each journal, where history was at its start."""

    name = "breaker"
    durable = False

    def __init__(
        self, paces: Sequence[Pace], start: Callable[[Iterable[str]], Awaitable[dict[str, int]]] | None = None
    ) -> None:
        """`start`: history's `cursors`; None: from each journal's beginning."""
        self._paces = paces
        self._passing = Passing(start)

    def measure(self, paces: Sequence[Pace]) -> None:
        """For these breakers from now on."""
        self._paces = paces

    async def cursors(self, journal_ids: Iterable[str]) -> dict[str, int]:
        return await self._passing.cursors(journal_ids)

    async def deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
        journals = [batch.journal_id for batch in batches]
        await self.cursors(journals)
        for batch in self._passing.fresh(batches):
            for record in batch.records:
                for pace in self._paces:
                    pace.add(record)
        return await self.cursors(journals)

    async def close(self) -> None:
        """Nothing is kept."""
