"""A track's calls beside each other in time, as a chart. Pure but for the drawing."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from markupsafe import Markup

from taximeter.control.dashboard import charts
from taximeter.core import views
from taximeter.core.figures import count, milliseconds, money
from taximeter.core.record import Operation, Record

MOST_CALLS = 200
"""More lines than that nobody tells apart."""
US = 1_000_000


def timeline(records: Sequence[Record]) -> tuple[Markup, list[tuple[str, int]]]:
    """A line from start to end of each call, by operation; and the legend: (name, colour)."""
    calls = [record for record in records if record.kind == "usage"]
    start_us = min((record.started_at for record in calls), default=0)
    used = [operation for operation in Operation if any(record.operation is operation for record in calls)]
    series = [
        charts.Series(
            operation.value,
            tuple(_mark(record, start_us) for record in calls if record.operation is operation),
            list(Operation).index(operation),
        )
        for operation in used
    ]
    drawn = charts.spans(series, "Calls in time", lambda seconds: f"{seconds:g} s")
    return drawn, [(each.name, each.colour) for each in series]


def _mark(record: Record, start_us: int) -> charts.Mark:
    cost = None if record.cost_nusd is None else views.usd(record.cost_nusd)
    told = (
        f"{record.model}, {milliseconds((record.ended_at - record.started_at) / 1_000)}, "
        f"{count(record.input_tokens)} → {count(record.output_tokens)} tokens, {money(cost)}, {record.outcome}"
    )
    return charts.Mark(
        (record.started_at - start_us) / US,
        f"/dashboard/requests/{quote(record.request_id, safe='')}",
        told,
        (record.ended_at - start_us) / US,
    )
