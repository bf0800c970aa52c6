"""Making, listing and ending budgets: the file of this node. Blocking (a small file): call it in a thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from threading import Lock

from msgspec.structs import replace

from taximeter.budgetfile import BudgetFile
from taximeter.core import budgets
from taximeter.core.budgets import Budget, Budgets, Mode, Period, Unit
from taximeter.core.errors import DataDirError, NotFound

log = logging.getLogger(__name__)


class BudgetRing:
    """All budgets of this node. Other processes may change the file; `in_force` sees that within one call."""

    def __init__(self, file: BudgetFile, *, now_us: Callable[[], int], random: Callable[[int], bytes]) -> None:
        """Raises DataDirError when the file is there and cannot be read."""
        self._file = file
        self._now_us = now_us
        self._random = random
        self._lock = Lock()
        self._read()

    def in_force(self) -> Budgets:
        """The budgets that hold now. One `stat` a call."""
        if self._file.changed():
            with self._lock:
                try:
                    self._read()
                except DataDirError as error:  # those known so far stay in force
                    log.error("%s", error)
        return self._in_force

    def listing(self) -> list[Budget]:
        """Every budget that holds, oldest first."""
        self.in_force()
        return [budget for budget in self._stored if not budget.ended_at]

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
        self.in_force()
        for budget in self._stored:
            if budget.id == budget_id:
                ended = replace(budget, ended_at=budget.ended_at or self._now_us())
                self.absorb([ended])
                return ended
        raise NotFound(f"No budget {budget_id[:128]!r}.", param="id")

    def absorb(self, others: Iterable[Budget]) -> list[Budget]:
        """Take in another copy's budgets; the stored ones of both. Writes only where there is something new."""
        with self._lock:
            stored = self._file.load()
            merged = budgets.merge(stored, others)
            if merged != stored:
                self._file.save(merged)
            self._read()
            return merged

    def _read(self) -> None:
        self._stored = self._file.load()
        self._in_force = Budgets(self._stored)
