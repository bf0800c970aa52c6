"""A breaker that tripped, or is armed again, as a CloudEvent for the billing webhook. Pure."""

from __future__ import annotations

from taximeter.breaker.rule import Trip, why
from taximeter.core.times import shown
from taximeter.sinks.webhook.letters import event


def trip_event(trip: Trip, id: str, node: str, at_us: int) -> str:
    """`taximeter.breaker.tripped` or `.armed`; amounts a minute, in nano-USD or tokens."""
    told = {name: getattr(trip, name) for name in ("breaker", "workspace", "key_id", "track", "unit", "rate", "usual")}
    return event(
        id=id,
        kind=f"taximeter.breaker.{'armed' if trip.ended_at else 'tripped'}",
        node=node,
        subject=trip.workspace,
        at_us=at_us,
        data={**told, "id": trip.id, "limit": trip.limit, "until": shown(trip.until), "why": why(trip)},
    )
