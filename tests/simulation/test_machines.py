"""Machines that lose power, directories put back from copies, nodes lost for good: each with what must come of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from simulation.drawn.scenario import scenario
from simulation.events.faults import Fault
from simulation.events.leaving import lost
from simulation.simulation import run
from simulation.virtual.disk import CONTROLS, STATUS, Disk, Trouble
from simulation.virtual.system import installed
from simulation.virtual.world import World
from taximeter.journal.files import make_directory
from taximeter.node.replacing import replace_file, sync_directory


def befallen(seed, *faults):
    """What comes of a run in which only this goes wrong."""
    return run(replace(scenario(seed, calls=60), faults=list(faults)))


@pytest.mark.parametrize(("seed", "fsync"), [(1, "interval"), (17, "interval"), (15, "never"), (12, "always")])
def test_what_a_power_loss_leaves_is_gone_on_from(seed, fsync):
    """Of these runs the journal is shorter than what sinks have of it, but for the last, in which nothing may go."""
    assert scenario(seed, calls=60).settings["journal"]["fsync"] == fsync
    outcome = befallen(seed, *(Fault(at_s, "power", 0, "", 0.5) for at_s in (1.0, 2.2, 3.4)))
    assert not outcome.violation
    assert outcome.counts["power losses"] == 3


def test_what_only_its_writer_had_goes_with_the_power_and_nothing_else():
    taken = Fault(0.8, "file taken", 0, "", 0.0)
    assert not befallen(12, Fault(0.6, "disk full", 0, "", 2.5), taken, Fault(2.6, "power", 0, "", 0.5)).violation
    assert not befallen(12, taken, Fault(2.6, "power", 0, "", 0.5)).violation  # it was put back


def test_a_copy_that_is_put_back_is_named_and_counts_nothing_again():
    outcome = befallen(1, Fault(2.0, "restored", 0, "", 0.6))
    assert not outcome.violation
    assert outcome.counts["copies noticed"]


def test_a_node_lost_for_good_is_taken_over():
    seed = next(seed for seed in range(20) if scenario(seed).nodes > 1)
    assert not befallen(seed, Fault(1.5, "lost node", 1, "", 0.0), Fault(2.5, "power", 0, "", 0.5)).violation


def test_one_that_is_lost_with_claims_is_taken_over():
    plans = (scenario(seed, calls=60, plain=True) for seed in range(100))
    plan = next(plan for plan in plans if not plan.jobs and lost(plan).jobs)
    plan.faults = [fault for fault in plan.faults if fault.kind == "lost node"]
    assert plan.faults
    assert not run(plan).violation


@pytest.mark.parametrize("part", [STATUS, CONTROLS])
def test_some_files_refuse_while_others_do_not(part):
    kinds = ("disk write errors", "disk read errors", "disk full")
    faults = [Fault(0.5 + n, kind, 0, part, 0.8) for n, kind in enumerate(kinds)]
    assert not befallen(2, *faults, Fault(1.7, "kill", 0, "worker0")).violation


def test_only_what_a_trouble_is_about_is_in_trouble():
    disk = Disk(World(7))
    disk.mkdir("/sim/n0")
    bad, good = (disk.open(f"/sim/n0/{name}", os.O_RDWR | os.O_CREAT) for name in ("a.status", "a.jsonl"))
    disk.trouble["n0", STATUS] = Trouble(failing=frozenset(("write",)))
    disk.trouble["n0", ".other"] = Trouble(full=True)
    assert disk.write(good, b"x") == 1
    with pytest.raises(OSError, match="Input/output"):
        disk.write(bad, b"x")
    disk.trouble = {("n0", ""): Trouble(failing=frozenset(("write",)))}
    assert disk.write(bad, b"x") == 1  # a node's trouble spares it


def test_what_is_said_to_be_durable_outlives_a_power_loss():
    """Keys and budgets are files that are replaced: one that was revoked must not come back."""
    world = World(7)
    disk = Disk(world)
    disk.mkdir("/sim/n0")
    with installed(world, disk, {}):
        data = Path("/sim/n0")
        for n in range(20):
            replace_file(data / "keys.json", b"%d" % n)
            make_directory(data / f"journal{n}")
            disk.lose_power("n0")
            assert (data / "keys.json").read_bytes() == b"%d" % n
            assert (data / f"journal{n}").is_dir()
        (data / "loose").write_bytes(b"x")
        sync_directory(data)
        disk.lose_power("n0")
        assert (data / "loose").read_bytes() in (b"", b"x")
