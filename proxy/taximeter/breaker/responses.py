"""How a trip is shown. Pure; the CLI uses it too."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from taximeter.breaker.rule import Trip, Unit, why
from taximeter.core.times import shown
from taximeter.core.views import usd


class TripInfo(msgspec.Struct, kw_only=True):
    """A breaker that tripped; amounts a minute, in its own unit."""

    id: str
    breaker: str
    workspace: str
    key_id: str | None
    track: str | None
    """Neither key nor track: the whole workspace."""
    unit: Unit
    rate: Decimal
    """What was used when it tripped."""
    usual: Decimal | None
    """null: too new to have a usual."""
    limit: Decimal
    """From so much on it tripped."""
    why: str
    tripped_at: str | None
    until: str | None
    """It lets calls pass again then."""
    armed_at: str | None
    """When it did, or was made to; null: calls are refused."""


class TripList(msgspec.Struct):
    data: list[TripInfo]


def info(trip: Trip) -> TripInfo:
    """A trip as listed."""

    def amount(value: int) -> Decimal:
        return usd(value) if trip.unit == "usd" else Decimal(value)

    return TripInfo(
        id=trip.id,
        breaker=trip.breaker,
        workspace=trip.workspace,
        key_id=trip.key_id or None,
        track=trip.track or None,
        unit=trip.unit,
        rate=amount(trip.rate),
        usual=None if trip.usual is None else amount(trip.usual),
        limit=amount(trip.limit),
        why=why(trip),
        tripped_at=shown(trip.created_at),
        until=shown(trip.until),
        armed_at=shown(trip.ended_at or None),
    )
