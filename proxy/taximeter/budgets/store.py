"""Making, listing and ending budgets: the file of this node. Blocking (a small file): call it in a thread."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from taximeter.budgets import rule as budgets
from taximeter.budgets.file import BudgetFile
from taximeter.budgets.rule import Budget, Budgets, Mode, Period, Unit
from taximeter.core.errors import NotFound
from taximeter.node.stored_list import StoredRing


class BudgetRing(StoredRing[Budget, Budgets]):
    """All budgets of this node."""

    def __init__(self, file: BudgetFile, *, now_us: Callable[[], int], random: Callable[[int], bytes]) -> None:
        """Raises DataDirError when the file is there and cannot be read."""
        self._now_us = now_us
        self._random = random
        super().__init__(file, merge=budgets.merge, view=Budgets)

    def in_force(self) -> Budgets:
        """The budgets that hold now. One `stat` a call."""
        return self.current()

    def listing(self) -> list[Budget]:
        """Every budget that holds, oldest first."""
        return [budget for budget in self.stored() if not budget.ended_at]

    def create(
        self, workspace: str, limit: int, *, unit: Unit, period: Period, mode: Mode, key_id: str = "", task: str = ""
    ) -> Budget:
        """A new budget. Raises BadRequest where it cannot be meant."""
        budget = Budget(
            id=f"bud_{self._random(6).hex()}",
            workspace=workspace,
            key_id=key_id,
            task=task,
            unit=unit,
            period=period,
            limit=limit,
            mode=mode,
            created_at=self._now_us(),
        )
        self.absorb([budgets.checked(budget)])
        return budget

    def end(self, budget_id: str) -> Budget:
        """End a budget; a second time changes nothing. Raises NotFound."""
        for budget in self.stored():
            if budget.id == budget_id:
                ended = replace(budget, ended_at=budget.ended_at or self._now_us())
                self.absorb([ended])
                return ended
        raise NotFound(f"No budget {budget_id[:128]!r}.", param="id")
