"""Whether a Redis may be counted into: it evicts no keys, and nodes that share it share a history (DESIGN §1).

And what many nodes on it share out, so that a thousand ask no more of it than a few: see `Fleet` and `Turn`.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable

from redis.exceptions import NoPermissionError, ResponseError

from taximeter.core.errors import ConfigError
from taximeter.sinks.redis.client import RedisServer
from taximeter.sinks.redis.keys import NODES

log = logging.getLogger("taximeter.counters")

LIVE_S = 120
"""A node not heard of for this long, by Redis's own clock, is gone."""


ENOUGH = 8
"""So many nodes look after what is everybody's as often as one alone would; of more, each does it more rarely."""


class Fleet:
    """How many nodes count here, as far as this one knows."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self.nodes = 1
        self._chance = chance

    def turn(self) -> bool:
        """Whether this node does now what any node could do for all: of a thousand that ask, about ENOUGH do."""
        return self.nodes <= ENOUGH or self._chance() * self.nodes < ENOUGH


class Turn:
    """What one node at a time does for all: the first to come, another when that has not been there for `lives_s`."""

    def __init__(self, server: RedisServer, key: str, node: str, lives_s: float) -> None:
        """`node`: one that was killed and comes again goes on with what was its."""
        self._server, self._key, self._node, self._lives_ms = server, key, node.encode(), round(lives_s * 1_000)

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[bool]:
        """Whether it is this node's. One that fails at it leaves it to the others. Raises redis.client.ERRORS."""
        command = self._server.command
        ours = bool(await command("SET", self._key, self._node, "NX", "PX", self._lives_ms))
        if not ours and await command("GET", self._key) == self._node:
            ours = bool(await command("PEXPIRE", self._key, self._lives_ms))
        try:
            yield ours
        except Exception:
            if ours:
                await self.leave()
            raise

    async def leave(self) -> None:
        """Where it is this node's, it is anybody's from now on."""
        if await self._server.command("GET", self._key) == self._node:
            await self._server.command("DEL", self._key)


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


async def register_node(server: RedisServer, node: str, history_id: str, fleet: Fleet) -> None:
    """Enter or refresh this node. Raises ConfigError, and takes it off again, when a live node has another history.

    It enters first and looks afterwards: of two that start at once with different histories one sees the other. Later
    it looks when it was taken off meanwhile, or it is its turn: whoever comes looks at those that are there.
    """
    now_s = int((await server.command("TIME"))[0])
    entered = await server.command("HSET", NODES, node, f"{history_id} {now_s}")
    if not entered and not fleet.turn():
        return
    nodes = _pairs(await server.command("HGETALL", NODES))
    fleet.nodes = sum(now_s - int(entry.rpartition(" ")[2]) <= LIVE_S for _, entry in nodes)
    for other, entry in nodes:
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
