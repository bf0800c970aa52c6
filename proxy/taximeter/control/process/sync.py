"""Proxy keys and budgets on several nodes: each node's files and a Redis hash each (`tm:keys`, `tm:budgets`) exchange
what they know.

A union in which a revocation, or an end, always wins (core/union.py), so nodes may do this in any order and at any
time; a Redis that lost its data gets everything back from the files. Only hashes of secrets are exchanged. Without a
shared secret whoever may write to this Redis may add keys and budgets; with one (`Seal`) only what a node has sealed is
taken over. A node's own file is trusted: what is in it is sealed anew where Redis has it otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec

from taximeter.core.sealed import Opened, Seal
from taximeter.node.stored_list import StoredList
from taximeter.sinks.redis.client import RedisServer

log = logging.getLogger(__name__)


class Named(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Named)


class Sealing:
    """How entries are sealed, and which refused ones the log has told of."""

    def __init__(self, seal: Seal | None = None) -> None:
        """None: entries are not sealed, and all are taken."""
        self.seal = seal
        self._told: set[tuple[str, bytes]] = set()

    def put(self, where: str, name: str, entry: bytes) -> bytes:
        return entry if self.seal is None else self.seal.put(where, name, entry)

    def open(self, where: str, name: bytes, value: bytes) -> Opened | None:
        return Opened(value, current=True) if self.seal is None else self.seal.open(where, name, value)

    def tell(self, where: str, name: bytes, words: str) -> None:
        """Say once what is refused: it is looked at every two seconds."""
        if (where, name) not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add((where, name))
            log.warning("Redis: %s holds something under %r that %s", where, name[:80], words)


_MOST_TOLD = 1_000


WHOLE_S = 60.0
"""How long nothing may be read where nobody says that there is something new."""


class Seen:
    """What one exchange leaves for the next, so that a thousand nodes do not read every key every two seconds."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._state: tuple[object, object, bytes | None] = (None, None, None)
        self._at_s = 0.0

    def is_new(self, stored: object, sealing: object, version: bytes | None) -> bool:
        """Whether the file, or what is in Redis, is another than at the last exchange; or that was long ago."""
        before = self._state
        same = stored is before[0] and sealing is before[1] and version == before[2]
        return not same or self._clock_s() - self._at_s >= WHOLE_S

    def keep(self, stored: object, sealing: object, version: bytes | None) -> None:
        self._state, self._at_s = (stored, sealing, version), self._clock_s()


async def exchange(
    server: RedisServer, store: StoredList[Item, Any], sealing: Sealing | None = None, seen: Seen | None = None
) -> None:
    """Bring this node's keys, or budgets, and those in Redis together. Raises redis.client.ERRORS, or DataDirError.

    Who writes there says so in `tm:{tm:keys}:version`, in one slot with the hash and after it; who has `seen` that
    version has everything before it.
    """
    where, sealing = f"tm:{store.name}", sealing or Sealing()
    version = await server.command("GET", f"tm:{{{where}}}:version") if seen is not None else None
    if seen is not None and not seen.is_new(store.stored(), sealing, version):
        return
    theirs = _read(where, await server.command("HGETALL", where), store, sealing)
    merged = await asyncio.to_thread(store.absorb, [item for item, _ in theirs])
    known = {item.id: item for item, current in theirs if current}
    news = [item for item in merged if known.get(item.id) != item]
    if news:
        sealed = [(item.id, sealing.put(where, item.id, msgspec.json.encode(item))) for item in news]
        said: list[tuple[str | int | bytes, ...]] = [("HSET", where, name, value) for name, value in sealed]
        await server.commands([*said, ("SET", f"tm:{{{where}}}:version", secrets.token_hex(8))])
    if seen is not None:
        seen.keep(store.stored(), sealing, version)


def _read(
    where: str, flat: dict[bytes, bytes], store: StoredList[Item, Any], sealing: Sealing
) -> list[tuple[Item, bool]]:
    """The items of the hash, and whether each is sealed as it is now. What is none is left out and logged."""
    found = []
    for name, value in flat.items():
        opened = sealing.open(where, name, value)
        if opened is None:
            sealing.tell(where, name, "is not sealed with the shared secret, so it is not taken over.")
            continue
        try:
            item = msgspec.json.decode(opened.entry, type=store.kind)
        except (ValueError, RecursionError):
            item = None
        if item is None or item.id.encode() != name or not store.is_sound(item):
            sealing.tell(where, name, "does not belong there")
            continue
        found.append((item, opened.current))
    return found
