"""What budgets are measured by, beside the sums of everything: keys and tasks counted apart, and charges. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from taximeter.core.record import Record
from taximeter.core.totals import COST, TOTAL, empty
from taximeter.sinks.batch import Group
from taximeter.sinks.ledger import Cell
from taximeter.sinks.redis import keys
from taximeter.sinks.redis.cells import TOTALS, Sums, merge


def add_budgeted(sums: Sums, groups: Iterable[Group], charged: Iterable[Record], scopes: Collection[str]) -> None:
    """`scopes`: keys and tasks (`key:<id>`, `task:<name>`) to be summed apart, because a budget is about them;
    `charged`: those of the records that may be charged for what is not known of their use."""
    apart: dict[tuple[str, int], Cell] = {}
    for group in groups:
        for scope in (f"key:{group.record.key_id}", f"task:{group.record.task}"):
            if scope in scopes:
                merge(apart, (scope, group.quarter_s // 3_600), group.cell[:TOTALS])
    for (scope, hour), cell in apart.items():
        _put(sums, scope, hour, budgeted(cell))
    charges: dict[tuple[str, int], Cell] = {}
    for record in charged:
        amounts = [record.charged_tokens or 0, record.charged_cost_nusd or 0]
        if any(amounts):
            for scope in ("", f"key:{record.key_id}", f"task:{record.task}"):
                if not scope or scope in scopes:
                    merge(charges, (scope, record.ended_at // keys.HOUR_US), amounts)
    for (scope, hour), amounts in charges.items():
        _put(sums, scope, hour, [*empty(), *amounts])


def budgeted(cell: Cell) -> Cell:
    """Of a cell what budgets are measured by."""
    kept = empty()
    kept[COST], kept[TOTAL] = cell[COST], cell[TOTAL]
    return kept


def _put(sums: Sums, scope: str, hour: int, cell: Cell) -> None:
    """In total, and in the month and day of an hour; scope "" is the workspace itself."""
    in_month, in_day, _, day_expires, _ = keys.periods(hour)
    total, month, day = (keys.scope(scope, at) if scope else at for at in ("total", in_month, in_day))
    sums.put(cell, [(sums.prefix + total, 0), (sums.prefix + month, 0), sums.expiring(day, day_expires)])
