"""What the control process does now and then: keeps the node registered, audits Redis, forgets old records."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from taximeter.core.errors import TaximeterError
from taximeter.sinks.health import SinkHealth
from taximeter.sinks.redis.client import ERRORS

log = logging.getLogger("taximeter.upkeep")

RETRY_S = 1.0
"""A Redis that was replaced serves again within a second; the node must not look broken for longer."""
DAY_US = 86_400 * 1_000_000


async def every(period_s: float, name: str, act: Callable[[], Awaitable[object]], notes: dict[str, str]) -> None:
    """Do `act` now and every `period_s`, sooner after a failure.

    What goes wrong stands in `notes` under `name` until it goes well again. The log has its beginning and its end, and
    that once where several fail of one cause, such as a Redis that is away.
    """
    told = False
    while True:
        pause_s = min(RETRY_S, period_s)
        try:
            await act()
        except (TaximeterError, *ERRORS) as error:
            if name not in notes:
                told = str(error) not in notes.values()
                log.log(logging.ERROR if told else logging.DEBUG, "%s: %s", name, error)
            notes[name] = str(error)
        else:
            if notes.pop(name, None) is not None and told:
                log.info("%s: works again", name)
            pause_s = period_s
        if (task := asyncio.current_task()) is not None and task.cancelling():
            # Cancelled while a library connected, and it went on regardless: nobody asks a second time.
            raise asyncio.CancelledError
        await asyncio.sleep(pause_s)


class Missing:
    """Sinks that do not answer, for the log: loudly when the node starts without one, then once a minute, or a log that
    began with it would look well an hour later."""

    def __init__(self) -> None:
        self._said = ""

    def tell(self, what: str, error: Exception) -> None:
        """At the start; tried again every second, which is not told."""
        if not self._said:
            log.error("%s. Calls are relayed, and kept in the journal until it does: %s", what, error)
        self._said = f"{what}: {error}"

    def found(self) -> None:
        """It is there; from now on sinks tell of themselves."""
        if self._said:
            log.info("What did not answer at the start does now; what was kept is delivered")
        self._said = ""

    def remind(self, sinks: Mapping[str, SinkHealth]) -> None:
        """Once a minute."""
        if self._said:
            log.error("%s. Calls are kept in the journal.", self._said)
            return
        for name, sink in sinks.items():
            if sink.failing:
                behind = "an unknown number of" if sink.lag_records is None else sink.lag_records
                log.error("Sink %s still fails, %s records wait for it: %s", name, behind, sink.failing)


def retention_start_us(days: int) -> int:
    """Single records that ended before this are no longer kept."""
    return time.time_ns() // 1_000 - days * DAY_US
