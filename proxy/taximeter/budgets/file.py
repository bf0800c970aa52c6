"""Budgets made at run time, in `<data_dir>/budgets.json`: written by the control process, watched by the workers."""

from __future__ import annotations

from pathlib import Path

from taximeter.budgets.rule import Budget
from taximeter.node.stored_file import StoredFile


class BudgetFile(StoredFile[Budget]):
    """All stored budgets, ended ones too."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir, "budgets", Budget, "budgets")
