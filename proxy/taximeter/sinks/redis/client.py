"""A Redis by URL (one server, Sentinel, Cluster; TLS), and scripts run there once each, in pipelines.

Nothing is ever sent twice by the client itself: after an error nobody knows whether a command took effect, and
only the caller can find out. Knows nothing of counters.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MaxConnectionsError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.maint_notifications import MaintNotificationsConfig

from taximeter.config.addresses import masked
from taximeter.core.errors import ConfigError

SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")

ERRORS = (RedisError, RedisClusterException, OSError)
"""What talking to a Redis may raise. RedisClusterException is not a RedisError in redis-py."""


class Script:
    """A Lua script from a file of a package, with `checks.lua` from here before it.

    It is applied whole or not at all: everything is checked before the first write.
    """

    def __init__(self, file: str, package: str = __package__) -> None:
        checks, script = resources.files(__package__).joinpath("checks.lua"), resources.files(package).joinpath(file)
        self.source = checks.read_bytes() + script.read_bytes()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()


Call = tuple[Sequence[str], Sequence[str | int]]
"""KEYS and ARGV of one run of a script."""


class RedisServer:
    """The Redis at a URL, whichever its topology.

    - `redis://[user:password@]host:port/db`, `rediss://…` (TLS; `?ssl_ca_certs=FILE` and redis-py's other ssl_ options)
    - `redis+cluster://[user:password@]host:port[,host:port…]`
    - `redis+sentinel://[user:password@]host:port[,host:port…]/<service>[/db]`; the Sentinels' own credentials as
      `?sentinel_username=…&sentinel_password=…`
    - `rediss+cluster://`, `rediss+sentinel://`: the same with TLS

    Methods raise redis-py's errors and OSError (`ERRORS`); the constructor raises ConfigError and does not connect.
    """

    def __init__(self, url: str, *, timeout_s: float | None = 5.0) -> None:
        """`timeout_s` bounds connecting and each wait for a reply; None: nothing does, the caller has a bound."""
        self.shown = masked(url)
        """The URL for messages: no password in it."""
        self._sentinel: Sentinel | None = None
        parts = urlsplit(url)
        topology = parts.scheme.partition("+")[2]
        try:
            if parts.scheme not in SCHEMES:
                raise ValueError(f"the scheme is one of {', '.join(f'{s}://' for s in SCHEMES)}")
            options = _options(parts, timeout_s)
            self._client: Any = self._connect(topology, parts, options)
        except (ValueError, TypeError, RedisError, RedisClusterException) as error:
            raise ConfigError(f"redis.url {self.shown!r} cannot be used: {masked(str(error))}") from error
        self.is_cluster = topology == "cluster"

    def _connect(self, topology: str, parts: SplitResult, options: dict[str, Any]) -> Any:
        if not topology:
            return Redis(**options)
        hosts = _hosts(parts, 26379 if topology == "sentinel" else 6379)
        del options["host"]
        options.pop("port", None)
        if topology == "cluster":
            if parts.path.strip("/0") or options.pop("db", 0):
                raise ValueError("a Cluster has no database numbers")
            nodes = [ClusterNode(host, port) for host, port in hosts]
            return RedisCluster(startup_nodes=nodes, **options)
        service, _, db = parts.path.strip("/").partition("/")
        if not service:
            raise ValueError("name the Sentinel service as the path: redis+sentinel://host:26379/<service>")
        options["db"] = int(db or 0)
        own = {name.removeprefix("sentinel_"): options.pop(name) for name in list(options) if "sentinel_" in name}
        shared = {k: v for k, v in options.items() if k.startswith(("socket_", "ssl")) or k in ("retry", _MAINT)}
        self._sentinel = Sentinel(hosts, sentinel_kwargs=shared | own)  # type: ignore[no-untyped-call]
        return self._sentinel.master_for(service, **options)

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

    async def memory_policies(self) -> list[tuple[int, str]] | None:
        """(maxmemory in bytes, eviction policy) of every primary; None where this Redis does not let us ask."""
        target = {"target_nodes": RedisCluster.PRIMARIES} if self.is_cluster else {}
        try:
            answer = await self._client.execute_command("INFO", "memory", **target)
        except NoPermissionError:
            return None
        except ResponseError as error:  # a hosted Redis may have removed the command
            if "unknown command" in str(error).lower():
                return None
            raise
        infos = answer.values() if "used_memory" not in answer else [answer]
        if not all("maxmemory_policy" in info for info in infos):
            return None
        return [(int(info.get("maxmemory", 0)), str(info["maxmemory_policy"])) for info in infos]

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


_MAINT = "maint_notifications_config"


def _options(parts: SplitResult, timeout_s: float | None) -> dict[str, Any]:
    """redis-py's keyword arguments of a URL, for its first host."""
    tls = parts.scheme.startswith("rediss")
    credentials, at, hosts = parts.netloc.rpartition("@")
    netloc = credentials + at + hosts.split(",")[0]
    query = urlencode([(k, v) for k, v in parse_qsl(parts.query)])
    path = "" if "+" in parts.scheme else parts.path
    plain = SplitResult("rediss" if tls else "redis", netloc, path, query, "").geturl()
    options: dict[str, Any] = dict(parse_url(plain))
    options.setdefault("host", "127.0.0.1")
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        **options,
        # redis-py resends a whole pipeline after a lost reply, ten times by default. Never: see the module's docstring.
        "retry": Retry(NoBackoff(), 0),
        _MAINT: MaintNotificationsConfig(enabled=False),
    }


def _hosts(parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    found = []
    for host in parts.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{host}")
        if not one.hostname:
            raise ValueError(f"{host!r} is not host:port")
        found.append((one.hostname, one.port or default_port))
    return found


def answered(error: BaseException) -> bool:
    """Whether a server is there and will not do what it was asked (it is full, or does not let us), as against one that
    is away, or is not the primary (any more, or yet)."""
    return isinstance(error, ResponseError) and not isinstance(error, _NOT_PRIMARY)


_NOT_PRIMARY = (ReadOnlyError, ClusterDownError, TryAgainError, AskError)
"""Of a fail-over, or of slots that move (MovedError is an AskError, MasterDownError a ClusterDownError)."""


def is_ours(error: BaseException) -> bool:
    """Whether a failure to talk to Redis is this process's own: it has no descriptor, port or memory left."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MaxConnectionsError) or (isinstance(seen, OSError) and seen.errno in _OUR_ERRNOS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


_OUR_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})


def raised(replies: list[Any]) -> list[Any]:
    """The replies if none is an exception, else the first exception, raised."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies
