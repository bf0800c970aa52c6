"""How long calls took, as the API answers it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec
from msgspec import UNSET

from taximeter.control.answers.groups import GroupPart
from taximeter.core.times import shown
from taximeter.sinks.query import Basis, Filters, Latency, Spread, Timing


class LatencyPart(GroupPart, kw_only=True):
    """The calls of one group, or of one window, that ended well."""

    duration: Spread
    """From the request to the answer's end."""
    ttft: Spread
    """Until the first token, of streamed answers."""


class LatencyResponse(msgspec.Struct, kw_only=True):
    """`GET /usage/latency`."""

    from_: str | None = msgspec.field(name="from")
    to: str | None
    basis: Basis
    """`records`: exact, of every single call. `histogram`: of counts kept of every call, by steps of 41 %, of the hours
    that begin in the range. `unknown`: there are too many calls to read, and no counts are kept by this filter."""
    kept_from: str | None
    """With `histogram`: before this moment no counts were kept; null: they always were."""
    complete: bool = True
    lag_seconds: float = 0.0
    total: LatencyPart
    groups: list[LatencyPart]
    series: list[LatencyPart]


def response(filters: Filters, by: str, marks: Sequence[int], found: Latency) -> LatencyResponse:
    """What history found, as answered; `by`: what it was grouped by."""
    ends = dict(pairwise(marks))
    groups = []
    for each in found.groups:
        part = _part(each)
        setattr(part, by, each.key)
        groups.append(part)
    series = []
    for each in found.windows if len(marks) > 2 else ():
        part = _part(each)
        if each.start_us is not None:
            part.start, part.end = shown(each.start_us) or UNSET, shown(ends[each.start_us]) or UNSET
        series.append(part)
    return LatencyResponse(
        from_=shown(filters.from_us),
        to=shown(filters.to_us),
        basis=found.basis,
        kept_from=shown(found.since_us or None),
        total=_part(found.total),
        groups=groups,
        series=series,
    )


def _part(timing: Timing) -> LatencyPart:
    return LatencyPart(duration=timing.duration, ttft=timing.ttft)
