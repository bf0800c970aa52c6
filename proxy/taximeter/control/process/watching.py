"""What watches spending and tells of it, put together: runaway breakers and alerts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from taximeter.alerts.book import Book
from taximeter.alerts.conditions import Sources
from taximeter.alerts.service import AlertService
from taximeter.breaker.events import trip_event
from taximeter.breaker.rule import Trip
from taximeter.breaker.service import BreakerService
from taximeter.breaker.store import TripStore
from taximeter.control.process.sync import exchange

if TYPE_CHECKING:
    from taximeter.control.process.inforce import InForce
    from taximeter.delivery import Delivery
    from taximeter.node.audit import AuditLog
    from taximeter.reconcile.service import ReconcileService
    from taximeter.sinks.history.sink import History
    from taximeter.sinks.redis.client import RedisServer

Force = Callable[[], "InForce"]
"""What follows from the settings now: they may be replaced at any time."""


def breakers(
    force: Force, history: History, server: RedisServer, audit: AuditLog, turn: Callable[[], bool]
) -> BreakerService:
    """The breakers of this node; where none are configured, what was stopped is known all the same."""
    settings = force().settings
    store = TripStore(Path(settings.data_dir), audit=audit)

    async def share() -> None:
        if settings.redis.url:
            await exchange(server, store, force().sealing)

    async def tell(trip: Trip) -> None:
        """To a webhook that takes events."""
        now = force()
        if now.webhook is not None and now.settings.webhook.format == "cloudevents":
            key = f"{trip.id}:{trip.created_at}:{'armed' if trip.ended_at else 'tripped'}"
            await now.webhook.post_event(key, trip.workspace, trip_event(trip, key, now.boot.node, _now_us()))

    return BreakerService(
        settings.breaker,
        store,
        history,
        server=_shared(force, server),
        node=force().boot.node,
        share=share,
        tell=tell,
        now_us=_now_us,
        turn=turn,
    )


def alerts(
    force: Force,
    history: History,
    server: RedisServer,
    breakers: BreakerService,
    delivery: Delivery,
    reconcile: ReconcileService,
) -> AlertService:
    """The alerts of this node; none may be configured."""

    def dead_letters() -> int:
        webhook = force().webhook
        return 0 if webhook is None else webhook.dead

    now = force()
    sources = Sources(
        node=now.boot.node,
        trips=breakers.store.open,
        history=history,
        health=delivery.health,
        dead_letters=dead_letters,
        standings=lambda: reconcile.standings,
        now_us=_now_us,
    )
    return AlertService(
        now.settings.alert,
        Book(Path(now.settings.data_dir)),
        sources,
        node=now.boot.node,
        mail=now.mail,
        post=now.post,
        server=_shared(force, server),
        now_us=_now_us,
    )


def _shared(force: Force, server: RedisServer) -> RedisServer | None:
    """The Redis that several nodes may share; an embedded one has no other nodes."""
    return server if force().settings.redis.url else None


def _now_us() -> int:
    return time.time_ns() // 1_000
