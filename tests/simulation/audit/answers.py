"""What the product answers when it is asked for usage and for evidence, against the records; and that it sees a change.

The answers are `simulation.asked`'s; what they should be is worked out here.
"""

from __future__ import annotations

import random
import sqlite3
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulation import asked
from simulation.audit.journals import Said
from simulation.audit.sums import DETAILS, Sums, fold, model, of, start_s
from simulation.audit.uneven import Uneven, same

if TYPE_CHECKING:
    from simulation.simulation import Simulation

ASKED = (
    (("workspace",), "hour"), (("workspace", "provider", "model"), None), (("workspace", "track"), None),
    (("document",), "day"), (("workspace", "key_id"), "month"),
)  # fmt: skip
SHARE = 0.2
"""Of the seeds, in which a row is changed to see whether it is noticed."""


def compare(simulation: Simulation, records: list[Said]) -> None:
    """Raises Uneven."""
    with asked.reading(simulation.sql.url) as reader:
        _usage(reader, records)
    if wrong := asked.evidence(simulation.sql.url):
        raise Uneven(f"evidence does not verify: {wrong[:3]}")
    drawn = random.Random(f"{simulation.plan.seed}/tampering")
    if records and drawn.random() < SHARE:
        _tampered(simulation.sql.path, drawn)


def _usage(reader: Any, records: list[Said]) -> None:
    listed = list(asked.event_ids(reader))
    ours = {said["event_id"] for said in records if of(said, "kind") != "told"}
    if len(listed) != len(ours) or set(listed) != ours:
        raise Uneven(f"{len(listed)} records are listed, there are {len(ours)}: {sorted(ours ^ set(listed))[:5]}")
    for names, window in ASKED:
        told: Sums = {}
        for key, start_us, sums in asked.usage(reader, names, window):
            begins_s = start_s(start_us, window) if window and start_us is not None else 0
            told[(*(key[name] for name in names), begins_s)] = {field: n for field, n in sums.items() if n}
        expected = {
            key: kept
            for key, sums in fold(records, partial(_group, names, window)).items()
            if (kept := {field: n for field, n in sums.items() if field not in DETAILS})
        }
        same(f"usage by {names} and {window}", told, expected)


def _group(names: tuple[str, ...], window: str | None, said: Said) -> tuple[str | int | None, ...] | None:
    if of(said, "kind") == "told":
        return None
    key = [model(said) if name == "model" else said.get(name) for name in names]
    return (*key, start_s(said["ended_at"], window) if window else 0)


def _tampered(path: Path, drawn: random.Random) -> None:
    """A copy of the history in which somebody has changed one record: the check names it."""
    copy = path.with_name("tampered.db")
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
        found = target.execute(
            "SELECT id, journal_id FROM usage_events JOIN journals ON journal_no = id >> 40"
        ).fetchall()
        if found:
            key, journal_id = drawn.choice(found)
            target.execute("UPDATE usage_events SET output_tokens = ifnull(output_tokens, 0) + 1 WHERE id = ?", [key])
    named = asked.evidence(f"sqlite:///{copy}")
    if found and not any(journal_id in fault and str(key & (1 << 40) - 1) in fault for fault in named):
        raise Uneven(f"record {key & (1 << 40) - 1} of journal {journal_id} was changed, and the check finds {named}")
    copy.unlink()
