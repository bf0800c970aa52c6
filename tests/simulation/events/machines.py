"""What befalls whole machines: power that goes, directories restored from copies, nodes that come or are lost for good.

Drawn from a random stream of its own, for a share of the seeds. Redis that fails over to a replica is here, too.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from contextvars import Context
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from simulation.events.faults import Fault
from taximeter.budgets import slice_files
from taximeter.journal.adopt import adopt as take_over

if TYPE_CHECKING:
    from simulation.actors.node import Node
    from simulation.simulation import Simulation
    from simulation.virtual.world import Process

KINDS = ("power", "restored", "lost node", "redis fails over", "comes later")


class Gone(NamedTuple):
    """What a power loss took of one journal file."""

    path: str
    before: bytes
    """The file, as processes had it."""
    kept: int
    """Bytes of it that are still there."""
    age_s: float
    """How long ago the first of the bytes that are not was written; 0 where nobody could have synced them in time."""
    left: bytes
    """What is there, pages that were not written among it."""
    taken: bool = False
    """Somebody had taken it away, and its writer, who alone had it, could not put it back before."""
    known: int = 0
    """Up to which number Redis or history knew it then."""


class Losses:
    """What machines lost in a run: what the auditor must not look for."""

    def __init__(self) -> None:
        self.files: list[Gone] = []
        self.restored: set[str] = set()
        """Names of files that came back from a copy: those shorter than before are to be named, not delivered."""


def draw(seed: int, over_s: float, nodes: int) -> list[Fault]:
    """What befalls machines in a run with this seed; in most nothing."""
    drawn = random.Random(f"{seed}/machines")
    found: list[Fault] = []
    if drawn.random() >= 0.4:
        return found
    for _ in range(drawn.choice((1, 1, 2, 4))):
        kind = drawn.choices(KINDS, (8, 2, 2 if nodes > 1 else 0, 3, 1 if nodes > 1 else 0))[0]
        at_s, node = drawn.uniform(0.5, over_s), drawn.randrange(nodes)
        if kind == "lost node":
            if any(fault.kind == kind for fault in found):
                continue
            node = nodes - 1
        amount = drawn.choice((0.3, 1.0, 3.0)) * drawn.uniform(0.5, 1.5)
        if kind == "redis fails over":
            amount = 10 ** drawn.uniform(-3.3, 0.0)
            if drawn.random() < 0.5:
                found.append(Fault(at_s + drawn.uniform(-0.05, 0.05), "kill", node, "control", 0.0))
        found.append(Fault(round(at_s, 4), kind, node, "", round(amount, 5)))
    return found


def prepare(simulation: Simulation, fault: Fault) -> None:
    """What has to happen some time before a fault does."""
    node = simulation.nodes[fault.node]
    if fault.kind == "restored":
        simulation.later(max(0.0, fault.at_s - fault.amount), _copy, simulation, fault, node)
    elif fault.kind == "comes later":
        node.off = True


def strike(simulation: Simulation, fault: Fault) -> None:
    """It happens now."""
    node = simulation.nodes[fault.node]
    if node.off or node.restoring:
        if fault.kind == "comes later":
            _start(node)
        return
    simulation.world.counts["faults"] += 1
    simulation.world.tell(f"FAULT {fault}")
    match fault.kind:
        case "power":
            lose_power(simulation, node)
            simulation.later(fault.amount, _start, node)
        case "restored":
            node.restoring = True
            simulation.loop.create_task(_restore(simulation, fault, node), context=Context())
        case "lost node":
            _shut(node)
            node.lost = True
            simulation.loop.create_task(adopt(simulation, node, simulation.nodes[0]), context=Context())


def lose_power(simulation: Simulation, node: Node) -> None:
    """All of a machine stops at once; of what was not synced it has a part, when it is started again."""
    disk, world = simulation.disk, simulation.world
    world.counts["power losses"] += 1
    folder = str(node.directory / "journal")
    try:
        names = disk.names(folder)
    except FileNotFoundError:
        names = {}
    files = {name: each for name, each in names.items() if name.endswith(".jsonl")}
    before = {
        name: (bytes(each.data), each.written[:] or [(0, each.synced_ns or world.now_ns)], each.lock is not None)
        for name, each in files.items()
    }
    told = [bytes(each.data) for name, each in names.items() if name.endswith(".status")]
    simulation.mute |= any(b'"lost"' in data or b'"unsaved"' in data for data in told)  # that may be gone as well
    _shut(node)
    disk.lose_power(node.name)
    after = _journals(simulation, folder)
    for path, data in simulation.disk.removed:  # the last of a name that came back with the power
        name = PurePosixPath(path).name
        if name in after and name not in files and path == f"{folder}/{name}":
            before[name] = data, [], False
    for name, (data, written, alive) in before.items():
        left = after.get(name, b"")
        kept = next((n for n, (a, b) in enumerate(zip(data, left, strict=False)) if a != b), min(len(data), len(left)))
        kept = max(kept, data.find(b"\n") + 1)  # a header without a call is not synced, and needs not be
        if kept < len(data):
            since = max((at_ns for at, at_ns in written if at <= kept), default=world.now_ns) if alive else world.now_ns
            age_s, known = (world.now_ns - since) / 1e9, _known(simulation, name.removesuffix(".jsonl"))
            simulation.losses.files.append(Gone(f"{folder}/{name}", data, kept, age_s, left, known=known))
            simulation.redis_forgot = True  # it may know more than is left, until its audit
            world.tell(f"{name} had {len(data)} bytes, and has {kept}")
    node.boots += 1


def _known(simulation: Simulation, journal_id: str) -> int:
    """Up to where sinks say that they have this journal: what they were just being given, they may not know of yet."""
    keys, field = simulation.redis.model.keys, journal_id.encode()
    marks = [value for key, value in keys.items() if key.endswith(b"}:watermark")]
    return max((simulation.sql.passed().get(journal_id, 0), *(int(each.get(field, 0)) for each in marks)))


def take_along(simulation: Simulation, process: Process) -> None:
    """A process ends: journal files that somebody took away and that it could not put back end with it."""
    disk = simulation.disk
    for file in disk.open_files.values():
        held = file.process is process and file.inode.lock is file and ".jsonl" in file.path
        if held and not disk.is_named(file):
            path = PurePosixPath(file.path)
            data, name = bytes(file.inode.data), path.name.removeprefix(".").removesuffix(".new")
            simulation.losses.files.append(Gone(str(path.with_name(name)), data, 0, 0.0, b"", taken=True))
            simulation.redis_forgot = True
            simulation.world.tell(f"{name}, taken away and not put back yet, is gone with its {len(data)} bytes")


def _shut(node: Node) -> None:
    node.off = True
    for process in list(node.processes):
        node.died(process)


def _start(node: Node) -> None:
    node.off = node.lost
    node.wake()


def _journals(simulation: Simulation, folder: str) -> dict[str, bytes]:
    try:
        return {name: data for name, data in simulation.disk.copy(folder).items() if name.endswith(".jsonl")}
    except FileNotFoundError:
        return {}


def _copy(simulation: Simulation, fault: Fault, node: Node) -> None:
    folder = str(node.directory / "journal")
    simulation.snapshots[fault] = _journals(simulation, folder)


async def _restore(simulation: Simulation, fault: Fault, node: Node) -> None:
    """A node is stopped in good order, its journals are put back as they were a while ago, and it is started again.

    Not where it never comes to an end in time: an operator sees that something is not delivered yet.
    """
    folder, until = str(node.directory / "journal"), simulation.loop.time() + 20.0
    node.retiring = True
    while simulation.loop.time() < until and not (node.control and is_done(simulation, node)):
        for worker in node.workers.values():
            worker.process.ends = True  # it may not live to put a file back that somebody takes now
            node.run_in(worker.process, worker.stopping.set)
        await asyncio.sleep(0.2)
    if node.control is not None and is_done(simulation, node) and not node.off and fault in simulation.snapshots:
        copy, halted = simulation.snapshots[fault], node.control.delivery.health().halted
        _shut(node)
        for name, data in _journals(simulation, folder).items():
            if name not in halted:  # else that is a copy itself
                simulation.disk.removed.append((f"{folder}/{name}", data))
        simulation.losses.restored |= copy.keys()
        simulation.disk.put_back(folder, copy)
        simulation.world.tell(f"restored from a copy: {sorted(copy)}")
        _start(node)
    node.retiring = node.restoring = False
    node.wake()


def is_done(simulation: Simulation, node: Node) -> bool:
    """It has no call open, and every sink has everything."""
    if node.control is None or len(node.processes) > 1:
        return False
    files = node.control.delivery._files.by_id
    health = node.control.delivery.health()
    return (
        all(feed.ended or feed.halted for feed in files.values())
        # control's own, of settlements, may have been begun since it looked
        and {f"{journal_id}.jsonl" for journal_id in files}
        >= _journals(simulation, str(node.directory / "journal")).keys()
        and not health.in_flight
        and all(sink.lag_records == 0 for sink in health.sinks.values())
    )


def move_copies_away(simulation: Simulation, node: Node, halted: Mapping[str, str]) -> set[str]:
    """An operator moves the files away that a node names as restored from a copy, or that lost their first page with
    the power; returns the others that it names."""
    torn = {PurePosixPath(gone.path).name for gone in simulation.losses.files if gone.left.startswith(b"\0")}
    copies = halted.keys() & (simulation.losses.restored | torn)
    for name in sorted(copies):
        simulation.world.counts["copies noticed"] += 1
        simulation.world.tell(f"moved away: {name}, {halted[name]}")
        simulation.disk.take_away(str(node.directory / "journal"), name)
    return set(halted) - copies


async def adopt(simulation: Simulation, lost: Node, into: Node) -> None:
    """An operator has a node take over what another left, until it has come to its end."""
    done = False

    async def act(process: Any) -> None:
        nonlocal done
        take_over(lost.directory / "journal", into.directory / "journal")
        slice_files.take_over(lost.directory, into.directory)
        done = True

    await asyncio.sleep(simulation.world.order.uniform(0.1, 3.0))
    while not done:
        if not into.off:
            process = into.spawn("adopt", act)
            process.dies_in = simulation.world.order.choice((None, None, simulation.world.order.randrange(60)))
        await asyncio.sleep(1.0)
    lost.adopted = True
