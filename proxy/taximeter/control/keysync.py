"""Proxy keys on several nodes: each node's file and one Redis hash exchange what they know until all know the same.

A union in which a revocation always wins (core.keys.merge), so nodes may do this in any order and at any time; a
Redis that lost its data gets the keys back from the files. Only hashes of secrets are exchanged. Whoever may write
to this Redis may add keys: it is trusted as the data directory is.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from taximeter.control.keyring import KeyRing
from taximeter.core.keys import ProxyKey, is_digest
from taximeter.core.tags import is_valid
from taximeter.sinks.redis_client import RedisServer

log = logging.getLogger(__name__)

KEYS = "tm:keys"
"""Hash key id -> the stored key as JSON."""

_decode = msgspec.json.Decoder(ProxyKey).decode


async def exchange(server: RedisServer, ring: KeyRing) -> None:
    """Bring this node's keys and those in Redis together. Raises redis_client.ERRORS, or DataDirError."""
    theirs = _read(await server.command("HGETALL", KEYS))
    merged = await asyncio.to_thread(ring.absorb, theirs)
    known = {key.id: key for key in theirs}
    news = [key for key in merged if known.get(key.id) != key]
    if news:
        await server.commands([("HSET", KEYS, key.id, msgspec.json.encode(key)) for key in news])


def _read(flat: dict[bytes, bytes]) -> list[ProxyKey]:
    """The keys of the hash. What is no key is left out and logged."""
    found = []
    for name, value in flat.items():
        try:
            key = _decode(value)
        except (ValueError, RecursionError):
            key = None
        if key is None or key.id.encode() != name or not is_digest(key.sha256) or not is_valid(key.workspace):
            log.warning("Redis: %s holds something that is no key under %r", KEYS, name[:80])
            continue
        found.append(key)
    return found
