"""One Redis for all nodes: commands take a while to get there and back, and either way may be lost."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextvars import Context
from functools import cache
from typing import Any

from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as Silent

from simulation.virtual.loop import SimLoop
from simulation.virtual.redis_model import RedisModel
from simulation.virtual.world import World
from taximeter.sinks.redis.client import Script

Command = tuple[Any, ...]


class RedisHost:
    """The server, and the net before it."""

    def __init__(self, world: World, loop: SimLoop) -> None:
        self.model = RedisModel(lambda: world.wall_ns() // 1_000_000)
        self.world = world
        self.loop = loop
        self.down = False
        self.forgot_s: list[float] = []
        """When it lost something that it had known."""
        self.life = 0
        """Which of its lives: connections do not outlive one."""
        self.loses_requests = 0
        """So many of the next pipelines do not get here, or only their beginning does."""
        self.loses_replies = 0
        """So many of the next get here, and their replies nowhere."""
        self.slow_s = 0.0
        self._scripts = {text: name for name, script in _scripts() for text in (script.sha, str(script.source))}
        self.watch: Callable[[], None] | None = None
        """Is to have a look whenever a script has run."""

    def told(self, commands: Sequence[Command]) -> str:
        """For the story: the first command and its key, or its script, and how many there are."""
        name, first = str(commands[0][0]), str(commands[0][1]) if len(commands[0]) > 1 else ""
        if name.startswith("EVAL"):
            name, first = "script", self._scripts.get(first, "unknown")
        return f"redis {name} {first[:60]}" if len(commands) == 1 else f"redis {name} {first[:60]} … ×{len(commands)}"

    def client(self, timeout_s: float | None) -> SimRedis:
        return SimRedis(self, timeout_s)

    def restart(self, snapshot: Any) -> None:
        """It is another one now, that knows what the snapshot does. Connections are gone."""
        self.model.restore(snapshot)
        self.life += 1

    def trip_s(self) -> float:
        return self.world.order.expovariate(1 / 0.0003) + 0.00005 + self.slow_s


@cache
def _scripts() -> list[tuple[str, Script]]:
    """The product's, by module and name."""
    return [
        (f"{module_name.rpartition('.')[2]}.{name.strip('_').lower()}", thing)
        for module_name, module in list(sys.modules.items())
        if module_name.startswith("taximeter.")
        for name, thing in list(vars(module).items())
        if isinstance(thing, Script)
    ]


@contextlib.contextmanager
def listening(host: RedisHost) -> Iterator[None]:
    """Whatever URL the product connects to in the block, it is this one."""
    module: Any = importlib.import_module("taximeter.sinks.redis.client")
    real, module.connect = module.connect, lambda url, timeout_s: (host.client(timeout_s), None)
    try:
        yield
    finally:
        module.connect = real


class SimRedis:
    """What `connect` gives: as much of redis-py's client as the product uses."""

    def __init__(self, host: RedisHost, timeout_s: float | None) -> None:
        self._host = host
        self._timeout_s = timeout_s
        self.connection_pool = self

    async def disconnect(self, *, inuse_connections: bool = True) -> None:
        """Connections are made anew with every command."""

    async def aclose(self) -> None:
        """See `disconnect`."""

    async def execute_command(self, *command: Any, **_: Any) -> Any:
        [reply] = await self.send([command])
        if isinstance(reply, Exception):
            raise reply
        return reply

    def pipeline(self, *, transaction: bool) -> Pipeline:
        assert not transaction
        return Pipeline(self)

    async def scan_iter(self, match: str, count: int) -> AsyncIterator[bytes]:
        [found] = await self.send([("SCAN", match.partition("[")[0].removesuffix("*"))])
        for key in found:
            yield key

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """The replies. Raises redis-py's errors where none come."""
        host, world = self._host, self._host.world
        what = host.told(commands)
        world.step(what)
        world.counts["redis commands"] += len(commands)
        answer: asyncio.Future[list[Any]] = host.loop.create_future()
        request = _Request(host, commands, answer)
        host.loop.call_later(host.trip_s(), request.arrive, context=Context())
        try:
            async with asyncio.timeout(self._timeout_s):
                replies = await answer
        except TimeoutError:
            raise Silent("Timeout reading from the simulated Redis") from None
        world.step(f"{what} answered")
        return replies


class Pipeline:
    """Commands sent together: others' may come between them."""

    def __init__(self, client: SimRedis) -> None:
        self._client = client
        self._commands: list[Command] = []

    def execute_command(self, *command: Any) -> None:
        self._commands.append(command)

    async def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        return await self._client.send(self._commands) if self._commands else []


class _Request:
    """On its way: it goes on when whoever sent it has died."""

    def __init__(self, host: RedisHost, commands: Sequence[Command], answer: asyncio.Future[list[Any]]) -> None:
        self._host = host
        self._commands = commands
        self._answer = answer
        self._replies: list[Any] = []
        self._life = host.life
        luck = host.world.luck
        self._cut_at: int | None = None
        self._silent = False
        if host.loses_requests:
            host.loses_requests -= 1
            self._cut_at = luck.randrange(len(commands))
        elif host.loses_replies:
            host.loses_replies -= 1
            self._cut_at = len(commands)
        if self._cut_at is not None:
            self._silent = luck.random() < 0.3

    def arrive(self) -> None:
        """Carry out some commands, then the next ones a little later."""
        host = self._host
        if host.down or host.life != self._life:
            self._fail("Connection refused" if host.down else "Connection closed by server.")
            return
        at = len(self._replies)
        while at < len(self._commands):
            if at == self._cut_at:
                break
            self._replies.append(_shaped(host.model, self._commands[at]))
            if host.watch is not None and self._commands[at][0] in ("EVAL", "EVALSHA"):
                host.watch()
            at += 1
            if host.world.order.random() < 0.04 and at < len(self._commands):
                host.loop.call_later(0.00002, self.arrive, context=Context())
                return
        if self._cut_at is not None:
            host.world.counts["requests and commits that met a fault"] += 1
            how = "nobody hears of it" if self._silent else "its connection breaks"
            host.world.tell(f"redis: {at} of {len(self._commands)} commands were carried out, and {how}")
            if not self._silent:
                self._fail("Connection reset by peer")
            return
        host.loop.call_later(host.trip_s(), self._reply, context=Context())

    def _reply(self) -> None:
        if self._host.life != self._life:
            self._fail("Connection closed by server.")
        elif not self._answer.done():
            self._answer.set_result(self._replies)

    def _fail(self, why: str) -> None:
        if not self._answer.done():
            self._answer.set_exception(NoConnection(why))


def _shaped(model: RedisModel, command: Command) -> Any:
    """A reply as redis-py gives it."""
    name = str(command[0]).upper()
    if name == "INFO":
        return {"used_memory": 1, "maxmemory": 0, "maxmemory_policy": "noeviction"}
    if name == "SCAN":
        return model.scan(str(command[1]).encode())
    reply = model.call(*command)
    if isinstance(reply, ResponseError):
        return reply
    if name == "HGETALL":
        return dict(zip(reply[::2], reply[1::2], strict=True))
    return set(reply) if name == "SMEMBERS" else reply
