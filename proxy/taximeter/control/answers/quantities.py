"""What few calls use, as the API answers it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taximeter.control.answers.groups import GroupPart
from taximeter.core.quantities import UNITS
from taximeter.core.times import shown
from taximeter.sinks.query import Filters, QuantitySum


class QuantityPart(GroupPart, kw_only=True):
    """How much of a kind one group used."""

    kind: str
    """As the member of a record is called; durations in milliseconds: `audio_ms`, `video_ms`."""
    variant: str | None
    """Size and quality of images and video; null: not told, or of another kind."""
    unit: str
    amount: int


class QuantitiesResponse(msgspec.Struct, kw_only=True):
    """`GET /usage/quantities`."""

    from_: str | None = msgspec.field(name="from")
    to: str | None
    complete: bool = True
    lag_seconds: float = 0.0
    quantities: list[QuantityPart]
    """Of the hours (UTC) that begin in the range; kinds of which nothing was used are left out."""


def response(filters: Filters, found: Sequence[QuantitySum]) -> QuantitiesResponse:
    """What history found, as answered."""
    parts = []
    for each in found:
        unit = UNITS.get(each.kind, "")
        part = QuantityPart(kind=each.kind, variant=each.variant, unit=unit, amount=each.amount)
        for name, value in each.key.items():
            setattr(part, name, value)
        parts.append(part)
    return QuantitiesResponse(from_=shown(filters.from_us), to=shown(filters.to_us), quantities=parts)
