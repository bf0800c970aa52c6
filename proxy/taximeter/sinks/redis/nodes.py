"""Whether a Redis may be counted into: it evicts no keys, and nodes that share it share a history (DESIGN §1)."""

from __future__ import annotations

import logging

from redis.exceptions import NoPermissionError, ResponseError

from taximeter.core.errors import ConfigError
from taximeter.sinks.redis.client import RedisServer
from taximeter.sinks.redis.keys import NODES

log = logging.getLogger("taximeter.counters")

LIVE_S = 120
"""A node not heard of for this long, by Redis's own clock, is gone."""


async def refuse_eviction(server: RedisServer) -> None:
    """Raise ConfigError if this Redis is allowed to throw counters away to make room."""
    try:
        infos = await server.memory()
    except ResponseError as error:  # a hosted Redis may have removed the command, or not let us ask
        if not isinstance(error, NoPermissionError) and "unknown command" not in str(error).lower():
            raise
        infos = []
    if not infos or not all("maxmemory_policy" in info for info in infos):
        log.warning("%s does not tell its eviction policy; it must be noeviction", server.shown)
        return
    for info in infos:
        maxmemory, policy = int(info.get("maxmemory", 0)), str(info["maxmemory_policy"])
        if maxmemory and policy != "noeviction":
            raise ConfigError(
                f"{server.shown} has maxmemory {maxmemory} and maxmemory-policy {policy}: it would drop "
                "counters to make room. Set maxmemory-policy noeviction, or use a Redis of its own."
            )


async def register_node(server: RedisServer, node: str, history_id: str) -> None:
    """Enter or refresh this node. Raises ConfigError, and takes it off again, when a live node has another history.

    It enters first and looks afterwards: of two that start at once with different histories one sees the other.
    """
    now_s = int((await server.command("TIME"))[0])
    await server.command("HSET", NODES, node, f"{history_id} {now_s}")
    flat = await server.command("HGETALL", NODES)
    for other, entry in _pairs(flat):
        its_history, _, seen_s = entry.rpartition(" ")
        if now_s - int(seen_s) > LIVE_S:
            await server.command("HDEL", NODES, other)
        elif other != node and its_history != history_id:
            await server.command("HDEL", NODES, node)
            raise ConfigError(
                f"Node {other!r} counts into {server.shown} from another history. Nodes that share a Redis must share "
                "a PostgreSQL history (history.url); give this node its own Redis otherwise. If that node is gone "
                f"for good, wait {LIVE_S} s."
            )


async def leave_nodes(server: RedisServer, node: str) -> None:
    """Take this node off the list."""
    await server.command("HDEL", NODES, node)


def _pairs(flat: object) -> list[tuple[str, str]]:
    """HGETALL's answer as text, whichever protocol version it came in."""
    assert isinstance(flat, dict)  # noqa: S101 - redis-py returns a dict in both protocol versions
    return [(key.decode(), value.decode()) for key, value in flat.items()]
