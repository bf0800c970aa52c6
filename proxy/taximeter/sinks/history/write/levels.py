"""Adding cells to the levels of a roll-up, from the finest on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from sqlalchemy import Table

from taximeter.sinks.cells import merge
from taximeter.sinks.history.schema import LEVELS
from taximeter.sinks.history.windows import level_start_s
from taximeter.sinks.history.write.statements import Place, Statements

Cells = dict[Place, list[int]]
"""Where -> sums."""


def put(cells: Cells, place: Place, cell: Sequence[int]) -> None:
    """Add to the cell of a place."""
    if place in cells:
        merge(cells[place], cell)
    else:
        cells[place] = list(cell)


def add_to_levels(statements: Statements, tables: Sequence[Table], cells: Cells) -> None:
    """Add cells of the finest level to the tables of every level (the coarsest of schema.LEVELS), in one order on every
    node."""
    cells = dict(sorted(cells.items()))
    sums = list(map(statements.packed, cells.values()))
    for level, table in zip(LEVELS[-len(tables) :], tables, strict=True):
        starts = {start_s: _start_s(level.name, start_s) for start_s in {place[0] for place in cells}}
        places = [(starts[place[0]], *place[1:]) for place in cells]
        if len(set(starts.values())) == len(starts):  # as in nearly every batch: the same sums, in the same order
            cells = dict(zip(places, cells.values(), strict=True))
        else:
            merged: Cells = {}
            for place, cell in zip(places, cells.values(), strict=True):
                put(merged, place, cell)
            cells = dict(sorted(merged.items()))
            sums = list(map(statements.packed, cells.values()))
        statements.add(table, zip(cells, sums, strict=True))


@lru_cache(maxsize=1_024)
def _start_s(level: str, at_s: int) -> int:
    return level_start_s(level, at_s)
