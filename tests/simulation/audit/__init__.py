"""The auditor: what the provider billed, what the journals hold, and what each sink has of it.

It believes none of them, and shares no code with the product: journals are read as JSON, history by plain SELECTs,
Redis as bytes, and every sum is made anew (`sums`). What only the product can tell is asked in `simulation.asked`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulation.audit import (
    answers,
    budgets,
    calls,
    evidence,
    expiries,
    journals,
    owed,
    power,
    prices,
    prometheus,
    rates,
    redis,
    sql,
    statements,
    thresholds,
    webhook,
)
from simulation.audit.uneven import NotYet, Uneven

if TYPE_CHECKING:
    from simulation.simulation import Simulation

__all__ = ["NotYet", "Uneven", "compare"]


def compare(simulation: Simulation) -> None:
    """All books, at rest. Raises Uneven."""
    files = journals.files(simulation)
    power_lost = bool(simulation.world.counts["power losses"] or simulation.losses.restored)
    missing = power.missing(simulation)
    books = journals.read(files, simulation.journals_read, power_lost=power_lost)
    power.numbers(simulation, books)
    lost = journals.known_lost(files, power_lost=power_lost)
    with sql.opened(simulation.sql.path) as history:
        vanished = power.vanished(simulation, books, history)
        books |= vanished | power.torn(simulation, books, history)
        records = [said for journal in books.values() for said in journal.records]
        calls.compare(simulation, [said for said in records if owed.is_call(said)], lost, missing)
        owed.compare(simulation, records, lost + len(missing), history)
        sql.compare(history, books, vanished)
        statements.compare(simulation, records, history)
        evidence.compare(history, books)
        thresholds.compare(simulation, records, history)
    prices.compare(simulation, records)
    redis.compare(simulation.redis.model.keys, books, forgot=simulation.redis_forgot)
    expiries.compare(simulation.redis.model, records, went_back=simulation.redis_forgot)
    budgets.compare(simulation, records, lost, missing)
    rates.compare(simulation, records)
    if simulation.held_wrongly:
        raise Uneven(simulation.held_wrongly)
    webhook.compare(simulation, records, missing)
    aside = [path for path, _ in files if path.endswith(".letter")]
    if aside:
        raise Uneven(f"records were set aside, and nothing is wrong with them: {aside}")
    drift = sum(node.control.parts.counters.auditor.drift for node in simulation.nodes if node.control is not None)
    if drift and not simulation.redis_forgot:
        raise Uneven(f"the audit of Redis against history had to mend {drift} workspaces, and Redis had lost nothing")
    prometheus.compare(simulation, books)
    answers.compare(simulation, records)  # last, as it asks most, and books that are not even yet are compared again
    simulation.world.counts["records"] = len(records)
    simulation.world.counts["records known to be lost"] = lost
