"""The parts' course: opened, at work, brought to their end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio import Task, TaskGroup

from taximeter.control.process.parts import DRAIN_S, Parts
from taximeter.control.process.timetable import upkeep
from taximeter.control.process.upkeep import RETRY_S
from taximeter.core.errors import TaximeterError
from taximeter.sinks.history.database import HistoryUnavailable
from taximeter.sinks.redis.client import ERRORS
from taximeter.sinks.redis.nodes import leave_nodes

log = logging.getLogger("taximeter.control")

NOT_OPEN = "the history has not answered since the start, and is needed to know where to go on"
"""Why no sink gets anything then."""
GIVE_BACK_S = 5.0
"""How long the end takes at most to give back what this node holds."""
REMIND_S = 60.0
"""How often the log says again what does not answer."""


async def prepare(parts: Parts) -> None:
    """Before anything runs. Raises ConfigError as `_open` does."""
    if not await _open(parts):
        parts.delivery.hold(NOT_OPEN)


def begin(parts: Parts, group: TaskGroup) -> list[Task[None]]:
    """Have everything run in the group, until the tasks are cancelled (`end`)."""
    acts = (parts.delivery.run(), _release(parts), _remind(parts), *upkeep(parts))
    tasks = [group.create_task(act) for act in acts]
    parts.send(group)
    return tasks


async def end(parts: Parts, tasks: list[Task[None]], *, orphaned: bool = False) -> None:
    """Bring the last records to the sinks and give back what this node held, then stop the tasks: it may never come
    back. `orphaned`: workers may live still, and the next start does all of it."""
    if not orphaned:
        await _give_back(parts, await _drain(parts))
    parts.corrections.close()
    drained = [] if orphaned else await _drain(parts)
    for task in (*tasks, parts.sending):
        if task is not None:
            task.cancel()
    if parts.history.name in drained:  # last: whoever settles here would take them over again
        with contextlib.suppress(TaximeterError):  # the next start has them still
            await parts.owed.let_go()


async def close(parts: Parts) -> None:
    """Whatever happened: let go what others wait for, connections and files."""
    with contextlib.suppress(TaximeterError, *ERRORS):
        await leave_nodes(parts.counters.server, parts.force.boot.node)
        await parts.auditing.leave()
    if parts.collector is not None:
        await parts.collector.close()
    for sink in parts.sinks:
        with contextlib.suppress(TaximeterError, *ERRORS):
            await sink.close()
    await parts.alerts.close()


async def _open(parts: Parts) -> bool:
    """Refuse a history of a newer Taximeter, and a Redis where a node with another history counts (ConfigError).

    Neither has to be there yet: calls are relayed and written down. False: it is not known which history it is.
    """
    try:
        await parts.history.prepare()
        await parts.register()
    except HistoryUnavailable as error:
        parts.missing.tell("The history does not answer", error)
        return False
    except ERRORS as error:
        log.error("Redis does not answer. Calls are relayed, and kept in the journal until it does: %s", error)
    return True


async def _release(parts: Parts) -> None:
    """Deliver as soon as the history has been open once: Redis must not be counted in for an unknown one."""
    while parts.delivery.held:
        await asyncio.sleep(RETRY_S)
        with contextlib.suppress(HistoryUnavailable):  # it is gone again
            if await _open(parts):
                await parts.delivery.release()
    parts.missing.found()


async def _remind(parts: Parts) -> None:
    while True:
        await asyncio.sleep(REMIND_S)
        parts.missing.remind(parts.delivery.health().sinks)


async def _drain(parts: Parts) -> list[str]:
    """The workers have ended: what they wrote reaches the durable sinks, except one that fails already. Returns those
    that have all of it."""
    health = parts.delivery.health().sinks
    wanted = [sink.name for sink in parts.sinks if sink.durable and not health[sink.name].failing]
    drained = await parts.delivery.drain(DRAIN_S, wanted, ends=True)
    if not drained.complete:
        log.warning("the sinks are %.1f s behind; the next start delivers the rest", drained.lag_seconds)
        return []
    return wanted


async def _give_back(parts: Parts, drained: list[str]) -> None:
    """Settle what the last calls told of those that are billed later, which no other node does; let go the slices of
    workers that have ended. What cannot be done now is the next start's, or of who adopts this directory."""
    with contextlib.suppress(TimeoutError, TaximeterError, *ERRORS):
        async with asyncio.timeout(GIVE_BACK_S):
            if parts.history.name in drained:
                while await parts.owed.settle():
                    pass
            if parts.counters.name in drained and not parts.delivery.in_flight():
                await parts.slices.look(all_counted=True)
