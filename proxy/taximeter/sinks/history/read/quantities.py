"""Sums of what few calls use, by kind. Rows out, no policy."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from taximeter.core.bounds import FOREVER_US
from taximeter.core.errors import BadRequest
from taximeter.core.quantities import UNITS
from taximeter.sinks.history.conditions import SINGLY, on_names, shape, values
from taximeter.sinks.history.schema import HOUR_S, US, quantities, series, total
from taximeter.sinks.query import SERIES, Filters, QuantitySum


def sums(connection: Connection, filters: Filters, group_by: Sequence[str]) -> list[QuantitySum]:
    """By the names (of query.SERIES), kind and variant; of the hours (UTC) that begin in the range.

    Raises BadRequest on a filter or a name that only single records know.
    """
    asked = shape(filters)
    odd = next((name for name in (*group_by, *(name for name, _ in asked)) if name not in SERIES), None)
    if odd is not None:
        kind = "filtered" if odd in SINGLY and odd not in group_by else "grouped"
        raise BadRequest(f"Quantities cannot be {kind} by {odd}: they are kept by {', '.join(SERIES)}.", param=odd)
    first_s = -(-(filters.from_us or 0) // (HOUR_S * US)) * HOUR_S
    until_s = -(-(FOREVER_US if filters.to_us is None else filters.to_us) // (HOUR_S * US)) * HOUR_S
    keys = [*(series.c[name] for name in group_by), quantities.c.kind, quantities.c.variant]
    query = (
        select(*keys, total(quantities.c.amount))
        .join(series, series.c.series_no == quantities.c.series_no)
        .where(quantities.c.start_s >= first_s, quantities.c.start_s < until_s, on_names(series, asked))
        .group_by(*keys)
    )
    n = len(group_by)
    found = [
        QuantitySum(
            key={name: value or None for name, value in zip(group_by, row, strict=False)},
            kind=row[n],
            variant=row[n + 1] or None,
            amount=int(row[n + 2]),
        )
        for row in connection.execute(query, values(filters))
    ]
    order = list(UNITS)
    names = {kind: order.index(kind) if kind in UNITS else len(order) for kind in {each.kind for each in found}}
    return sorted(
        found, key=lambda each: ([value or "" for value in each.key.values()], names[each.kind], each.variant or "")
    )
