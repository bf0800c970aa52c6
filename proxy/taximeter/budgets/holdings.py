"""Seeing that a Redis that lost budgets' figures is put together again before it decides about a call.

A Redis that was emptied, restarted without its file, or failed over to a replica that had not heard of everything knows
too little of what is spent, or of what calls in flight hold. Reserving (reserve.lua) then refuses to decide, and here:

1. the workspace's totals are written anew from history (`rebuild`);
2. an epoch begins, negative: workers of every node, who look four times a second, hold again what their calls hold;
3. after `GATHER_S`, and when the counters have every record of this node, what ended calls hold is let go and the epoch
   is opened.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable

from taximeter.budgets.reservations import Reservations
from taximeter.core.errors import TaximeterError
from taximeter.sinks.redis.client import ERRORS
from taximeter.sinks.redis.keys import REBUILDING_PREFIX

log = logging.getLogger("taximeter.budget")

GATHER_S = 1.0
"""Four times as long as a worker takes to notice (gateway.admission.budget.LOOK_S)."""
REBUILD_S = 10.0
"""A rebuild that says it is under way for longer is one whose process died (sinks.redis.rebuild._LEASE_MS)."""


class Holdings:
    """What this node's control process does for it; every node's does, and the first to be through opens."""

    def __init__(
        self,
        reservations: Reservations,
        *,
        rebuild: Callable[[str], Awaitable[int]],
        drained: Callable[[str], Awaitable[bool]],
        sweep: Callable[[str], Awaitable[None]],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rebuild` writes a workspace's counters anew; `drained` waits, bounded, until a sink (`history`, `redis`) has
        every record that is in this node's journals, and says whether it has; `sweep` lets go what calls hold that
        history knows to have ended: a Redis that went back still holds it, and the totals have it."""
        self._reservations = reservations
        self._rebuild = rebuild
        self._drained = drained
        self._sweep = sweep
        self._clock_s = clock_s
        self._since: dict[tuple[str, str], float] = {}
        """(workspace, state) -> when it was first seen."""

    @property
    def waiting(self) -> bool:
        """Whether this node has seen one that is not in order yet: then it has to look again soon."""
        return bool(self._since)

    async def open(self, workspace: str) -> None:
        """Have calls decided at once: this workspace has its first hard budget, so no call can hold anything yet."""
        generation, epoch = await self._reservations.state(workspace)
        if not epoch:
            await self._begin(workspace, generation)
            _, epoch = await self._reservations.state(workspace)
        if epoch.startswith("-"):
            await self._reservations.move_epoch(workspace, epoch, epoch[1:])

    async def secure(self, workspaces: Iterable[str]) -> None:
        """Take each of these workspaces one step on, if it needs one. Raises redis.client.ERRORS."""
        seen: set[tuple[str, str]] = set()
        for workspace in workspaces:
            generation, epoch = await self._reservations.state(workspace)
            if not epoch:
                await self._begin(workspace, generation)
            elif not generation or generation.startswith(REBUILDING_PREFIX):
                seen.add((workspace, generation))
                if not generation or self._for_s(workspace, generation) >= REBUILD_S:
                    await self._totals(workspace)
            elif epoch.startswith("-"):
                seen.add((workspace, epoch))
                if self._for_s(workspace, epoch) >= GATHER_S and await self._drained("redis"):
                    await self._sweep(workspace)
                    await self._reservations.move_epoch(workspace, epoch, epoch[1:])
                    log.warning(
                        "budgets of workspace %r: what is spent and held is known, calls are decided", workspace
                    )
        self._since = {key: since for key, since in self._since.items() if key in seen}

    async def _begin(self, workspace: str, generation: str) -> None:
        if generation.startswith(REBUILDING_PREFIX) and self._for_s(workspace, generation) < REBUILD_S:
            return
        if await self._totals(workspace):
            await self._reservations.move_epoch(workspace, "", f"-{secrets.randbelow(2**53 - 1) + 1}")

    async def _totals(self, workspace: str) -> bool:
        try:
            if not await self._drained("history"):
                return False
            await self._rebuild(workspace)
        except (TaximeterError, *ERRORS) as error:
            log.warning("budgets of workspace %r wait until its counters are rebuilt: %s", workspace, error)
            return False
        return True

    def _for_s(self, workspace: str, state: str) -> float:
        return self._clock_s() - self._since.setdefault((workspace, state), self._clock_s())
