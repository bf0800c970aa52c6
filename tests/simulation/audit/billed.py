"""At every moment no less is spent, charged and held of a budget than the provider has billed by then.

Looked at whenever a script has run: what is let go too soon could be spent again, though chance seldom has it so.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from simulation.audit.holds import SPACE, TALLIES
from simulation.audit.spending import dimension, each, hard, period, value

if TYPE_CHECKING:
    from simulation.simulation import Simulation

TROUBLES = ("disk", "power", "restored", "file taken")
"""Faults by which what a call may use at most may be forgotten."""


class Billed:
    """What has reached the provider of those of a run's budgets that are hard and of all time."""

    def __init__(self, simulation: Simulation) -> None:
        plan = simulation.plan
        self._simulation = simulation
        self._budgets = [
            (n, budget)
            for n, budget in enumerate(plan.budgets)
            if hard(budget) and period(budget) == "total" and budget["unit"] in ("tokens", "input_tokens")
        ]
        away = plan.settings.get("budget", {}).get("on_unavailable")
        if away == "allow" or any(fault.kind.startswith(TROUBLES) for fault in plan.faults):
            self._budgets = []
        self._sums: Counter[tuple[int, str]] = Counter()
        """By the budget's number and whose part it is."""
        self._at = 0
        """So many of those that reached the provider are in it."""
        self._forgot = 0
        """How often Redis had forgotten something by the last look."""
        self._doubted: set[bytes] = set()
        """Epochs in which that was not found out yet: nobody is decided about then, or it is soon."""

    def wrong(self) -> str:
        """Of which budget there is less; "": of none, or calls are not decided now."""
        keys = self._simulation.redis.model.keys
        held: dict[bytes, bytes] = keys.get(SPACE + b"held") or {}
        epoch, generation = held.get(b":epoch", b"-"), keys.get(SPACE + b"gen", b"rebuild:")
        forgot = len(self._simulation.redis.forgot_s)
        if forgot > self._forgot:
            self._forgot = forgot
            self._doubted.add(epoch.removeprefix(b"-"))
        if not self._budgets or epoch.startswith(b"-") or generation.startswith(b"rebuild:") or epoch in self._doubted:
            return ""
        self._go_on()
        for (n, whose), billed in self._sums.items():
            budget = self._simulation.plan.budgets[n]
            name = dimension(budget)
            scope = f":{name}={whose}" if name else ""
            sums = keys.get(TALLIES + f"{budget['unit']}:total:0{scope}".encode()) or {}
            holds = int(held.get(b"b%d/%b" % (n, whose.encode()) if each(budget) else b"b%d" % n, 0))
            known = int(sums.get(b"used", 0)) + int(sums.get(b"charged", 0)) + holds
            if known < billed:
                return f"the provider has billed {billed} of {budget}, and Redis knows of {known}, of {whose or 'w0'}"
        return ""

    def _go_on(self) -> None:
        provider = self._simulation.provider
        new, self._at = provider.reached[self._at :], len(provider.reached)
        if not new:
            return
        plans = {caller.plan.marker: caller.plan for caller in self._simulation.callers}
        for marker in new:
            plan, bill = plans[marker], provider.bills.get(marker)
            if plan.workspace != "w0" or bill is None:
                continue
            amounts = {"tokens": bill.prompt_tokens + bill.output_tokens, "input_tokens": bill.prompt_tokens}
            for n, budget in self._budgets:
                whose = value(budget, {"track": plan.track, "key_id": plan.key})
                if whose is not None:
                    self._sums[n, whose] += amounts[budget["unit"]]
