"""One node's processes: what each is started with, and the settings that those started from now on are told."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import Callable
from typing import IO

import msgspec
from msgspec.structs import replace

from taximeter.config import Settings
from taximeter.config.addresses import masked
from taximeter.node.child import Boot, Slot
from taximeter.node.datadir import DataDir
from taximeter.node.embedded_valkey import EmbeddedValkey
from taximeter.supervisor import placing
from taximeter.supervisor.keeper import Keeper
from taximeter.supervisor.process import Process
from taximeter.supervisor.valkey import ValkeyProcess

WORKER, CONTROL, PRICES = "taximeter.gateway.worker", "taximeter.control.process.main", "taximeter.supervisor.prices"
PRICE_FILES = ("prices.json", "prices.other.json")
"""Compiled prices, of each boot file."""


class Inherited(msgspec.Struct, frozen=True):
    """What children get by file descriptor."""

    data: socket.socket
    control: socket.socket
    boots: tuple[IO[bytes], IO[bytes]]
    """One holds the settings in force; the other, while they are exchanged, those that may be in force next."""
    lock_fd: int


class Processes:
    """All children. Those that the keepers start get the settings in boot file `boot`."""

    def __init__(
        self,
        settings: Settings,
        environ: dict[str, str],
        data_dir: DataDir,
        inherited: Inherited,
        stopping: asyncio.Event,
    ) -> None:
        """`environ`: what `env_file` holds. Nothing is started yet."""
        self.settings, self.environ = settings, environ
        self.data_dir = data_dir
        self.boot = 0
        self.prepared = asyncio.Event()
        """The settings and prices of the first start are there."""
        self.pricing: Process | None = None
        self.server = None if settings.redis.url else EmbeddedValkey(data_dir.path, port=settings.redis.embedded_port)
        self._inherited = inherited
        self._stopping = stopping
        self.valkey: list[Keeper] = []
        if self.server is not None:
            server, log_file = self.server, self.server.log_file
            self.valkey = [Keeper("valkey", lambda: self._start_valkey(server), stopping, f"see its log {log_file}")]
        self.control = Keeper("control", lambda: self._start(CONTROL, inherited.control), stopping)
        self.workers = [self.worker(number) for number in range(1, settings.workers + 1)]
        self.dismissed: list[Keeper] = []
        """Workers that are too many since the settings changed; they end behind their calls."""

    @property
    def keepers(self) -> list[Keeper]:
        """Valkey first: its address is known as soon as it was started."""
        return [*self.valkey, self.control, *self.workers]

    @property
    def redis_url(self) -> str:
        return self.server.url if self.server else self.settings.redis.url

    @property
    def redis_url_shown(self) -> str:
        return masked(self.redis_url)

    @property
    def redis_url_file(self) -> str:
        return str(self.server.url_file) if self.server else ""

    def worker(self, number: int) -> Keeper:
        """The slot of a worker."""
        return Keeper(f"worker {number}", lambda: self._start(WORKER, self._inherited.data, number), self._stopping)

    def next_worker(self, number: int, boot: int) -> Callable[[], Process]:
        """Starts a worker with the settings in a boot file, which takes no calls before it is told to."""
        return lambda: self._start(WORKER, self._inherited.data, number, boot=boot, hold=True)

    async def prepare(self, boot: int, settings: Settings, environ: dict[str, str]) -> str:
        """Write a boot file and compile its prices; returns why they cannot be used, "" where they can."""
        told = Boot(
            settings=replace(settings, data_dir=str(self.data_dir.path)),
            node=self.data_dir.node(settings.node),
            redis_url=self.redis_url,
            redis_url_file=self.redis_url_file,
            prices_file=str(self.data_dir.path / PRICE_FILES[boot]),
            environ=environ,
        )
        if boot != self.boot:
            self._copy_prices(self.boot, boot)  # so that it is seen whether they have changed
        file = self._inherited.boots[boot]
        file.seek(0)
        file.truncate()
        file.write(msgspec.json.encode(told))
        file.flush()
        self.pricing = pricing = self._start(PRICES, None, boot=boot, hold=boot != self.boot, prepared=_set())
        await pricing.watch()
        return (pricing.said or "The prices cannot be compiled.") if pricing.check() else ""

    def take(self, boot: int, settings: Settings, environ: dict[str, str]) -> None:
        """These are in force from now on, for every child that is started."""
        before = self._digest(self.boot)
        if (after := self._digest(boot)) != before:
            # Here, or every start would import what compiles prices, twice in the child that does.
            from taximeter.supervisor.prices import note_change

            note_change(self.data_dir.path, self.data_dir.node(settings.node), settings, before, after)
        with contextlib.suppress(OSError):  # at worst the next start compiles them again
            self._copy_prices(boot, self.boot)  # it looks at the first file
        self.boot, self.settings, self.environ = boot, settings, environ

    def _digest(self, boot: int) -> str:
        """What a boot file's prices were compiled from."""
        with contextlib.suppress(OSError):
            return (self.data_dir.path / f"{PRICE_FILES[boot]}.key").read_text()
        return ""

    def _copy_prices(self, source: int, target: int) -> None:
        for end in ("", ".key"):
            draft = self.data_dir.path / f".{PRICE_FILES[target]}{end}.new"
            shutil.copyfile(self.data_dir.path / f"{PRICE_FILES[source]}{end}", draft)
            draft.replace(self.data_dir.path / f"{PRICE_FILES[target]}{end}")

    def look(self) -> None:
        """See which children have ended (on SIGCHLD)."""
        if self.pricing is not None:
            self.pricing.check()
        for keeper in (*self.keepers, *self.dismissed):
            keeper.look()

    def tell(self, order: str) -> None:
        """Give an order to control and all workers."""
        for keeper in (self.control, *self.workers, *self.dismissed):
            for child in keeper.children:
                if isinstance(child, Process):
                    child.tell(order)

    def close_data_port(self) -> None:
        self._inherited.data.close()

    def close_control_port(self) -> None:
        self._inherited.control.close()

    def _start(
        self,
        module: str,
        listener: socket.socket | None,
        number: int = 0,
        *,
        boot: int | None = None,
        hold: bool = False,
        prepared: asyncio.Event | None = None,
    ) -> Process:
        slot = Slot(
            number=number,
            socket_fd=listener.fileno() if listener else -1,
            boot_fds=[file.fileno() for file in self._inherited.boots],
            boot=self.boot if boot is None else boot,
            lock_fd=self._inherited.lock_fd,
            hold=hold,
        )
        with placing.started_on(self._cores(number)):
            return Process(module, slot, prepared or self.prepared)

    def _start_valkey(self, server: EmbeddedValkey) -> ValkeyProcess:
        with placing.started_on(self._cores(0)):
            return ValkeyProcess(server)

    def _cores(self, number: int) -> placing.Cores:
        """Where worker `number` is to run, or (0) another child; none: anywhere."""
        cores = placing.allowed() if self.settings.cores == "apart" else []
        return placing.of_worker(number, cores) if number else placing.of_others(self.settings.workers, cores)


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
