"""A client of redis-py for a URL: one server, Sentinel or Cluster; TLS."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError
from redis.maint_notifications import MaintNotificationsConfig

from taximeter.config.addresses import masked
from taximeter.core.errors import ConfigError

SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")

_MAINT = "maint_notifications_config"


def connect(url: str, timeout_s: float | None) -> tuple[Any, Sentinel | None]:
    """The client, and the Sentinel it asks where the primary is; both have to be closed. Nothing is connected yet.

    - `redis://[user:password@]host:port/db`, `rediss://…` (TLS; `?ssl_ca_certs=FILE` and redis-py's other ssl_ options)
    - `redis+cluster://[user:password@]host:port[,host:port…]`
    - `redis+sentinel://[user:password@]host:port[,host:port…]/<service>[/db]`; the Sentinels' own credentials as
      `?sentinel_username=…&sentinel_password=…`
    - `rediss+cluster://`, `rediss+sentinel://`: the same with TLS

    `timeout_s` bounds connecting and each wait for a reply. Raises ConfigError.
    """
    parts = urlsplit(url)
    try:
        if parts.scheme not in SCHEMES:
            raise ValueError(f"the scheme is one of {', '.join(f'{s}://' for s in SCHEMES)}")
        return _client(parts.scheme.partition("+")[2], parts, _options(parts, timeout_s))
    except (ValueError, TypeError, RedisError, RedisClusterException) as error:
        raise ConfigError(f"redis.url {masked(url)!r} cannot be used: {masked(str(error))}") from error


def _client(topology: str, parts: SplitResult, options: dict[str, Any]) -> tuple[Any, Sentinel | None]:
    if not topology:
        return Redis(**options), None
    hosts = _hosts(parts, 26379 if topology == "sentinel" else 6379)
    del options["host"]
    options.pop("port", None)
    if topology == "cluster":
        if parts.path.strip("/0") or options.pop("db", 0):
            raise ValueError("a Cluster has no database numbers")
        nodes = [ClusterNode(host, port) for host, port in hosts]
        return RedisCluster(startup_nodes=nodes, **options), None
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("name the Sentinel service as the path: redis+sentinel://host:26379/<service>")
    options["db"] = int(db or 0)
    own = {name.removeprefix("sentinel_"): options.pop(name) for name in list(options) if "sentinel_" in name}
    shared = {k: v for k, v in options.items() if k.startswith(("socket_", "ssl")) or k in ("retry", _MAINT)}
    sentinel = Sentinel(hosts, sentinel_kwargs=shared | own)  # type: ignore[no-untyped-call]
    return sentinel.master_for(service, **options), sentinel


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
