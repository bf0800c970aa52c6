"""A node: its directory, its clock, its processes, and what starts them anew when they die.

A control process is the product's own parts, put together and run by the product (`control.process.parts`, `course`)
without pages and port; a worker holds what the real one does (`gateway.worker`), put together here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from simulation.actors.provider import Transport as ToProvider
from simulation.drawn.keyed import ring
from simulation.events import leaving
from simulation.events.deeds import AHEAD_US
from simulation.events.later import ENVIRON
from simulation.events.machines import take_along
from simulation.virtual.disk import STATUS
from simulation.virtual.world import CURRENT, Process
from taximeter.billing.service import Billing
from taximeter.budgets.rates import Rates
from taximeter.budgets.slice_files import SliceFile
from taximeter.budgets.store import BudgetStore
from taximeter.config import HistorySettings, Settings
from taximeter.control.process import course
from taximeter.control.process.parts import Parts
from taximeter.core.errors import TaximeterError
from taximeter.core.hosts import Hosts
from taximeter.core.record import Record, Source
from taximeter.delivery import Delivery
from taximeter.gateway.admission.admission import Admission
from taximeter.gateway.admission.budget import BudgetGate
from taximeter.gateway.admission.holding import connect
from taximeter.gateway.handler import Gateway
from taximeter.gateway.metering.metering import Metering
from taximeter.gateway.tagging import dropped_headers
from taximeter.gateway.upstream.upstreams import Upstreams
from taximeter.journal import Journal
from taximeter.journal.ending import end
from taximeter.node.child import Boot
from taximeter.server.client import at_once
from taximeter.server.exchange import Service

if TYPE_CHECKING:
    from simulation.simulation import Simulation

REDIS_URL = "redis://simulated:6379/0"
ENDS_S = 60.0
"""What does not end by itself for so long after it was told to is killed, as by the supervisor."""
START_S = 0.4
"""About how long a process takes to start."""


def now_us() -> int:
    return time.time_ns() // 1_000


class FlatPrices:
    """1,000 nano-USD an input token, 2,000 an output token, or so many times that; each is priced by itself, as a dead
    worker's calls are known by their output at most."""

    def __init__(self, times: Callable[[], int] = lambda: 1) -> None:
        self._times = times

    def why(self, record: Record) -> str | None:
        return None

    def cost(self, record: Record) -> tuple[int | None, str | None]:
        known = record.input_tokens is not None or record.output_tokens is not None
        if not known or record.cost_note is not None:
            return None, None
        return self._times() * ((record.input_tokens or 0) * 1_000 + (record.output_tokens or 0) * 2_000), "flat"

    def dearest_nusd(self, call: Any, models: Any, tiers: Any, most: Any) -> tuple[int, bool]:
        return most.input_tokens * 1_000 + most.output_tokens * 2_000, True

    def context_tokens(self, provider: str, model: str, *, longest: bool = True) -> int:
        return 128_000


class WordCount(NamedTuple):
    tokens: int
    tokenizer: str
    source: Source


class Words:
    """A token is a word; counting is done by another process, some milliseconds from now."""

    async def count(self, countable: Any, *, model: str | None, provider: str, tokenizer: str = "") -> WordCount:
        await asyncio.sleep(0.005)
        tokens = countable.tokens + sum(len(text.split()) for text in countable.texts)
        return WordCount(tokens, "words", Source.COUNTED)


class Node:
    """What is of one machine."""

    def __init__(self, simulation: Simulation, name: str, settings: Settings) -> None:
        self.simulation = simulation
        self.name = name
        self.settings = settings
        self.directory = Path(settings.data_dir)
        self.clock_wrong_ns = 0
        self.lost = False
        """For good: another node takes its journals over."""
        self.adopted = False
        """That is done."""
        self.restoring = False
        self.boots = 0
        """How often its machine was started again."""
        self.off = False
        """Without power, or taken down."""
        self.workers: dict[int, Worker] = {}
        """Those that accept calls, by slot."""
        self.control: Control | None = None
        self.processes: list[Process] = []
        self.lives = 0
        self.retiring = False
        """No more workers are started."""
        self.leaving = False
        """Nothing is started any more."""
        self._woken = asyncio.Event()

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────────

    def spawn(self, role: str, start: Any) -> Process:
        """Begin a process. `start(process)` gives its main coroutine."""
        self.lives += 1
        process = Process(f"{self.name}/{role}", self)
        troubles = self.simulation.disk.trouble.items()
        full = any(
            each.full and part in ("", "/journal/", STATUS) for (name, part), each in troubles if name == self.name
        )
        self.simulation.mute |= full
        self.processes.append(process)
        context = Context()
        context.run(CURRENT.set, process)
        self.simulation.loop.create_task(self._main(process, start), context=context)
        return process

    async def _main(self, process: Process, start: Any) -> None:
        world = self.simulation.world
        world.tell("starts")
        try:
            await start(process)
        except (TaximeterError, OSError) as error:
            world.tell(f"ends: {self.simulation.sql.told(error)}")
        process.node.died(process)

    def died(self, process: Process) -> None:
        """Nothing of it goes on: killed, or at its end."""
        if not process.alive:
            return
        process.alive, process.ended_s = False, self.simulation.loop.time()
        self.processes.remove(process)
        self.simulation.loop.drop(process)
        take_along(self.simulation, process)
        self.simulation.disk.died(process)
        self.simulation.graves.append(process)
        self.workers = {slot: worker for slot, worker in self.workers.items() if worker.process is not process}
        if self.control is not None and self.control.process is process:
            self.control = None
        self.simulation.loop.call_soon(self._woken.set, context=Context())

    async def supervise(self, workers: int) -> None:
        """Start what is missing, for ever: the supervisor's part."""
        slots: dict[str, Process] = {}
        while True:
            self._woken.clear()
            roles = [f"worker{n}" for n in range(0 if self.retiring else workers)]
            for role in ("control", *roles):
                there = slots.get(role)
                if (there is None or not there.alive) and not (self.off or self.leaving):
                    start = Control if role == "control" else Worker
                    slots[role] = self.spawn(role, lambda process, start=start: start(self, process).run())
            await self._woken.wait()
            await asyncio.sleep(self.simulation.world.order.uniform(0.5, 1.5) * START_S)

    def stop(self, role: str) -> None:
        """As SIGTERM does; another one is started."""
        there = [self.control] if role == "control" else list(self.workers.values())
        for each in there:
            if each is not None and each.process.name.endswith(f"/{role}"):
                each.process.ends = True
                self.run_in(each.process, each.stopping.set)
                self.simulation.later(ENDS_S, self.died, each.process)  # a server that never answers holds it up

    def wake(self) -> None:
        """It has power again."""
        self._woken.set()

    def run_in(self, process: Process, act: Any, *args: Any) -> None:
        """Have something happen in a process: bytes have come, a client has gone."""
        context = Context()
        context.run(CURRENT.set, process)
        self.simulation.loop.call_soon(act, *args, context=context)


class Worker:
    """A worker process, as gateway.worker puts it together."""

    def __init__(self, node: Node, process: Process) -> None:
        settings = node.settings
        self.node = node
        self.process = process
        self._slot = int(process.name[-1])
        stored = BudgetStore(node.directory)
        words, prices = Words(), FlatPrices()
        self.budgets = BudgetGate(
            settings.budget,
            connect=lambda: connect(REDIS_URL),
            prices=prices,
            counting=words,
            rates=Rates(settings.rate),
            slice_file=SliceFile(node.directory),
        )
        self._stored = stored
        self._admission = Admission(
            ring(), Hosts(origins_setting="cors.allowed_origins"), required=False, budgets=self.budgets
        )
        self._admission.use_budgets(stored.stored())
        self.journal = Journal(
            node.directory / "journal",
            node=node.name,
            worker=str(self._slot),
            settings=settings.journal,
            now_us=now_us,
            batched=True,
        )
        then = self.journal.after_written
        upstreams = Upstreams(settings.upstream, drop=dropped_headers(settings), environ=ENVIRON, then=then)
        transport = ToProvider(node.simulation.provider, self.journal.after_written)
        for upstream in upstreams.all:
            upstream._transport = upstream._native_transport = transport
        metering = Metering(settings, journal=self.journal, prices=prices, tokenizers=words)
        gateway = Gateway(settings, metering=metering, upstreams=upstreams, admission=self._admission)
        self.service = Service(gateway, settings.limits, self.journal.after_written)
        node.simulation.services.append(self.service)
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Serve until told to stop."""
        self.node.workers[self._slot] = self
        beside = [asyncio.create_task(work) for work in (self._watch(), self.budgets.watch(), self.journal.attend())]
        await self.stopping.wait()
        self.node.workers.pop(self._slot, None)
        self.service.stopping = True
        async with asyncio.timeout(60):
            while self.service.runs:
                await asyncio.sleep(0.05)
        for task in beside:
            task.cancel()
        await self.budgets.close()
        await end(self.journal)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            if self._stored.changed():
                self._admission.use_budgets(self._stored.stored())


async def _never_its_turn() -> None:
    """In place of the audit of Redis, which comes round once a minute."""


class Control:
    """The control process, with all its parts; without its pages, and its port."""

    def __init__(self, node: Node, process: Process) -> None:
        self.node = node
        self.process = process
        self.passed_before = node.simulation.sql.passed()
        """What history had of each journal, when this process began; nobody of the product was asked."""
        boot = Boot(
            settings=replace(node.settings, history=HistorySettings(url=node.simulation.sql.url)),
            node=node.name,
            redis_url=REDIS_URL,
            redis_url_file="",
            prices_file="",
        )
        simulation = node.simulation
        prices: Any = FlatPrices(lambda: simulation.operators.price_times)
        self.parts = parts = Parts(boot, ENVIRON, prices_of=lambda _: prices, prices_again=lambda _: prices)
        if not simulation.plan.audited:
            vars(parts.counters.auditor)["audit"] = _never_its_turn
        for upstream in () if parts.collector is None else parts.collector._all.all:
            upstream._transport = upstream._native_transport = ToProvider(simulation.provider, at_once)
        self.billing = Billing(parts.history, parts.delivery, now_us=lambda: now_us() + AHEAD_US)
        self.stopping = asyncio.Event()
        self.ended_whole = False
        """It has come to its end, and left nothing for the next one."""

    @property
    def writes(self) -> bool:
        """Whether it has begun a journal of its own."""
        return self.parts.corrections._journal is not None

    @property
    def delivery(self) -> Delivery:
        return self.parts.delivery

    async def run(self) -> None:
        """Deliver until told to stop."""
        await asyncio.sleep(self.node.simulation.world.order.random() * 0.02)
        await course.prepare(self.parts)
        self.node.control = self
        try:
            async with asyncio.TaskGroup() as group:
                tasks = course.begin(self.parts, group)
                await self.stopping.wait()
                await course.end(self.parts, tasks)
            self.ended_whole = self.node.leaving and leaving.left_nothing(self.node.simulation, self.node)
        finally:
            if self.process.alive and not self.node.simulation.world.over:  # the dead do not tidy up
                await course.close(self.parts)
