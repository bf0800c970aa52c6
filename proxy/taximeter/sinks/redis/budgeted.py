"""What budgets are measured by, beside the sums of everything: tallies, by period and what calls say. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from taximeter.budgets.tally import Tally, charged, used
from taximeter.core.record import Record
from taximeter.core.totals import empty
from taximeter.sinks.redis import keys
from taximeter.sinks.redis.cells import Sums

_US = 1_000_000


def add_tallies(
    sums: Sums, records: Sequence[Record], tallies: Collection[Tally], now_us: int
) -> set[tuple[Tally, tuple[str, ...]]]:
    """Add up these records for these tallies; returns what was added to, by the values of each.

    What nobody will ask for any more is left out: sums that expired.
    """
    touched: set[tuple[Tally, tuple[str, ...]]] = set()
    found: dict[str, list[int]] = {}
    """Key -> used, charged, when it expires."""
    for tally in tallies:
        when, used_of, charged_of = tally.when, used(tally.unit), charged(tally.unit)
        for record in records:
            amounts = used_of(record), charged_of(record)
            values = tally.values(record) if any(amounts) else None
            if values is None:
                continue
            ended_s = record.ended_at // _US
            start_s = when.start_s(ended_s)
            key, expires_s = keys.tally(tally, start_s, values), keys.tally_expires_s(tally, start_s, ended_s)
            if expires_s and expires_s * _US <= now_us:
                continue
            touched.add((tally, values))
            so_far = found.setdefault(key, [0, 0, expires_s])
            so_far[0] += amounts[0]
            so_far[1] += amounts[1]
            so_far[2] = max(so_far[2], expires_s)
    for key, (used_sum, charged_sum, expires_s) in found.items():
        sums.put([*empty(), used_sum, charged_sum], [sums.expiring(key, expires_s)])
    return touched
