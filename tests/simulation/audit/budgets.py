"""Budgets: never billed beyond the limit; at rest nothing is held, and what is spent is what the records say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simulation.audit.calls import waiting
from simulation.audit.journals import Said
from simulation.audit.owed import is_call
from simulation.audit.redis import prefix
from simulation.audit.spending import (
    WINDOW_S,
    Budget,
    charged,
    concerned,
    dimension,
    hard,
    period,
    rolling,
    start_s,
    used,
    value,
)  # fmt: skip
from simulation.audit.sums import of
from simulation.audit.uneven import NotYet, Uneven, same

if TYPE_CHECKING:
    from simulation.simulation import Simulation

BACK = ("redis older", "redis fails over", "redis workspace older")
"""Faults after which Redis is as it was `amount` seconds ago."""

Keys = Mapping[bytes, Any]
Sums = dict[tuple[int, str], dict[str, int]]


def compare(simulation: Simulation, records: list[Said], lost: int, gone: set[str]) -> None:
    """Raises Uneven. `gone`: calls of which a power loss took a line, which may have said what they use at most."""
    budgets = simulation.plan.budgets
    for budget in budgets:
        if hard(budget):
            _billed(simulation, budget, records)
    lenient = simulation.plan.settings["journal"]["on_error"] == "pass"
    untold = waiting(simulation) if lenient else set()  # a worker's word of what calls may use waits with it
    for said in records:
        # what lets go of a charge charges nothing (`owed`)
        if "budgets" in of(said, "tags") and is_call(said) and said.get("document") not in gone | untold:
            _charged(simulation, said)
    if not budgets:
        return
    keys = simulation.redis.model.keys
    space = prefix("w0").encode()
    if not (lost or gone or simulation.mute):  # what a call of which nothing is recorded holds stays held
        _nothing_held(keys, space)
    error = NotYet if simulation.redis_forgot else Uneven
    mine = [said for said in records if said["workspace"] == "w0"]
    now_s = simulation.world.wall_ns() / 1e9
    for budget in budgets:
        told, due = (_asked_for(sums, budget, now_s) for sums in (_sums(keys, space, budget), _due(mine, budget)))
        same(f"Redis' sums for {budget}", told, due, error)


def _nothing_held(keys: Keys, space: bytes) -> None:
    for key in (b"reserved", b"reserved_at"):
        if left := keys.get(space + key):
            raise NotYet(f"Redis: at rest {key.decode()} of w0 is {left}")
    held = keys.get(space + b"held") or {}
    if left := {field: n for field, n in held.items() if not field.startswith(b":") and int(n)}:
        raise NotYet(f"Redis: at rest w0 still holds {left}")


def _billed(simulation: Simulation, budget: Budget, records: list[Said]) -> None:
    """By the provider's own bill, for each value the budget is about, in each of its periods.

    Of all time that needs no record; else a call belongs to the period in which its record says that it ended.
    """
    ended = {said["document"]: said["ended_at"] for said in records if "document" in said and is_call(said)}
    lost_s = [(fault.at_s - fault.amount, fault.at_s) for fault in simulation.plan.faults if fault.kind in BACK]
    calls: dict[str, list[tuple[int, int, int]]] = {}
    for caller in simulation.callers:
        plan, bill = caller.plan, simulation.provider.bills.get(caller.plan.marker)
        whose = value(budget, {"track": plan.track, "key_id": plan.key}) if plan.workspace == "w0" else None
        if bill is None or whose is None or (period(budget) != "total" and plan.marker not in ended):
            continue
        came, went = bill.prompt_tokens, bill.output_tokens
        asks = int(plan.method != b"GET")
        amount = {"tokens": came + went, "input_tokens": came, "output_tokens": went, "requests": asks}[budget["unit"]]
        forgotten = any(since_s <= plan.at_s <= until_s for since_s, until_s in lost_s)
        calls.setdefault(whose, []).append((ended.get(plan.marker, 0), amount, amount if forgotten else 0))
    for whose, amounts in calls.items():
        for at_us, _, _ in amounts:
            together = [each for each in amounts if _in_one_period(budget, each[0], at_us)]
            billed = sum(amount for _, amount, _ in together)
            # a Redis that went back may have forgotten what was reserved since, for who has not reserved since
            if billed > budget["limit"] + sum(amount for _, _, amount in together):
                raise Uneven(f"the provider billed {billed} of {whose or 'w0'}, and its budget is {budget}")
            if period(budget) == "total":
                break


def _in_one_period(budget: Budget, one_us: int, ends_us: int) -> bool:
    """Whether what ended then is in the period in which the other did, or in the window that it ends."""
    if rolling(budget):
        return ends_us - WINDOW_S * 1_000_000 < one_us <= ends_us
    return period(budget) == "total" or start_s(budget, one_us) == start_s(budget, ends_us)


def _charged(simulation: Simulation, said: Said) -> None:
    """Of what is not known at least as much is charged as the provider billed."""
    bill = simulation.provider.bills.get(said.get("document", ""))
    if bill is None or (said["outcome"] != "interrupted" and said.get("input_tokens") is not None):
        return
    spent = (said.get("total_tokens") or 0) + (said.get("charged_tokens") or 0)
    if spent < bill.prompt_tokens + bill.output_tokens:
        raise Uneven(f"the provider billed {bill}, and {spent} tokens are charged: {said}")


def _sums(keys: Keys, space: bytes, budget: Budget) -> Sums:
    """Beginning and value -> used and charged, as Redis has it."""
    found: Sums = {}
    start = space + f"tally:{budget['unit']}:{period(budget).replace(' ', '')}:".encode()
    for key, fields in keys.items():
        place = key.removeprefix(start).decode()
        begins, _, scope = place.partition(":")
        name, _, whose = scope.partition("=")
        if key.startswith(start) and name == dimension(budget) and value(budget, {name: whose}) == whose:
            found[int(begins), whose] = {field.decode(): int(amount) for field, amount in fields.items() if int(amount)}
    return {place: sums for place, sums in found.items() if sums}


def _due(records: list[Said], budget: Budget) -> Sums:
    due: dict[tuple[int, str], Counter[str]] = {}
    for begins_s, whose, said in concerned(budget, records):
        cell = due.setdefault((begins_s, whose), Counter())
        cell["charged"] += charged(said, budget["unit"])
        cell["used"] += used(said, budget["unit"])
    sums = {place: {name: n for name, n in cell.items() if n} for place, cell in due.items()}
    return {place: cell for place, cell in sums.items() if cell}


def _asked_for(sums: Sums, budget: Budget, now_s: float) -> Sums:
    """Those that are asked for still: a rebuild does not make what has left a window."""
    return {place: cell for place, cell in sums.items() if not rolling(budget) or place[0] > now_s - WINDOW_S}
