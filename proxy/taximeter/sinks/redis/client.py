"""A Redis, and scripts run there once each, in pipelines.

Nothing is ever sent twice by the client itself: after an error nobody knows whether a command took effect, and
only the caller can find out. Knows nothing of counters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from redis.asyncio import RedisCluster
from redis.exceptions import NoScriptError, RedisClusterException, RedisError, ResponseError

from taximeter.config.addresses import masked
from taximeter.sinks.redis.connect import connect

ERRORS = (RedisError, RedisClusterException, OSError)
"""What talking to a Redis may raise. RedisClusterException is not a RedisError in redis-py."""


class Script:
    """A Lua script from a file of a package, with `checks.lua` from here before it.

    It is applied whole or not at all: everything is checked before the first write.
    """

    def __init__(self, file: str, package: str = __package__, *, inside: tuple[str, str] | None = None) -> None:
        """`inside`: two more files of the package; the script is the function of its name between them."""
        script = resources.files(package).joinpath(file).read_bytes()
        if inside is not None:
            before, after = (resources.files(package).joinpath(each).read_bytes() for each in inside)
            name = file.removesuffix(".lua").encode()
            script = b"%b\nlocal function %b()\n%b\nend\n%b" % (before, name, script, after)
        self.source = resources.files(__package__).joinpath("checks.lua").read_bytes() + script
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()


Call = tuple[Sequence[str], Sequence[str | int]]
"""KEYS and ARGV of one run of a script."""


class RedisServer:
    """The Redis at a URL, whichever its topology (see `connect`).

    Methods raise redis-py's errors and OSError (`ERRORS`); the constructor raises ConfigError and does not connect.
    """

    def __init__(self, url: str, *, timeout_s: float | None = 5.0) -> None:
        """`timeout_s` bounds connecting and each wait for a reply; None: nothing does, the caller has a bound."""
        self.shown = masked(url)
        """The URL for messages: no password in it."""
        self._client, self._sentinel = connect(url, timeout_s)
        self.is_cluster = isinstance(self._client, RedisCluster)

    async def run(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """Run a script once for each call, pipelined; the replies, in order, with an exception in place of a reply.

        Only what the server says it did not run (it does not have the script) is sent again, with the source.
        """
        replies = await self._pipelined([("EVALSHA", script.sha, len(k), *k, *a) for k, a in calls])
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = [("EVAL", script.source, len(calls[i][0]), *calls[i][0], *calls[i][1]) for i in unknown]
            for i, reply in zip(unknown, await self._pipelined(again), strict=True):
                replies[i] = reply
        return replies

    async def commands(self, commands: Sequence[tuple[str | int | bytes, ...]]) -> list[Any]:
        """Send commands of one key each, pipelined; the replies, in order. Raises the first error."""
        return raised(await self._pipelined(commands))

    async def command(self, *command: str | int | bytes) -> Any:
        """Send one command."""
        return (await self.commands([command]))[0]

    async def _pipelined(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        if len(commands) == 1 and not self.is_cluster:  # a pipeline for one costs a fifth more, and a task
            try:
                return [await self._client.execute_command(*commands[0])]
            except ResponseError as error:
                return [error]
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies

    async def scan(self, match: str) -> list[str]:
        """Every key that matches, of every primary."""
        return [key.decode() async for key in self._client.scan_iter(match=match, count=1000)]

    async def memory(self) -> list[dict[str, Any]]:
        """`INFO memory` of every primary."""
        target = {"target_nodes": RedisCluster.PRIMARIES} if self.is_cluster else {}
        found = await self._client.execute_command("INFO", "memory", **target)
        return [found] if "used_memory" in found else list(found.values())

    async def reset(self) -> None:
        """Drop idle connections and what is known of the topology: the next command starts afresh."""
        if self.is_cluster:
            await self._client.aclose()
        else:
            await self._client.connection_pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()
        if self._sentinel is not None:
            await self._sentinel.aclose()


def raised(replies: list[Any]) -> list[Any]:
    """The replies if none is an exception, else the first exception, raised."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies
