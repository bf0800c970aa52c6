"""Prices that changed: what a call costs by now, with its corrections, is its price as it was given last."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from simulation.audit.journals import Said
from simulation.audit.sums import of
from simulation.audit.uneven import Uneven

if TYPE_CHECKING:
    from simulation.simulation import Simulation


def compare(simulation: Simulation, records: list[Said]) -> None:
    """Raises Uneven."""
    if not simulation.operators.repriced:
        return
    costs: Counter[Any] = Counter()
    for said in records:
        costs[_key(said)] += said.get("cost_nusd") or 0
    for said in records:
        known = said.get("input_tokens") is not None or said.get("output_tokens") is not None
        if of(said, "kind") == "usage" and known:
            price = (said.get("input_tokens") or 0) * 1_000 + (said.get("output_tokens") or 0) * 2_000
            due, cost = simulation.operators.price_times * price, costs[_key(said)]
            if cost != due:
                raise Uneven(f"with its corrections it costs {cost} nano-USD, and its price is {due}: {said}")


def _key(said: Said) -> tuple[Any, ...]:
    return said["request_id"], of(said, "attempt"), said.get("line")
