"""Splitting a hot workspace's counters over slots of a Cluster (DESIGN §5), once somebody counts there."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from taximeter.sinks.redis import keys
from taximeter.sinks.redis.client import RedisServer
from taximeter.sinks.redis.counters import Counters

log = logging.getLogger("taximeter.counters")


async def split(counters: Counters) -> list[str]:
    """Split the counters of workspaces that shall have more parts than they have; returns those workspaces.

    They are written anew for that. Never into fewer: of nodes that were told differently the highest number holds,
    until a rebuild for another reason. What budgets are about stays whole, as one script decides about it. Raises
    redis.client.ERRORS, and what `Counters.rebuild` raises.
    """
    rebuilder = counters.rebuilder
    wanted = {name: parts for name, parts in rebuilder.split().items() if not rebuilder.tallies(name)}
    splittable = await _splittable(counters.server, wanted) if wanted else []
    for name in splittable:
        await counters.rebuild(name)
        log.info("The counters of workspace %r are split into %d parts", name, wanted[name])
    return splittable


async def _splittable(server: RedisServer, wanted: Mapping[str, int]) -> list[str]:
    """Those that have fewer parts, are counted (a rebuild under way ends first), and of which nothing is added up."""
    commands = [(kind, keys.prefix(name) + key) for name in wanted for kind, key in _STANDING]
    replies = await server.commands(commands)
    found = []
    for name, said, tallies in zip(wanted, replies[::2], replies[1::2], strict=True):
        generation = (said or b"").decode()
        counted = generation and not generation.startswith(keys.REBUILDING_PREFIX)
        if counted and not tallies and keys.parts_in(generation) < wanted[name]:
            found.append(name)
    return found


_STANDING = (("GET", "gen"), ("SCARD", keys.TALLIES))
