"""`serve`: from checked settings to running children, and back to nothing in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec
from msgspec.structs import replace

from taximeter import __version__
from taximeter.config import Settings
from taximeter.config.addresses import masked
from taximeter.core.errors import TaximeterError
from taximeter.node.child import Boot, Slot
from taximeter.node.datadir import DataDir, Runtime
from taximeter.node.descriptors import raise_limit
from taximeter.node.embedded_valkey import EmbeddedValkey
from taximeter.node.logs import log_to_stderr
from taximeter.supervisor.keeper import Keeper, StartError
from taximeter.supervisor.listening import address_of, listen
from taximeter.supervisor.process import Process
from taximeter.supervisor.valkey import ValkeyProcess

WORKER, CONTROL, PRICES = "taximeter.gateway.worker", "taximeter.control.process.main", "taximeter.supervisor.prices"

VALKEY_WAIT_S = 10.0
"""A Valkey that loads a large file for longer is not waited for: calls are relayed, and counted once it is there."""
MARGIN_S = 15.0
"""Beyond limits.shutdown_s: what a worker may take to settle cancelled calls before it is killed."""
DRAIN_S = 30.0
"""What control may take to deliver the last records; they are in the journal in any case."""


class Inherited(msgspec.Struct, frozen=True):
    """What children get by file descriptor."""

    data: socket.socket
    control: socket.socket
    boot: IO[bytes]
    lock_fd: int


def serve(settings: Settings, announce: Callable[[Runtime], None]) -> None:
    """Run until SIGTERM or SIGINT. `announce` is called once everything serves.

    Raises DataDirError, ListenError, ValkeyError, StartError when it cannot start.
    """
    from setproctitle import setproctitle

    setproctitle("taximeter: supervisor")
    log_to_stderr("supervisor", settings.log)
    raise_limit()
    os.umask(0o077)  # the children's too: Valkey's and SQLite's files, which name no mode, are for this user alone
    data_dir = DataDir(Path(settings.data_dir))
    with contextlib.ExitStack() as opened:
        opened.callback(data_dir.release)
        lock = data_dir.children_lock()
        opened.callback(os.close, lock)
        data = opened.enter_context(listen("listen", settings.listen))
        control = opened.enter_context(listen("admin_listen", settings.admin_listen))
        boot = opened.enter_context(tempfile.TemporaryFile())
        supervisor = Supervisor(settings, data_dir, Inherited(data, control, boot, lock))
        try:
            asyncio.run(supervisor.run(announce))
        except BaseExceptionGroup as group:
            ours = group.subgroup(TaximeterError)
            if ours is None:
                raise
            raise _first_leaf(ours) from None


def _first_leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class Supervisor:
    """One node's processes. Create it inside no loop; `run` it once."""

    def __init__(self, settings: Settings, data_dir: DataDir, inherited: Inherited) -> None:
        self.settings = settings
        self.data_dir = data_dir
        self.inherited = inherited
        self.prepared = asyncio.Event()
        self.stopping = asyncio.Event()
        self.valkey: list[Keeper] = []
        self.server = None if settings.redis.url else EmbeddedValkey(data_dir.path, port=settings.redis.embedded_port)
        if self.server is not None:
            server, log_file = self.server, self.server.log_file
            self.valkey = [Keeper("valkey", lambda: ValkeyProcess(server), self.stopping, f"see its log {log_file}")]
        self.control = self._keeper("control", CONTROL, inherited.control)
        self.workers = [
            self._keeper(f"worker {number}", WORKER, inherited.data, number)
            for number in range(1, settings.workers + 1)
        ]
        self.pricing: Process | None = None

    @property
    def keepers(self) -> list[Keeper]:
        """Valkey first: its address is known as soon as it was started."""
        return [*self.valkey, self.control, *self.workers]

    async def run(self, announce: Callable[[Runtime], None]) -> None:
        """Start, watch, and end in order. Raises StartError, in an ExceptionGroup."""
        self._hear_signals()
        try:
            async with asyncio.TaskGroup() as group:
                for keeper in self.keepers:
                    group.create_task(keeper.run())
                group.create_task(self._prepare())
                starting = group.create_task(self._start(announce))
                await self.stopping.wait()
                starting.cancel()
                await self._end_in_order()
        finally:
            await self._end_in_order()

    async def _prepare(self) -> None:
        """Tell children what they have to know; let them go once the prices are there."""
        boot = Boot(
            settings=replace(self.settings, data_dir=str(self.data_dir.path)),
            node=self.data_dir.node(self.settings.node),
            redis_url=self.server.url if self.server else self.settings.redis.url,
            redis_url_file=str(self.server.url_file) if self.server else "",
            prices_file=str(self.data_dir.path / "prices.json"),
        )
        self.inherited.boot.write(msgspec.json.encode(boot))
        self.inherited.boot.flush()
        self.pricing = Process(PRICES, self._slot(), _set())
        await self.pricing.watch()
        if self.pricing.check() and not self.stopping.is_set():
            raise StartError("The prices cannot be used; the reason is above.")
        self.prepared.set()

    async def _start(self, announce: Callable[[Runtime], None]) -> None:
        """Wait until everything serves, and say so."""
        for keeper in (self.control, *self.workers):
            await keeper.ready.wait()
        for keeper in self.valkey:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(keeper.ready.wait(), VALKEY_WAIT_S)
        runtime = Runtime(
            pid=os.getpid(),
            version=__version__,
            node=self.data_dir.node(self.settings.node),
            listen=address_of(self.inherited.data),
            admin_listen=address_of(self.inherited.control),
            workers=len(self.workers),
            redis_url=masked(self.server.url if self.server else self.settings.redis.url),
            redis_url_file=str(self.server.url_file) if self.server else "",
            started_at=time.time_ns() // 1_000,
        )
        self.data_dir.publish(runtime)
        announce(runtime)

    async def _end_in_order(self) -> None:
        """Workers first, so that control sees their last records; Valkey last, so that control can deliver them."""
        self.stopping.set()
        self.inherited.data.close()
        if self.pricing is not None and self.pricing.check() is None:
            self.pricing.kill()
        async with asyncio.TaskGroup() as group:
            for worker in self.workers:
                group.create_task(worker.end(self.settings.limits.shutdown_s + MARGIN_S))
        await self.control.end(DRAIN_S)
        self.inherited.control.close()
        for valkey in self.valkey:
            await valkey.end(DRAIN_S)

    def _keeper(self, name: str, module: str, listener: socket.socket, number: int = 0) -> Keeper:
        slot = self._slot(listener, number)
        return Keeper(name, lambda: Process(module, slot, self.prepared), self.stopping)

    def _slot(self, listener: socket.socket | None = None, number: int = 0) -> Slot:
        return Slot(
            number=number,
            socket_fd=listener.fileno() if listener else -1,
            boot_fd=self.inherited.boot.fileno(),
            lock_fd=self.inherited.lock_fd,
        )

    def _hear_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._look)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                loop.add_signal_handler(number, self._told_to_stop, number)

    def _look(self) -> None:
        for child in (self.pricing, *(keeper.child for keeper in self.keepers)):
            if child is not None:
                child.check()

    def _told_to_stop(self, number: int) -> None:
        """The first time in order; the second time at once."""
        if not self.stopping.is_set():
            self.stopping.set()
            return
        for keeper in (*self.workers, self.control):
            if keeper.child is not None and not keeper.child.exited.is_set():
                keeper.child.kill()
        for keeper in self.valkey:
            if keeper.child is not None and not keeper.child.exited.is_set():
                keeper.child.terminate()  # it ends by itself, with its file whole
        os._exit(128 + number)


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
