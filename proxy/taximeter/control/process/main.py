"""The control process: delivery to every sink, and the control plane on the inherited control port.

`python -m taximeter.control.process.main`, by the supervisor. It may die and come back without a request noticing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop
from msgspec.structs import replace

from taximeter.breaker.events import trip_event
from taximeter.breaker.pace import Paces
from taximeter.breaker.rule import Trip
from taximeter.breaker.service import BreakerService
from taximeter.breaker.store import TripStore
from taximeter.budgets.rates import Rates, places_of_calls
from taximeter.budgets.reservations import Reservations, Spent
from taximeter.budgets.rule import Budget
from taximeter.budgets.service import BudgetService
from taximeter.budgets.store import BudgetStore
from taximeter.config.secret import shared_secrets
from taximeter.control.app import create
from taximeter.control.dashboard import warm
from taximeter.control.door.trust import warning
from taximeter.control.process.priority import freeze, give_way
from taximeter.control.process.state import ASKING_BUDGETS, State
from taximeter.control.process.sync import Sealing, exchange
from taximeter.control.process.upkeep import RETRY_S, every, retention_start_us
from taximeter.control.services.audit import AuditTrail
from taximeter.control.services.corrections import WORKER, Corrections, prices_now
from taximeter.control.services.live import Live
from taximeter.control.services.services import Services
from taximeter.core.errors import TaximeterError
from taximeter.core.hosts import Hosts
from taximeter.core.sealed import Seal
from taximeter.delivery import Delivery
from taximeter.journal import Journal
from taximeter.keys.store import KeyStore
from taximeter.node.audit import AuditLog
from taximeter.node.child import Boot, Child
from taximeter.pricebook import Beforehand, PriceBook
from taximeter.server.asgi import asgi
from taximeter.server.server import Server
from taximeter.sinks.calls.sink import Calls
from taximeter.sinks.history.database import HistoryUnavailable
from taximeter.sinks.history.sink import History, default_url
from taximeter.sinks.otel import Otel
from taximeter.sinks.prometheus.cells import Metrics
from taximeter.sinks.prometheus.families import Exposition
from taximeter.sinks.redis.client import ERRORS
from taximeter.sinks.redis.counters import Counters
from taximeter.sinks.redis.nodes import leave_nodes
from taximeter.sinks.sink import Sink
from taximeter.sinks.webhook import letters

if TYPE_CHECKING:
    from taximeter.sinks.webhook.sink import Webhook

log = logging.getLogger("taximeter.control")

REGISTER_S, AUDIT_S, PRUNE_S, KEYS_S, SWEEP_S, TAGS_S = 30.0, 60.0, 3_600.0, 2.0, 30.0, 10.0
LOOK_S = 1.0
"""How often it is looked at how fast is spent."""
SECURE_S, COUNTED_S = 0.5, 5.0
"""How often it is seen that Redis still knows of budgets; how long that waits for records on their way there."""
WARM_S = 2.0
"""After the start, when what has to be ready at once is."""
DRAIN_S = 10.0
"""How long the end waits for the last records to reach the sinks; the next start delivers what is left."""
REQUESTS_S = 5.0
"""How long queries and downloads may go on after a stop."""


def main() -> None:
    """Deliver and answer until SIGTERM, or until the supervisor is gone."""
    child = Child("control")
    give_way()
    boot = child.wait()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(Control(boot).run(child))
    except TaximeterError as error:
        log.critical("Error: %s", error)
        sys.exit(1)


class Control:
    """Everything the process holds. Raises TaximeterError where the settings or the data directory cannot be used."""

    def __init__(self, boot: Boot) -> None:
        self.boot = boot
        settings = self.settings = boot.settings
        data_dir = Path(settings.data_dir)
        secrets = shared_secrets(settings.auth, os.environ)
        self.sealing = Sealing(Seal(secrets) if secrets else None)
        self.history = History(settings.history.url or default_url(str(data_dir)))
        self.audit = AuditLog(data_dir, node=boot.node)
        self.trail = AuditTrail(self.audit, self.history)
        budgets = BudgetStore(data_dir, audit=self.audit)
        rates = Rates(settings.rate)
        self.counters = Counters(
            boot.redis_url,
            history=self.history,
            scopes=lambda name: budgets.in_force().scopes(name),
            calls_of=lambda record: places_of_calls(record.workspace, rates.of(record)),
        )
        self.prices = PriceBook.load(Path(boot.prices_file))
        self.live = Live(self.history.cursors)
        self.metrics = Metrics(self.history.cursors)
        self.sinks: list[Sink] = [self.history, self.counters, self.metrics, self.live]
        if settings.otel.endpoint:
            self.sinks.append(Otel(settings.otel, node=boot.node, start=self.history.cursors))
        if settings.log.calls:
            self.sinks.append(Calls(self.history.cursors))
        self.breakers = self._breakers()
        if self.breakers.breakers:
            self.sinks.append(Paces([each.pace for each in self.breakers.breakers], start=self.history.cursors))
        self.webhook = self._webhook()
        if self.webhook is not None:
            self.sinks.append(self.webhook)
        self.delivery = Delivery(
            data_dir / "journal",
            self.sinks,
            settings=settings.journal,
            node=boot.node,
            now_us=_now_us,
            price=self.prices.cost,
        )
        self.corrections = Corrections(
            self.history, self.delivery, prices=lambda: prices_now(settings), journal=self._journal
        )
        self.budgets = BudgetService(
            budgets,
            Reservations(self.counters.server),
            self.history,
            rebuild=self.counters.rebuild,
            counted=lambda: self.delivery.health().sinks[self.counters.name].lag_records == 0,
            drained=self._drained,
            tell=self._tell if self.webhook is not None and settings.webhook.format == "cloudevents" else None,
            now_us=_now_us,
        )
        self.state = State(boot, self.delivery)
        self.keys = KeyStore(data_dir, settings.auth, audit=self.audit)

    async def run(self, child: Child) -> None:
        """Serve until told to stop; then bring the last records to the sinks."""
        if words := warning(self.settings):
            log.warning("%s", words)
        opened = await self._open()
        server = Server(asgi(create(self._services())), replace(self.settings.limits, shutdown_s=REQUESTS_S))

        def started() -> None:
            freeze()
            child.ready()

        server.on_started = started
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(act) for act in (self._deliver(opened), _warm(), *self._upkeep())]

                def stop() -> None:
                    tasks.append(group.create_task(self.live.close()))  # else its watchers would hold the server
                    server.stop()

                child.on_stop(stop)
                with child.socket() as listener:
                    await server.serve([listener])
                self.corrections.close()
                if not child.orphaned:
                    await self._drain()
                for task in tasks:
                    task.cancel()
        finally:
            await self._close()

    def _journal(self) -> Journal:
        directory = Path(self.settings.data_dir) / "journal"
        return Journal(directory, node=self.boot.node, worker=WORKER, settings=self.settings.journal, now_us=_now_us)

    def _webhook(self) -> Webhook | None:
        settings = self.settings.webhook
        if not settings.url:
            return None
        from taximeter.sinks.webhook.sink import Webhook

        return Webhook(
            settings,
            self.history,
            node=self.boot.node,
            token=os.environ.get(settings.token_env, ""),
            secret=os.environ.get(settings.secret_env, ""),
            now_us=_now_us,
        )

    def _breakers(self) -> BreakerService:
        shared = bool(self.settings.redis.url)  # an embedded one has no other nodes
        return BreakerService(
            self.settings.breaker,
            TripStore(Path(self.settings.data_dir), audit=self.audit),
            self.history,
            server=self.counters.server if shared else None,
            node=self.boot.node,
            share=self._share_trips,
            tell=self._tell_trip,
            now_us=_now_us,
        )

    async def _share_trips(self) -> None:
        if self.settings.redis.url:
            await exchange(self.counters.server, self.breakers.store, self.sealing)

    async def _tell_trip(self, trip: Trip) -> None:
        """Word of a breaker that tripped, or is armed again, to a webhook that takes events."""
        if self.webhook is not None and self.settings.webhook.format == "cloudevents":
            key = f"{trip.id}:{trip.created_at}:{'armed' if trip.ended_at else 'tripped'}"
            body = trip_event(trip, key, self.boot.node, _now_us())
            await self.webhook.post_event(key, trip.workspace, body)

    async def _tell(self, budget: Budget, spent: Spent, period: str) -> None:
        """Word of a spent soft budget, once a period, to a webhook that takes events."""
        if self.webhook is not None:
            body = letters.budget_body(budget, spent.spent, period, self.boot.node, _now_us())
            await self.webhook.post_event(f"{budget.id}:{period}", budget.workspace, body)

    async def _drained(self, sink: str) -> bool:
        """Wait, bounded, until a sink has what is in this node's journals now."""
        return (await self.delivery.drain(COUNTED_S, (sink,))).complete

    async def _close_track(self, workspace: str, track: str) -> bool:
        if self.webhook is None:
            return False
        await self.delivery.drain(DRAIN_S, ("webhook",))
        return await self.webhook.cut(workspace, track)

    def _services(self) -> Services:
        webhook = self.webhook
        exposition = Exposition(
            self.metrics,
            health=self.delivery.health,
            redis_drift=lambda: self.counters.auditor.drift,
            budget_spent_ratio=lambda: self.budgets.ratios,
            breakers=lambda: (self.breakers.open(), self.breakers.tripped),
            letters=None if webhook is None else lambda: (webhook.waiting, webhook.dead),
        )
        return Services(
            settings=self.settings,
            hosts=Hosts(self.settings.control.allowed_hosts),
            history=self.history,
            delivery=self.delivery,
            keys=self.keys,
            live=self.live,
            node=self.state,
            metrics=exposition.render,
            prices=lambda: list(self.prices.lists.cards()),
            card=Beforehand(self.prices).card,
            delivering=self.delivery.health,
            close_track=None if webhook is None else self._close_track,
            budgets=self.budgets,
            breakers=self.breakers,
            corrections=self.corrections,
            rebuild=self.counters.rebuild,
            letters=webhook,
            deadletters=self.delivery,
            audit=self.audit,
            trail=self.trail,
        )

    async def _open(self) -> bool:
        """Refuse a history of a newer Taximeter, and a Redis where a node with another history counts (ConfigError).

        Neither has to be there yet: calls are relayed and written down. False: it is not known which history it is.
        """
        try:
            await self.history.prepare()
            await self._register()
        except HistoryUnavailable as error:
            log.warning("The history does not answer yet: %s", error)
            return False
        except ERRORS as error:
            log.warning("Redis does not answer yet: %s", error)
        return True

    async def _deliver(self, opened: bool) -> None:
        """Deliver as soon as the history has been open once: Redis must not be counted in for an unknown one."""
        while not opened:
            await asyncio.sleep(RETRY_S)
            opened = await self._open()
        await self.delivery.run()

    async def _register(self) -> None:
        await self.counters.rebuilder.register(self.boot.node, await self.history.identity())

    def _upkeep(self) -> list[Coroutine[Any, Any, None]]:
        async def prune() -> None:
            before_us = retention_start_us(self.settings.history.retention_days)
            await self.history.prune(before_us)
            await self.history.prune_audit(retention_start_us(self.settings.history.audit_days))
            if self.webhook is not None:
                await self.webhook.prune(before_us)

        async def share_keys() -> None:
            if self.settings.redis.url:  # an embedded one has no other nodes
                await exchange(self.counters.server, self.keys, self.sealing)
                await exchange(self.counters.server, self.budgets.store, self.sealing)
                await self._share_trips()

        async def watch_budgets() -> None:
            await self.budgets.count_apart()
            await self.budgets.look()

        notes = self.state.notes
        sending = [] if self.webhook is None else [self.webhook.run()]
        return [
            *sending,
            every(REGISTER_S, "registering this node in Redis", self._register, notes),
            every(AUDIT_S, "auditing Redis against history", self.counters.auditor.audit, notes),
            every(TAGS_S, "summing by track, document and end user", self.history.roll_up_tags, notes),
            every(PRUNE_S, "forgetting old records", prune, notes),
            every(KEYS_S, "bringing the audit log into the history", self.trail.file, notes),
            every(KEYS_S, "exchanging proxy keys and budgets with other nodes", share_keys, notes),
            every(KEYS_S, "watching budgets", watch_budgets, notes),
            every(LOOK_S, "watching how fast is spent", self.breakers.look, notes),
            every(SECURE_S, ASKING_BUDGETS, self.budgets.secure, notes),
            every(SWEEP_S, "letting go what ended calls hold of budgets", self.budgets.sweep, notes),
        ]

    async def _drain(self) -> None:
        """The workers have ended: what they wrote reaches the durable sinks, except one that fails already."""
        health = self.delivery.health().sinks
        wanted = [sink.name for sink in self.sinks if sink.durable and not health[sink.name].failing]
        drained = await self.delivery.drain(DRAIN_S, wanted)
        if not drained.complete:
            log.warning("the sinks are %.1f s behind; the next start delivers the rest", drained.lag_seconds)

    async def _close(self) -> None:
        with contextlib.suppress(TaximeterError, *ERRORS):
            await leave_nodes(self.counters.server, self.boot.node)
        for sink in self.sinks:
            with contextlib.suppress(TaximeterError, *ERRORS):
                await sink.close()


async def _warm() -> None:
    """What the first look at the dashboard would have to wait for; what goes wrong here is the page's to tell."""
    await asyncio.sleep(WARM_S)
    with contextlib.suppress(Exception):
        await asyncio.to_thread(warm)


def _now_us() -> int:
    return time.time_ns() // 1_000


if __name__ == "__main__":
    main()
