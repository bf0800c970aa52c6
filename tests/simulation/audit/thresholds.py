"""Thresholds of budgets: the webhook's receiver has one word of each that was reached, by period and by value."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import quote

from simulation.audit.journals import Said
from simulation.audit.spending import Budget, charged, concerned, each, period, rolling, used
from simulation.audit.uneven import NotYet, Uneven

if TYPE_CHECKING:
    from simulation.simulation import Simulation

PERCENT = (50, 80, 100)
"""docs/limits.md: where nothing is said."""
LATE = ("power", "restored", "lost node", "comes later", "stall")
"""What may keep a record back for longer than a period is looked at after its end."""


def compare(simulation: Simulation, records: list[Said], history: sqlite3.Connection) -> None:
    """Raises Uneven; NotYet for what may still come."""
    if history.execute("SELECT 1 FROM sqlite_master WHERE name = 'told_once'").fetchone() is not None:
        begun = [row["key"] for row in history.execute("SELECT key FROM told_once WHERE at < 0")]
        lasting = [f"budget:b{n}:" for n, budget in enumerate(simulation.plan.budgets) if not rolling(budget)]
        if begun := [key for key in begun if key.startswith(tuple(lasting))]:
            raise NotYet(f"somebody was about to tell of {begun}, and has not said that it is done")
    settings = simulation.nodes[0].settings.webhook
    if not settings.url or settings.format != "cloudevents":
        return
    bodies = {key: json.loads(letter.body) for key, letter in simulation.receiver.taken.items()}
    told = {key: said["data"] for key, said in bodies.items() if said["type"] == "taximeter.budget.threshold"}
    kinds = {fault.kind for fault in simulation.plan.faults}
    missing: list[str] = []
    possible: set[str] = set()
    for n, budget in enumerate(simulation.plan.budgets):
        late = bool(kinds & {*LATE}) or simulation.redis_forgot
        sure = period(budget) == "total" or (not rolling(budget) and not late)
        for place, (spent, most) in _spent(f"b{n}:w0", budget, records).items():
            keys = {percent: f"{place}:{percent}" for percent in PERCENT}
            possible |= {key for percent, key in keys.items() if 100 * most >= percent * budget["limit"]}
            due = {key for percent, key in keys.items() if 100 * spent >= percent * budget["limit"]}
            missing += due - told.keys() if sure else ()
    strangers = {_place(key, said["period"]) for key, said in told.items()} - possible
    if strangers and not simulation.losses.files:
        raise Uneven(f"word was sent of thresholds that were never reached: {sorted(strangers)}")
    for key, said in told.items():
        if 100 * (said["spent"] + said["charged"]) < said["percent"] * said["limit"]:
            raise Uneven(f"word of {key} was sent, and it was not reached then: {said}")
    again = [key for key in simulation.receiver.unlike if key in told]
    if again and not kinds & {"kill", "power", "stall", "sql down", "sql refuses", "sql loses replies", "lost node"}:
        raise Uneven(f"word of {again} was sent more than once, and nobody had died of it")
    simulation.world.counts["thresholds"] = len(told)
    if missing:
        raise NotYet(f"nobody was told that {sorted(missing)} were reached")


def _place(key: str, named: str) -> str:
    """A word's id; of a window without when it was told: that is as the clock of who told it stood."""
    if not named.startswith("rolling"):
        return key
    *whose, _, percent = key.split(":")
    return ":".join((*whose, "0", percent))


def _spent(name: str, budget: Budget, records: list[Said]) -> dict[str, tuple[int, int]]:
    """An id without its percentage -> what is spent by now, and what may have been before some of it was let go. A
    window has all records: calls come for less than a minute."""
    spent: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for begins_s, whose, said in concerned(budget, records):
        place = f"{name}:{quote(whose, safe='@')}" if each(budget) else name
        place += ":0" if rolling(budget) else f":{begins_s}"
        amount, held = used(said, budget["unit"]), charged(said, budget["unit"])
        spent[place] += amount + held
        most[place] += amount + max(0, held)
    return {place: (amount, most[place]) for place, amount in spent.items()}
