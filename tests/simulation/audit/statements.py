"""Statements: a closed one never changes, and all of a period's together are its records, by model and by task.

Its lines come to what it remembers having stated, and its total to its lines.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from simulation.audit.journals import Said
from simulation.audit.sums import Sums, fold, model, of
from simulation.audit.uneven import Uneven, same

if TYPE_CHECKING:
    from simulation.simulation import Simulation

KEY = ("provider", "model", "task", "operation", "key_id", "service_tier")
FIGURES = ("requests", "cost_nusd", "llm_input_tokens", "llm_output_tokens", "embedding_tokens", "unknown_requests")
QUANTITIES = {
    "requests": "requests",
    "input_tokens": "llm_input_tokens",
    "output_tokens": "llm_output_tokens",
    "embedding_tokens": "embedding_tokens",
}
"""Of a line, and the figures they are."""


def compare(simulation: Simulation, records: list[Said], history: sqlite3.Connection) -> None:
    """Raises Uneven."""
    operators = simulation.operators
    operators.look()
    if operators.unlike:
        raise Uneven(f"statements that were closed are others now, or none: {operators.unlike}")
    if not operators.statements:
        return
    rows = [dict(row) for row in history.execute("SELECT * FROM billing_statements ORDER BY workspace, number")]
    numbers: dict[str, list[int]] = {}
    for row in rows:
        numbers.setdefault(row["workspace"], []).append(row["number"])
        row["stated"] = json.loads(row["basis"])["stated"]
    if gaps := {name: given for name, given in numbers.items() if given != [*range(1, len(given) + 1)]}:
        raise Uneven(f"statements are not numbered 1, 2, 3 …: {gaps}")
    for row in rows:
        same(f"What is stated of {row['workspace']}'s period {row['number']}", _stated(rows, row), _due(records, row))
        _lines(row)


def _lines(row: dict[str, Any]) -> None:
    said = json.loads(row["statement"])
    shown: dict[Any, Counter[str]] = {}
    for line in said["lines"]:
        shown.setdefault(str(line["corrects"] or row["number"]), Counter()).update(_figures(line))
    stated: dict[Any, Counter[str]] = {number: Counter() for number in row["stated"]}
    for number, cells in row["stated"].items():
        for each in cells:
            stated[number].update({name: each["sums"].get(name, 0) for name in (*QUANTITIES.values(), "cost_nusd")})
            stated[number]["charge_nusd"] += each["charge_nusd"] or 0
    what = f"{row['workspace']}'s statement {row['number']}"
    same(f"What the lines of {what} say", _without_zeros(shown), _without_zeros(stated))
    lines: Counter[str] = Counter()
    for sums in shown.values():
        lines.update(sums)
    same(f"The total of {what}", _without_zeros({"": _figures(said["total"])}), _without_zeros({"": lines}))


def _figures(line: dict[str, Any]) -> Counter[str]:
    found = Counter({ours: line["quantities"][name] for name, ours in QUANTITIES.items()})
    for money in ("cost", "charge"):
        found[f"{money}_nusd"] = int(Decimal(line[f"{money}_usd"] or 0) * 10**9)
    return found


def _stated(rows: list[dict[str, Any]], period: dict[str, Any]) -> Sums:
    """Of a period, on its own statement and on those after it."""
    found: dict[Any, Counter[str]] = {}
    for row in rows:
        if row["workspace"] == period["workspace"]:
            for said in row["stated"].get(str(period["number"]), ()):
                cell = found.setdefault(tuple(name or "" for name in said["key"]), Counter())
                cell.update({name: said["sums"].get(name, 0) for name in FIGURES})
                cell["charge_nusd"] += said["charge_nusd"] or 0
    return _without_zeros(found)


def _due(records: list[Said], period: dict[str, Any]) -> Sums:
    def key(said: Said) -> tuple[str, ...] | None:
        if said["workspace"] != period["workspace"] or not period["from_us"] <= said["ended_at"] < period["to_us"]:
            return None
        return tuple(model(said) if name == "model" else of(said, name) or "" for name in KEY)

    found = {}
    for names, sums in fold(records, key).items():
        cell = found[names] = Counter({name: sums.get(name, 0) for name in FIGURES})
        cell["charge_nusd"] = cell["cost_nusd"] * 3 // 2  # the plan's: half more than it costs
    return _without_zeros(found)


def _without_zeros(found: dict[Any, Counter[str]]) -> Sums:
    cells = {key: {name: n for name, n in cell.items() if n} for key, cell in found.items()}
    return {key: cell for key, cell in cells.items() if cell}
