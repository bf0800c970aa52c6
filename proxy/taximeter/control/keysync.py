"""Proxy keys and budgets on several nodes: each node's files and a Redis hash each exchange what they know.

A union in which a revocation, or an end, always wins (core.keys.merge, core.budgets.merge), so nodes may do this in any
order and at any time; a Redis that lost its data gets everything back from the files. Only hashes of secrets are
exchanged. Whoever may write to this Redis may add keys: it is trusted as the data directory is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import msgspec

from taximeter.control.budgetring import BudgetRing
from taximeter.control.keyring import KeyRing
from taximeter.core.budgets import Budget, is_stored
from taximeter.core.keys import ProxyKey, is_digest
from taximeter.core.tags import is_valid
from taximeter.sinks.redis_client import RedisServer

log = logging.getLogger(__name__)

KEYS = "tm:keys"
"""Hash key id -> the stored key as JSON."""
BUDGETS = "tm:budgets"
"""Hash budget id -> the stored budget as JSON."""


class Named(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Named)


async def exchange(server: RedisServer, ring: KeyRing) -> None:
    """Bring this node's keys and those in Redis together. Raises redis_client.ERRORS, or DataDirError."""
    await _exchange(server, KEYS, ring.absorb, ProxyKey, lambda key: is_digest(key.sha256) and is_valid(key.workspace))


async def exchange_budgets(server: RedisServer, ring: BudgetRing) -> None:
    """Bring this node's budgets and those in Redis together. Raises redis_client.ERRORS, or DataDirError."""
    await _exchange(server, BUDGETS, ring.absorb, Budget, is_stored)


async def _exchange(
    server: RedisServer,
    where: str,
    absorb: Callable[[Iterable[Item]], list[Item]],
    kind: type[Item],
    sound: Callable[[Item], bool],
) -> None:
    theirs = _read(where, await server.command("HGETALL", where), kind, sound)
    merged = await asyncio.to_thread(absorb, theirs)
    known = {item.id: item for item in theirs}
    news = [item for item in merged if known.get(item.id) != item]
    if news:
        await server.commands([("HSET", where, item.id, msgspec.json.encode(item)) for item in news])


def _read(where: str, flat: dict[bytes, bytes], kind: type[Item], sound: Callable[[Item], bool]) -> list[Item]:
    """The items of the hash. What is none is left out and logged."""
    found = []
    for name, value in flat.items():
        try:
            item = msgspec.json.decode(value, type=kind)
        except (ValueError, RecursionError):
            item = None
        if item is None or item.id.encode() != name or not sound(item):
            log.warning("Redis: %s holds something under %r that does not belong there", where, name[:80])
            continue
        found.append(item)
    return found
