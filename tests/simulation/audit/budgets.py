"""Budgets: never billed beyond the limit; at rest nothing is held, and what is spent is what the records say."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from simulation.audit.journals import Said
from simulation.audit.owed import is_call
from simulation.audit.redis import prefix
from simulation.audit.sums import of
from simulation.audit.uneven import NotYet, Uneven, same

if TYPE_CHECKING:
    from simulation.simulation import Simulation


def compare(simulation: Simulation, records: list[Said], lost: int, gone: set[str]) -> None:
    """Raises Uneven. `gone`: calls of which a power loss took a line, which may have said what they use at most."""
    budgets = simulation.plan.budgets
    for budget in budgets:
        _billed(simulation, budget)
    troubled = any(fault.kind in ("disk full", "disk write errors") for fault in simulation.plan.faults)
    if not (troubled and simulation.plan.settings["journal"]["on_error"] == "pass"):
        for said in records:  # lenient on a full disk, a worker's word of what calls may use goes with it
            # what lets go of a charge charges nothing (`owed`)
            if "budgets" in of(said, "tags") and is_call(said) and said.get("document") not in gone:
                _charged(simulation, said)
    if not budgets or lost or gone or simulation.mute:  # what a call of which nothing is recorded holds stays held
        return
    keys = simulation.redis.model.keys
    space = prefix("w0").encode()
    for key in (b"reserved", b"reserved_at"):
        if left := keys.get(space + key):
            raise NotYet(f"Redis: at rest {key.decode()} of w0 is {left}")
    held = keys.get(space + b"held") or {}
    if left := {field: n for field, n in held.items() if not field.startswith(b":") and int(n)}:
        raise NotYet(f"Redis: at rest w0 still holds {left}")
    error = NotYet if simulation.redis_forgot else Uneven
    mine = [said for said in records if said["workspace"] == "w0"]
    for budget in budgets:
        same(f"Redis' sums for {budget}", _tallied(keys, space, budget), _due(mine, budget), error)


def _billed(simulation: Simulation, budget: dict[str, Any]) -> None:
    """By the provider's own bill, for each value the budget is about."""
    billed: Counter[str] = Counter()
    for caller in simulation.callers:
        plan, bill = caller.plan, simulation.provider.bills.get(caller.plan.marker)
        if bill is not None and plan.workspace == "w0" and (plan.track or "track" not in budget):
            amount = bill.prompt_tokens + (bill.output_tokens if budget["unit"] == "tokens" else 0)
            billed[plan.track or "" if "track" in budget else ""] += amount
    for value, amount in billed.items():
        if amount > budget["limit"]:
            raise Uneven(f"the provider billed {amount} of {value or 'w0'}, and its budget is {budget}")


def _charged(simulation: Simulation, said: Said) -> None:
    """Of what is not known at least as much is charged as the provider billed."""
    bill = simulation.provider.bills.get(said.get("document", ""))
    if bill is None or (said["outcome"] != "interrupted" and said.get("input_tokens") is not None):
        return
    spent = (said.get("total_tokens") or 0) + (said.get("charged_tokens") or 0)
    if spent < bill.prompt_tokens + bill.output_tokens:
        raise Uneven(f"the provider billed {bill}, and {spent} tokens are charged: {said}")


def _tallied(keys: Any, space: bytes, budget: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Value -> used and charged, as Redis has it."""
    found: dict[str, dict[str, int]] = {}
    start = space + f"tally:{budget['unit']}:total:0".encode()
    for key, value in keys.items():
        scope = key.removeprefix(start)
        if scope != key and scope.startswith(b":track=") == ("track" in budget):
            found[scope.decode().removeprefix(":track=")] = {
                field.decode(): int(amount) for field, amount in value.items() if int(amount)
            }
    return {value: sums for value, sums in found.items() if sums}


def _due(records: list[Said], budget: dict[str, Any]) -> dict[str, dict[str, int]]:
    names = ("input_tokens", "output_tokens") if budget["unit"] == "tokens" else ("input_tokens",)
    charged = "charged_tokens" if budget["unit"] == "tokens" else "charged_input_tokens"
    due: dict[str, Counter[str]] = {}
    for said in records:
        if "track" in budget and not said.get("track"):
            continue
        cell = due.setdefault(said["track"] if "track" in budget else "", Counter())
        cell["charged"] += said.get(charged) or 0
        if of(said, "kind") == "usage" and of(said, "operation") != "other":
            cell["used"] += sum(said.get(name) or 0 for name in names)
    sums = {value: {name: n for name, n in cell.items() if n} for value, cell in due.items()}
    return {value: cell for value, cell in sums.items() if cell}
