"""What goes wrong in a simulation: a list that the seed draws. It can be made shorter without changing the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from simulation.virtual.disk import STATUS, Open, Trouble

if TYPE_CHECKING:
    from simulation.actors.node import Node
    from simulation.simulation import Simulation
    from simulation.virtual.world import Process


class Fault(NamedTuple):
    """One thing that goes wrong."""

    at_s: float
    kind: str
    node: int = 0
    role: str = ""
    """Of the process it strikes; of a disk, the part of a path that it strikes alone."""
    amount: float = 0.0
    """Seconds or steps or commands, as the kind has it."""

    def __str__(self) -> str:
        whom = f" of n{self.node}'s {self.role}" if self.role else f" (n{self.node})" if "disk" in self.kind else ""
        return f"{self.at_s:7.3f} s: {self.kind}{whom} {self.amount:g}"


DURATION_S = {
    "redis down": (0.1, 4.0),
    "redis slow": (0.1, 2.0),
    "redis full": (0.2, 3.0),
    "sql down": (0.1, 4.0),
    "disk full": (0.1, 3.0),
    "disk write errors": (0.05, 1.0),
    "disk read errors": (0.05, 1.0),
    "disk fsync errors": (0.05, 1.0),
}
"""Kinds that last, and how long (s)."""

STRUCK = ("kill", "stop", "stall")
"""Kinds that strike a process, where there is one."""

EVERYDAY = {
    "kill": 30,
    "stop": 5,
    "stall": 8,
    "clock": 5,
    "redis down": 5,
    "redis slow": 3,
    "redis full": 3,
    "redis loses requests": 8,
    "redis loses replies": 10,
    "redis restart": 4,
    "sql down": 5,
    "sql refuses": 5,
    "sql loses replies": 10,
    "disk full": 3,
    "disk write errors": 3,
    "disk read errors": 3,
    "disk fsync errors": 2,
    "file taken": 3,
}
"""How often each kind is drawn. After none of these may anything be lost, or count twice."""
FORGETFUL = {"redis empty": 6, "redis older": 8}
"""Redis comes back without what it knew; it is written anew."""


def draw(random: Any, count: int, over_s: float, nodes: int, workers: int, kinds: dict[str, int]) -> list[Fault]:
    """So many faults over so long a time."""
    found: list[Fault] = []
    names, weights = list(kinds), list(kinds.values())
    roles = ["control", "control", *(f"worker{n}" for n in range(workers))]
    for _ in range(count):
        kind = random.choices(names, weights)[0]
        at_s, node, role, amount = random.random() * over_s, random.randrange(nodes), "", 0.0
        if found and random.random() < 0.5:  # misfortunes come together
            at_s = min(over_s, found[-1].at_s + random.expovariate(1 / 0.3))
        if kind in DURATION_S:
            amount = random.uniform(*DURATION_S[kind])
        elif kind in STRUCK:
            role = random.choice(roles)
            amount = random.choice((0, random.randrange(10), random.randrange(100), random.randrange(600)))
            if kind == "stall":
                amount = random.uniform(0.05, 12.0)
        elif kind == "clock":
            amount = random.choice((-1, 1)) * random.choice((0.02, 1.0, 61.0, 3_700.0))
        elif "loses" in kind or kind == "sql refuses":
            amount = random.randrange(1, 5)
        elif kind in ("redis older", "power"):
            amount = random.uniform(0.01, 3.0)
        found.append(Fault(at_s, kind, node, role, round(amount, 4)))
    return sorted(found)


def strike(simulation: Simulation, fault: Fault) -> None:
    """It happens now. What lasts ends by itself."""
    world, node = simulation.world, simulation.nodes[fault.node]
    nobody = fault.kind in STRUCK and not _of(node, fault.role)
    if nobody or (fault.kind == "file taken" and not _held(simulation, node)):
        world.tell(f"FAULT {fault}: there is nothing that it could strike")
        return
    world.counts["faults"] += 1
    world.tell(f"FAULT {fault}")
    redis, sql = simulation.redis, simulation.sql
    match fault.kind:
        case "kill":
            for process in _of(node, fault.role):
                process.dies_in = int(fault.amount)
                if not fault.amount:
                    world.counts["kills"] += 1
                    node.died(process)
        case "stop":
            node.stop(fault.role)
        case "stall":
            for process in _of(node, fault.role):
                process.stands_until_ns = world.now_ns + int(fault.amount * 1e9)
        case "clock":
            node.clock_wrong_ns += int(fault.amount * 1e9)
            simulation.furthest_ns = max(simulation.furthest_ns, node.clock_wrong_ns)
        case "redis down":
            redis.down, redis.life = True, redis.life + 1
            simulation.later(fault.amount, setattr, redis, "down", False)
        case "redis slow":
            redis.slow_s = 0.15
            simulation.later(fault.amount, setattr, redis, "slow_s", 0.0)
        case "redis full":
            redis.model.full = True
            simulation.later(fault.amount, setattr, redis.model, "full", False)
        case "redis loses requests":
            redis.loses_requests += int(fault.amount)
        case "redis loses replies":
            redis.loses_replies += int(fault.amount)
        case "redis restart":
            redis.restart(redis.model.snapshot())
        case "redis empty":
            redis.restart(({}, {}))
            simulation.redis_forgot = True
            redis.forgot_s.append(world.now_s())
        case "redis older" | "redis fails over":
            redis.restart(simulation.snapshots.get(fault, ({}, {})))
            simulation.redis_forgot = True
            redis.forgot_s.append(world.now_s())
        case "redis workspace gone" | "redis workspace older":
            redis.model.restore_only(b"tm:{w0}:", simulation.snapshots.get(fault, ({}, {})))
            redis.life += 1
            simulation.redis_forgot = True
            redis.forgot_s.append(world.now_s())
        case "redis part gone":  # of those that a workspace is split into
            redis.model.restore_only(b"tm:{w0|%d}:" % int(fault.amount), ({}, {}))
            redis.life += 1
            simulation.redis_forgot = True
            redis.forgot_s.append(world.now_s())
        case "sql down":
            sql.down = True
            simulation.later(fault.amount, setattr, sql, "down", False)
        case "sql refuses":
            sql.refuses += int(fault.amount)
        case "sql loses replies":
            sql.loses_replies += int(fault.amount)
        case "disk full":
            _trouble(simulation, node, Trouble(full=True), fault)
        case "disk write errors" | "disk read errors" | "disk fsync errors":
            _trouble(simulation, node, Trouble(failing=frozenset((fault.kind.split()[1],))), fault)
        case "file taken":
            _take(simulation, node)
        case _:
            raise NotImplementedError(fault.kind)


def _of(node: Node, role: str) -> list[Process]:
    return [process for process in node.processes if process.name.endswith(f"/{role}")]


def _trouble(simulation: Simulation, node: Node, trouble: Trouble, fault: Fault) -> None:
    disk, where = simulation.disk, (node.name, fault.role)
    disk.trouble[where] = trouble
    simulation.mute |= fault.role == STATUS  # of what is lost meanwhile nobody can be told

    def over() -> None:
        if disk.trouble.get(where) is trouble:
            del disk.trouble[where]

    simulation.later(fault.amount, over)


def _held(simulation: Simulation, node: Node) -> list[Open]:
    """Journal files that are being written."""
    disk, folder = simulation.disk, str(node.directory / "journal")
    return [
        each
        for each in disk.open_files.values()
        if each.process is not None
        and "worker" in each.process.name
        and each.inode.lock is each
        and each.inode in disk.names(folder).values()
        and each.path.endswith(".jsonl.new")
    ]


def _take(simulation: Simulation, node: Node) -> None:
    """Somebody removes one of them."""
    disk, folder = simulation.disk, str(node.directory / "journal")
    taken = simulation.world.luck.choice(_held(simulation, node))
    disk.take_away(folder, disk.name_of(folder, taken))
