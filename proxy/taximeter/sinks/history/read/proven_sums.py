"""Whether roll-ups are the sums of the records that are there: by quarters of an hour, all series together."""

from __future__ import annotations

from sqlalchemy import Connection, select

from taximeter.core.bounds import FOREVER_US
from taximeter.sinks.cells import FIELDS, empty, merge
from taximeter.sinks.history.exact import of_any_size
from taximeter.sinks.history.marks import APART, EVENTS, since_us
from taximeter.sinks.history.schema import QUARTER, QUARTER_S, US, total
from taximeter.sinks.history.sums import Windows, record_sums
from taximeter.sinks.query import Filters


@of_any_size
def differing_quarters(connection: Connection, from_us: int, to_us: int) -> list[int]:
    """Starts (s since epoch) of those that lie in a period and have other sums than their records.

    From where all records are there, and refusals are told apart.
    """
    first_us = max(from_us, since_us(connection, EVENTS), since_us(connection, APART))
    first_s = -(-first_us // (QUARTER_S * US)) * QUARTER_S
    end_s = min(to_us, FOREVER_US) // (QUARTER_S * US) * QUARTER_S
    if first_s >= end_s:
        return []
    sums: dict[int, list[int]] = {}
    windows = Windows(first_s * US, QUARTER_S * US)
    for part in record_sums(connection, Filters(), first_s * US, end_s * US, (), windows):
        merge(sums.setdefault(first_s + part.window * QUARTER_S, empty()), part.cell)
    rows = connection.execute(
        select(QUARTER.c.start_s, *(total(QUARTER.c[field]) for field in FIELDS))
        .where(QUARTER.c.start_s >= first_s, QUARTER.c.start_s < end_s)
        .group_by(QUARTER.c.start_s)
    )
    kept = {row.start_s: list(row[1:]) for row in rows}
    return sorted(at_s for at_s in sums.keys() | kept.keys() if sums.get(at_s, empty()) != kept.get(at_s, empty()))
