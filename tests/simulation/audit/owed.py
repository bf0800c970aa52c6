"""What is billed later: each object and each line of it once, for who asked, as the provider bills it.

It goes by what the provider served and of which clients saw the end.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import TYPE_CHECKING

from simulation.audit.journals import Said
from simulation.audit.sums import of
from simulation.audit.uneven import NotYet, Uneven

if TYPE_CHECKING:
    from simulation.events.later import Job
    from simulation.simulation import Simulation

Counts = Counter[tuple[str, str]]
"""Object, line -> settlements."""
OBJECT, FILE = False, True
"""What was served of an object: it itself, or the file of its lines."""


def is_call(said: Said) -> bool:
    """A record of a call: nothing that was told, settled or corrected later."""
    return bool(of(said, "kind") == "usage") and said.get("line") is None


def compare(simulation: Simulation, records: list[Said], lost: int, history: sqlite3.Connection) -> None:
    """Raises Uneven; NotYet for what may still come."""
    promised = {said["deferred"]: said for said in records if is_call(said) and said.get("deferred") is not None}
    found: Counts = Counter()
    for said in records:
        if _settles(said):
            asked = promised.get(said["deferred"])
            if asked is None:
                raise Uneven(f"settled, and nobody was promised it: {said}")
            found[said["deferred"], said["line"]] += 1
            _as_asked(asked, said)
            _as_billed(simulation, said)
    if twice := [each for each, count in found.items() if count > 1]:
        raise Uneven(f"settled more than once: {twice[:5]}")
    for job in simulation.plan.jobs:
        if job.name in promised:
            if found[job.name, ""]:
                _let_go(simulation, job, promised[job.name], records)
            _as_served(simulation, job, {line for name, line in found if name == job.name}, lost)
    told: dict[str, set[int]] = {}
    for said in records:
        if of(said, "kind") == "told":
            told.setdefault(said["deferred"], set()).add(said["ended_at"])
    _as_listed(simulation, promised, found, told, history)
    simulation.world.counts["calls billed later"] = len(promised)
    simulation.world.counts["settlements"] = found.total()


def _settles(said: Said) -> bool:
    """A settlement: a use, or the word that there is none; a correction of its price is not."""
    kind = of(said, "kind")
    return said.get("line") is not None and (kind == "usage" or (kind == "correction" and "price_ref" not in said))


def _as_asked(asked: Said, said: Said) -> None:
    names = ("request_id", "workspace", "track", "document", "task", "end_user", "key_id", "started_at", "ended_at",
             "upstream", "provider")  # fmt: skip
    if wrong := [name for name in names if asked.get(name) != said.get(name)]:
        raise Uneven(f"settled with another {wrong} than was asked with, {asked}: {said}")


def _as_billed(simulation: Simulation, said: Said) -> None:
    """A use is the provider's. A batch uses only its lines; of what was cancelled nobody tells what it used."""
    objects = simulation.provider.objects
    job = objects.jobs[said["deferred"]]
    billed = {line.name: line for line in objects.billed(job)}
    line = billed.get(said["line"])
    ours = said.get("input_tokens"), said.get("output_tokens")
    if ours == (None, None) and not said["line"] and (line is None or objects.state(job) == "cancelled"):
        return
    if line is None or of(said, "kind") != "usage" or ours != (line.prompt_tokens, line.output_tokens):
        raise Uneven(f"of {job.name} the provider bills {line}: {said}")


def _let_go(simulation: Simulation, job: Job, asked: Said, records: list[Said]) -> None:
    """Of what has been settled budgets are charged nothing more, unless nobody knows what it used; and a batch is not
    settled before somebody has read all of its lines."""
    objects = simulation.provider.objects
    if objects.has_file(job) and not any(each.job is job and each.file for each in objects.passed):
        raise Uneven(f"{job.name} is settled, and nobody has read its lines to the end: {asked}")
    if objects.state(job) == "cancelled" and not job.batch:
        return
    mine = [said for said in records if said["request_id"] == asked["request_id"]]
    for name in ("charged_tokens", "charged_input_tokens", "charged_output_tokens", "charged_cost_nusd"):
        if left := sum(said.get(name) or 0 for said in mine):
            raise Uneven(f"{job.name} is settled, and budgets are still charged {left} {name}: {mine}")


def _as_served(simulation: Simulation, job: Job, settled: set[str], lost: int) -> None:
    """What somebody has the whole of is settled; and nothing of which nobody was told."""
    objects = simulation.provider.objects
    lines = {line.name for line in objects.billed(job) if line.name}
    whole, served = _served(simulation, job)
    could = ({""} if served else set()) | (lines if FILE in served else set())
    if invented := settled - could:
        raise Uneven(f"of {job.name} {sorted(invented)[:5]} are settled, of which nobody was told")
    if simulation.plan.collects and not _given_up(simulation):
        whole = {OBJECT, FILE}  # control asks as often as it takes
    elif lost or simulation.mute or any(fault.kind in MEMORY for fault in simulation.plan.faults):
        return
    due = set()
    if OBJECT in whole and (FILE in whole or not objects.has_file(job)):
        due = {""} | lines
    if missing := due - settled:
        raise NotYet(f"of {job.name} {sorted(missing)[:5]} were told, and are not settled")


def _given_up(simulation: Simulation) -> bool:
    """Something may have been written off: control does not ask for that any more."""
    return any(deed.kind == "write off" for deed in simulation.plan.deeds)


MEMORY = ("disk full", "disk write errors")
"""Faults by which a worker may die with what it was told in its memory only."""


def _served(simulation: Simulation, job: Job) -> tuple[set[bool], set[bool]]:
    """What of it somebody has to the last byte; what of it anybody may have read something."""
    objects = simulation.provider.objects
    whole: set[bool] = set()
    served = {each.file for each in objects.collected if each.job is job}
    for caller in simulation.callers:
        if caller.plan.workspace == job.asked.workspace:
            told = {each.file for each in objects.served.get(caller.plan.marker, ()) if each.job is job}
            served |= told
            whole |= told if caller.whole and caller.status == 200 else set()
    return whole, served


def _as_listed(
    simulation: Simulation,
    promised: dict[str, Said],
    found: Counts,
    told: dict[str, set[int]],
    history: sqlite3.Connection,
) -> None:
    """What the product says is owed: what has been promised and not been settled, since the call ended; and when that
    was told which settled it."""
    rows = {row["object"]: row for row in history.execute("SELECT object, state, since, seen_at FROM usage_owed")}
    states = {name: row["state"] for name, row in rows.items()}
    if states.keys() != promised.keys():
        raise NotYet(f"promised were {sorted(promised)}, and history has {states}")
    given_up = {"expired"} if _given_up(simulation) else set()
    for name, state in states.items():
        may_be = {"ended"} if found[name, ""] else {"outstanding"} | given_up
        if state not in may_be:
            raise NotYet(f"{name} is {state}, and should be {' or '.join(may_be)}")
        since, seen_at = rows[name]["since"], rows[name]["seen_at"]
        if since != promised[name]["ended_at"]:
            raise Uneven(f"{name} is owed since {since}, and was promised by {promised[name]}")
        if state == "ended" and seen_at not in told.get(name, {seen_at}):
            raise Uneven(f"{name} was told of at {sorted(told[name])}, and is said to have been at {seen_at}")
