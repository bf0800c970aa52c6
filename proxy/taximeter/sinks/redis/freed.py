"""Calls that nobody ended, as their worker died: they no longer count as calls at once (budgets.rates)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from taximeter.core.holds import RATES, reservation_of
from taximeter.core.record import Outcome, Record
from taximeter.sinks.redis.client import RedisServer

CallsOf = Callable[[Record], Collection[str]]
"""The sorted sets in which a call counts as one of those at once."""


async def free(server: RedisServer, records: Iterable[Record], calls_of: CallsOf) -> None:
    """Take those of these calls out of the sets they count in. Raises client.ERRORS."""
    dead = [
        ("ZREM", key, reservation_of(record))
        for record in records
        if record.outcome is Outcome.INTERRUPTED and RATES in record.tags
        for key in calls_of(record)
    ]
    if dead:
        await server.commands(dead)
