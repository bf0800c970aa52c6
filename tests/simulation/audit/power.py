"""What a power loss may have taken, by the setting: nothing else may be missing, and nothing is there twice."""

from __future__ import annotations

import json
import sqlite3
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from simulation.audit.journals import Journal, Said
from simulation.audit.uneven import Uneven

if TYPE_CHECKING:
    from simulation.events.machines import Gone
    from simulation.simulation import Simulation

INTERVAL_S = 0.05
"""`journal.fsync_interval_ms`, as its default has it."""
FORGETFUL = ("redis empty", "redis older", "redis fails", "redis workspace", "redis part", "restored")
SLACK_S = 0.04
"""A round that is under way is waited for, and a sync takes a while."""


def missing(simulation: Simulation) -> set[str]:
    """Calls of which a line may be gone. Raises Uneven where lines are gone that were promised to stay."""
    fsync = simulation.plan.settings["journal"]["fsync"]
    if fsync == "always":  # what a client or a provider has seen was synced before
        return {marker for gone in simulation.losses.files if gone.taken for marker in markers(gone)}
    for gone in simulation.losses.files:
        if fsync == "interval" and gone.age_s > INTERVAL_S + SLACK_S and not _hindered(simulation, gone):
            raise Uneven(f"a power loss took lines of {gone.path} that were {gone.age_s:.3f} s old")
    return {marker for gone in simulation.losses.files for marker in markers(gone)}


def _hindered(simulation: Simulation, gone: Gone) -> bool:
    """Its writer stood still, or its disk refused to sync: then it is longer than the interval."""
    node = gone.path.split("/")[2]
    return any(
        simulation.nodes[fault.node].name == node and (fault.kind == "stall" or fault.kind.startswith("disk"))
        for fault in simulation.plan.faults
    )


def numbers(simulation: Simulation, books: dict[str, Journal]) -> None:
    """A number that a sink knew when the power failed is given to no other record. Raises Uneven.

    Not where Redis may have forgotten that it knew, or somebody else may have written it anew before.
    """
    kinds = {fault.kind for fault in simulation.plan.faults}
    if len(simulation.nodes) > 1 or any(kind.startswith(FORGETFUL) for kind in kinds):
        return
    for gone in simulation.losses.files:
        journal = books.get(PurePosixPath(gone.path).stem)
        given = {_seq(each.said): _whose(each.said) for each in _lines(gone.before) if "ended_at" in each.said}
        for said in () if journal is None else journal.records:
            seq = _seq(said)
            if seq <= gone.known and given.get(seq, _whose(said)) != _whose(said):
                raise Uneven(
                    f"{gone.path} gave {seq} to {given[seq]}, sinks knew it up to {gone.known}, and now: {said}"
                )


def _whose(said: Said) -> tuple[Any, ...]:
    return said["request_id"], said.get("attempt", 1), said.get("kind", "usage"), said.get("line")


def markers(gone: Gone) -> set[str]:
    """Calls of which a line is gone."""
    found: set[str] = set()
    calls: dict[str, str] = {}
    for end, _, said in _lines(gone.before):
        calls.setdefault(said["request_id"], said.get("document", ""))
        if end > gone.kept and calls[said["request_id"]]:
            found.add(calls[said["request_id"]])
    return found


def vanished(simulation: Simulation, books: dict[str, Journal], history: sqlite3.Connection) -> dict[str, Journal]:
    """Files of which not even the name is left: what history had of them by then is what is known."""
    cursors = {row["journal_id"]: row["seq"] for row in history.execute("SELECT * FROM journals")}
    found: dict[str, Journal] = {}
    for gone in simulation.losses.files:
        path = PurePosixPath(gone.path)
        if path.stem in books:
            continue
        upto = cursors.get(path.stem, 0)
        records = [each for each in _lines(gone.before) if "ended_at" in each.said and _seq(each.said) <= upto]
        known = found.get(path.stem)
        if known is None or len(known.records) < len(records):
            texts = [each.text[len(b'{"close":') : -1] for each in records]
            found[path.stem] = Journal(path.stem, path.parts[2], "", [each.said for each in records], texts, upto)
    return found


def torn(simulation: Simulation, books: dict[str, Journal], history: sqlite3.Connection) -> dict[str, Journal]:
    """Files that lack a page with lines behind it, with what history had of that page: it is not written back."""
    found: dict[str, Journal] = {}
    for gone in simulation.losses.files:
        journal = books.get(name := PurePosixPath(gone.path).stem)
        if journal is None:
            continue
        left = {_seq(each.said) for each in _lines(gone.left) if "ended_at" in each.said}
        lacks = [each for each in _lines(gone.before) if "ended_at" in each.said and _seq(each.said) not in left]
        rows = history.execute(
            "SELECT e.id & ? FROM usage_events e JOIN journals j ON j.journal_no = e.id >> 40 WHERE j.journal_id = ?",
            ((1 << 40) - 1, name),
        )
        known = {row[0] for row in rows} - {_seq(said) for said in journal.records}
        if back := [each for each in lacks if _seq(each.said) in known and _seq(each.said) < max(left, default=0)]:
            pairs = list(zip(journal.records, journal.lines, strict=True))
            pairs += [(each.said, each.text[len(b'{"close":') : -1]) for each in back]
            pairs.sort(key=lambda pair: _seq(pair[0]))
            found[name] = journal._replace(records=[said for said, _ in pairs], lines=[text for _, text in pairs])
    return found


class _Line(NamedTuple):
    """Of a call."""

    end: int
    """Where it ends in the file."""
    text: bytes
    said: Said


def _seq(said: Said) -> int:
    return int(said["event_id"].rpartition(":")[2])


def _lines(data: bytes) -> list[_Line]:
    """The lines of calls; those that cannot be read are left out."""
    found: list[_Line] = []
    at = 0
    for text in data.split(b"\n")[:-1]:
        at += len(text) + 1
        try:
            [(kind, said)] = json.loads(text).items()
        except ValueError:
            continue
        if kind in ("open", "close", "tick"):
            found.append(_Line(at, text, Said(said)))
    return found
