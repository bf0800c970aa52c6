"""Adding up what few calls use (core.quantities), by hour and series, in the transaction of their records."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from taximeter.core.bounds import MAX_SUM
from taximeter.core.quantities import quantities, uses_any
from taximeter.sinks.batch import Group
from taximeter.sinks.history.schema import HOUR_S
from taximeter.sinks.history.schema import quantities as table

Place = tuple[int, int, str, str]
"""Hour, series, kind, variant."""


def add_quantities(connection: Connection, taken: Iterable[tuple[Group, int]]) -> None:
    """Of each group, with its series."""
    sums: dict[Place, int] = {}
    for group, series_no in taken:
        start_s = group.quarter_s // HOUR_S * HOUR_S
        for record in filter(uses_any, group.records):
            for each in quantities(record):
                place = start_s, series_no, each.kind, each.variant
                sums[place] = min(sums.get(place, 0) + each.amount, MAX_SUM)
    if not sums:
        return
    maker = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    new = maker(table)
    names = [column.name for column in table.columns]
    added = new.on_conflict_do_update(index_elements=names[:-1], set_={"amount": table.c.amount + new.excluded.amount})
    connection.execute(added, [dict(zip(names, (*place, sums[place]), strict=True)) for place in sorted(sums)])
