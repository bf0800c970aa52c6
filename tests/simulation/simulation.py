"""One simulation: its course, from the first call of what a seed drew to the auditor's word."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tempfile
from collections.abc import Iterator
from contextvars import Context
from pathlib import Path
from typing import Any

import msgspec

from simulation import audit
from simulation.actors.client import Caller, Plan
from simulation.actors.node import Node
from simulation.actors.objects import Objects
from simulation.actors.provider import Provider
from simulation.actors.receiver import Receiver, receiving
from simulation.audit import holds, rates
from simulation.audit.billed import Billed
from simulation.audit.journals import Journal
from simulation.drawn.keyed import secret
from simulation.drawn.rates import WINDOWS
from simulation.drawn.scenario import Scenario
from simulation.events import leaving, machines
from simulation.events.deeds import Operators
from simulation.events.faults import Fault, strike
from simulation.events.later import OWN_KEY
from simulation.virtual.database import SHM, SqlHost, serving
from simulation.virtual.disk import Disk
from simulation.virtual.loop import SimLoop, Stuck
from simulation.virtual.redis_server import RedisHost, listening
from simulation.virtual.system import installed
from simulation.virtual.world import Process, World
from taximeter.budgets.rule import Budget
from taximeter.budgets.store import BudgetStore
from taximeter.config import Settings
from taximeter.server.exchange import Service

REST_S = 420.0
"""So long after the last fault everything must have come to rest. The longest way there: the node that audits Redis for
all has died, another one takes its turn three minutes later, comes round within a minute, and waits one more for what
is late.
"""


class Outcome(msgspec.Struct, kw_only=True):
    """What came of it."""

    seed: int
    counts: dict[str, int]
    digest: int
    violation: str = ""
    story: list[str] = []


class Simulation:
    """The parts of one run."""

    def __init__(self, plan: Scenario, folder: Path, *, tells: bool) -> None:
        self.plan = plan
        self.world = World(plan.seed, tells=tells)
        self.world.begins_ns += int(plan.late_s * 1e9)
        self.loop = SimLoop(self.world, most_steps=120_000 + 200 * len(plan.calls))
        self.disk = Disk(self.world)
        self.redis = RedisHost(self.world, self.loop)
        self.sql = SqlHost(self.world, folder)
        objects = Objects(plan.jobs, self.world.now_s, plan.seed, plan.over_s)
        self.provider = Provider(self.world, self.loop, objects)
        self.receiver = Receiver(self.world)
        self.graves: list[Process] = []
        """Dead processes: their tasks must not be collected, which would have them run on."""
        self.services: list[Service] = []
        """Of all workers there ever were."""
        self.callers: list[Caller] = []
        self.unserved = 0
        """Calls that found no worker."""
        self.snapshots: dict[Fault, Any] = {}
        self.journals_read: dict[tuple[str, bytes], Journal] = {}
        """By the auditor."""
        self.losses = machines.Losses()
        self.redis_forgot = False
        self.held_wrongly = ""
        """What was wrong with what calls hold of budgets, when that was seen first."""
        away = plan.settings.get("budget", {}).get("on_unavailable")
        if plan.budgets or (plan.rates and away == "refuse"):
            self.redis.watch = self._watch
        self.billed = Billed(self)
        self.operators = Operators(self)
        self.mute = False
        """A process began on a full disk: it has no status file, and what it loses, should it die, nobody is told."""
        self._moved_at_s = float("-inf")
        self._unsettled = ""
        """Why it is not over yet."""
        self.furthest_ns = 0
        """How far ahead any clock ever was."""
        self.nodes = [self._node(n) for n in range(plan.nodes)]

    def _node(self, n: int) -> Node:
        own: dict[str, Any] = {"api_key_env": OWN_KEY, "collect": True} if self.plan.collects else {}
        own["forward_credentials"] = self.plan.forwards
        settings = msgspec.convert(
            {
                "data_dir": f"/sim/n{n}",
                "upstream": [{"name": "openai", "base_url": "http://localhost:1/v1", **own}],
                "limits": {},
                "rate": self.plan.rates,
                **self.plan.settings,
            },
            Settings,
        )
        self.disk.mkdir("/sim/" + f"n{n}")
        return Node(self, f"n{n}", settings)

    def _watch(self) -> None:
        if self.plan.rates and not self.held_wrongly:
            self.held_wrongly = rates.short(self)
        if self.plan.budgets and not self.held_wrongly:
            exact = not self.redis_forgot and self.plan.settings["budget"]["on_unavailable"] == "refuse"
            # Sums made anew have calls that history knows and that hold their part still, for a moment: too much, never
            # too little.
            exact = exact and not any(deed.kind == "rebuild" for deed in self.plan.deeds)
            self.held_wrongly = holds.wrong(self.redis.model.keys, self.plan.budgets, exact=exact)
        if self.plan.budgets and not self.held_wrongly:
            self.held_wrongly = self.billed.wrong()

    def later(self, in_s: float, act: Any, *args: Any) -> None:
        """Have something happen in the world, by no process."""
        self.loop.call_later(in_s, act, *args, context=Context())

    async def course(self) -> None:
        """From the first call to rest."""
        plan = self.plan
        for node in self.nodes:
            BudgetStore(node.directory).absorb(
                Budget(id=f"b{n}", workspace="w0", created_at=1, **{"period": "total", **said})
                for n, said in enumerate(plan.budgets)
            )
        supervising = [asyncio.create_task(node.supervise(plan.workers)) for node in self.nodes]
        await asyncio.sleep(0.3)
        for fault in plan.faults:
            self.later(fault.at_s, STRIKE.get(fault.kind, strike), self, fault)
            machines.prepare(self, fault)
            if fault.kind.endswith("older") or fault.kind == "redis fails over":
                self.later(max(0.0, fault.at_s - fault.amount), self._snapshot, fault)
        for at_s, mood in plan.receiver:
            self.later(at_s, setattr, self.receiver, "mood", mood)
            self.later(at_s + 1.0, setattr, self.receiver, "mood", "")
        for deed in plan.deeds:
            self.later(deed.at_s, self.operators.do, deed)
        for call in (*plan.calls, *(call for job in plan.jobs for call in job.calls)):
            self.later(call.at_s, self._call, call)
        await asyncio.sleep(plan.over_s + 0.1)
        self._heal()
        self.world.tell("all is well from here on")
        await self._rest()
        for task in supervising:
            task.cancel()

    def _snapshot(self, fault: Fault) -> None:
        self.snapshots[fault] = self.redis.model.snapshot()

    def _call(self, plan: Plan) -> None:
        node = self.nodes[plan.where % len(self.nodes)]
        workers = [worker for _, worker in sorted(node.workers.items())]
        if not workers:
            self.unserved += 1
            self.world.tell(f"{plan.marker} finds no worker of {node.name}")
            return
        worker = workers[plan.where // 64 % len(workers)]
        caller = Caller(self.world, plan, worker.process, secret(plan.key))
        self.callers.append(caller)
        self.world.counts["calls"] += 1
        method, target = plan.method.decode(), plan.target.decode()
        self.world.tell(f"{plan.marker} of {plan.workspace} comes to {worker.process.name}: {method} {target}")
        node.run_in(worker.process, caller.call, worker.service)
        if plan.leaves_after_s is not None:
            self.later(plan.leaves_after_s, node.run_in, worker.process, caller.leave)

    def _heal(self) -> None:
        self.redis.down = self.sql.down = self.redis.model.full = False
        self.redis.loses_requests = self.redis.loses_replies = self.sql.refuses = self.sql.loses_replies = 0
        self.disk.trouble.clear()
        self.receiver.mood = ""
        for node in self.nodes:
            if node.off:
                node.off = node.lost
                node.wake()
            node.clock_wrong_ns = self.furthest_ns  # what a clock that was ahead has put off is not waited for
            for process in node.processes:
                process.dies_in, process.stands_until_ns = None, 0

    async def _rest(self) -> None:
        """Until the books agree, or it is too late for that."""
        until = self.loop.time() + REST_S * (2 if self.losses.restored else 1)  # an audit looks twice at what is late
        began_s = self.loop.time()
        await asyncio.sleep(1.0)
        for node in self.nodes:
            while node.restoring:
                await asyncio.sleep(0.1)
            node.retiring = True
            for worker in node.workers.values():
                node.run_in(worker.process, worker.stopping.set)
        problem = "it never came to rest"
        while self.loop.time() < until:
            await asyncio.sleep(1.0)
            if not self._settled():
                continue
            if problem_of_others := self.operators.at_rest():
                problem = problem_of_others
                continue
            try:
                audit.compare(self)
            except audit.NotYet as early:
                problem = str(early)
                await asyncio.sleep(9.0)
            except audit.Uneven as uneven:
                problem = str(uneven)
                late = not self.plan.audited and self.loop.time() > began_s + ASKED_AGAIN_S
                if not self.redis_forgot or late or "Redis" not in problem:
                    raise
                await asyncio.sleep(5.0)  # the audit of Redis comes round
            else:
                return
        raise audit.Uneven(f"{problem}; {self._unsettled}")

    def _settled(self) -> bool:
        """Whether every node says that it has nothing more to do."""
        self._unsettled = ""
        for node in self.nodes:
            if node.lost:
                self._unsettled = "" if node.adopted else f"{node.name} is not taken over yet"
                if node.adopted:
                    continue
            elif any(not process.name.endswith("control") for process in node.processes):
                self._unsettled = f"{node.name} still has workers"
            elif node.control is None or node.control.process.ends:
                self._unsettled = f"{node.name} has no control process that goes on"
            else:
                health = node.control.delivery.health()
                behind = {name: sink.lag_records for name, sink in health.sinks.items() if sink.lag_records != 0}
                halted = machines.move_copies_away(self, node, health.halted)
                if halted != set(health.halted):  # what waited for them, a settlement say, comes only now
                    self._moved_at_s = self.loop.time()
                if behind or health.in_flight or halted or self.loop.time() < self._moved_at_s + SETTLING_S:
                    self._unsettled = f"{node.name}: behind {behind}, in flight {health.in_flight}, halted {halted}"
            if self._unsettled:
                return False
        return not self._unsettled

    def close(self) -> None:
        """Sweep up: what waits for ever ends here, where nothing has an effect any more."""
        runs = [run._coroutine for service in self.services for run in service.runs]
        tasks = [task for process in self.graves for task in process.tasks]
        tasks += [task for node in self.nodes for process in node.processes for task in process.tasks]
        tasks += asyncio.all_tasks(self.loop)
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        for coroutine in (*runs, *(task.get_coro() for task in tasks)):
            with contextlib.suppress(BaseException):
                coroutine.close()
        self.loop.close()
        self.graves.clear()
        gc.collect()


STRIKE = {**dict.fromkeys(machines.KINDS, machines.strike), leaving.KIND: leaving.begin}
"""Who does it, where it is not one of the everyday faults."""

ASKED_AGAIN_S = 45.0
"""By then Redis is asked again how far it has counted, though no record comes, and has what it had forgotten."""
SETTLING_S = 5.0
"""So long after an operator moved a file away, what was held up by it may come."""

HURRIED: dict[str, int] = {"taximeter.sinks.redis.audit:GONE_S": 100}
"""What takes a day: a run does not. Only where the power fails, as clocks that are stepped would have it
mend what comes by itself."""


@contextlib.contextmanager
def _net(simulation: Simulation) -> Iterator[None]:
    """Everything that is not of a node."""
    with serving(simulation.sql), listening(simulation.redis), receiving(simulation.receiver):
        yield


def run(plan: Scenario, *, tells: bool = False) -> Outcome:
    """Run it. What breaks a promise is told in the outcome."""
    collecting = gc.isenabled()
    gc.freeze()
    gc.disable()
    try:
        with tempfile.TemporaryDirectory(prefix="taximeter-simulated-", dir=SHM if SHM.is_dir() else None) as folder:
            return _run(plan, Path(folder), tells=tells)
    finally:
        gc.collect()  # all of the simulation, now that nobody has it: frozen by the next run it would stay for good
        if collecting:
            gc.enable()


def _run(plan: Scenario, folder: Path, *, tells: bool) -> Outcome:
    simulation = Simulation(plan, folder, tells=tells)
    world, loop = simulation.world, simulation.loop
    violation = ""
    tuning = {**plan.tuning, **dict.fromkeys(WINDOWS, plan.window_s)}
    if any(fault.kind == "power" for fault in plan.faults):
        tuning |= HURRIED
    with installed(world, simulation.disk, tuning), _net(simulation):
        try:
            loop.run_until_complete(simulation.course())
        except (audit.Uneven, Stuck) as broken:
            violation = f"{type(broken).__name__}: {broken}"
        world.over = True
        if loop.failures and not violation:
            violation = f"living code let escape: {loop.failures[0]!r}"
        simulation.close()
    return Outcome(
        seed=plan.seed, counts=dict(world.counts), digest=world.digest, violation=violation, story=world.story or []
    )
