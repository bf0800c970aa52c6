"""Adding to the histograms of how long calls took, in the transaction that stores them."""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.latency import STEPS, step
from taximeter.core.record import Outcome
from taximeter.sinks.batch import Group
from taximeter.sinks.history.schema import DAY_S, HOUR_S, LATENCY_DAY, LATENCY_HOUR
from taximeter.sinks.history.write.statements import Statements

Counts = dict[tuple[int, int, int], list[int]]
"""(start_s, series_no, measure) -> calls by step."""


def add_latencies(statements: Statements, taken: Iterable[tuple[Group, int]]) -> None:
    """Of the calls that ended well, each group with its series: of others it says how long one waited for nothing."""
    hours: Counts = {}
    for group, series_no in taken:
        record = group.record
        if record.outcome is not Outcome.OK or record.kind != "usage":
            continue
        start_s = group.quarter_s // HOUR_S * HOUR_S
        for measure, known in enumerate(
            ([each.duration_ms for each in group.records], [each.ttft_ms for each in group.records if each.stream])
        ):
            for ms in known:
                if ms is not None:
                    _counts(hours, (start_s, series_no, measure))[step(ms)] += 1
    if not hours:
        return
    days: Counts = {}
    for (start_s, series_no, measure), counts in hours.items():
        day = _counts(days, (start_s // DAY_S * DAY_S, series_no, measure))
        day[:] = map(int.__add__, day, counts)
    for table, cells in ((LATENCY_HOUR, hours), (LATENCY_DAY, days)):
        statements.count(table, [(*place, *counts) for place, counts in sorted(cells.items())])


def _counts(cells: Counts, place: tuple[int, int, int]) -> list[int]:
    if place not in cells:
        cells[place] = [0] * STEPS
    return cells[place]
