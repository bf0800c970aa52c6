"""The bugs that are sown to see whether the simulation finds them, room by room."""

from __future__ import annotations

from simulation.sown import billing, calls, delivery, history, journal, limits, outward, redis
from simulation.sown.mutant import Mutant

ROOMS: dict[str, tuple[Mutant, ...]] = {
    "the journal: its writer, what a dead one leaves, machines that lose power": journal.MUTANTS,
    "delivery: what is read, and who gets it": delivery.MUTANTS,
    "history: rows, sums, reading; evidence": history.MUTANTS,
    "counters in Redis, and their rebuild": redis.MUTANTS,
    "what is billed later, corrections, statements": billing.MUTANTS,
    "budgets, rates, thresholds": limits.MUTANTS,
    "a call's way, and its key": calls.MUTANTS,
    "the webhook and /metrics": outward.MUTANTS,
}
MUTANTS = tuple(mutant for mutants in ROOMS.values() for mutant in mutants)
