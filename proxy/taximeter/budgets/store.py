"""Making, listing and ending budgets: those in `<data_dir>/budgets.json`, which the workers follow."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import asdict, replace

from taximeter.budgets import rule
from taximeter.budgets.rule import Budget, Budgets, Mode
from taximeter.budgets.tally import Unit
from taximeter.core.errors import NotFound
from taximeter.node.audit import AuditLog
from taximeter.node.stored_list import StoredList


class BudgetStore(StoredList[Budget, Budgets]):
    """All budgets of this node."""

    def __init__(
        self,
        data_dir: Path,
        *,
        audit: AuditLog | None = None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`audit`: where changes are written down. Raises DataDirError when the file is there and cannot be read."""
        self._audit = audit or AuditLog()
        self._now_us = now_us
        self._random = random
        super().__init__(data_dir, "budgets", Budget, merge=rule.merge, view=Budgets, is_sound=rule.is_stored)

    def listing(self) -> list[Budget]:
        """Every budget that holds, oldest first."""
        return [budget for budget in self.stored() if not budget.ended_at]

    def create(
        self, workspace: str, limit: int, *, unit: Unit, period: str, mode: Mode, tz: str = "UTC", **scope: Any
    ) -> Budget:
        """A new budget; `scope`: of tally.DIMENSIONS. Raises BadRequest where it cannot be meant."""
        budget = Budget(
            id=f"bud_{self._random(6).hex()}",
            workspace=workspace,
            unit=unit,
            period=period,
            tz=tz,
            limit=limit,
            mode=mode,
            created_at=self._now_us(),
            **scope,
        )
        with self._audit.act("budget.create", budget.id) as change:
            self.absorb([rule.checked(budget)])
            change.after = _told(budget)
        return budget

    def end(self, budget_id: str) -> Budget:
        """End a budget; a second time changes nothing. Raises NotFound."""
        with self._audit.act("budget.end", budget_id) as change:
            budget = next((budget for budget in self.stored() if budget.id == budget_id), None)
            if budget is None:
                raise NotFound(f"No budget {budget_id[:128]!r}.", param="id")
            change.before = _told(budget)
            ended = replace(budget, ended_at=budget.ended_at or self._now_us())
            self.absorb([ended])
        return ended


def _told(budget: Budget) -> dict[str, Any]:
    """A budget in the audit log: its own words, the limit in nano-USD or tokens."""
    return {name: value for name, value in asdict(budget).items() if value}
