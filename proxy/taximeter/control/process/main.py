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
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop
from msgspec.structs import replace

from taximeter.alerts.conditions import budget
from taximeter.billing.service import Billing
from taximeter.breaker.pace import Paces
from taximeter.budgets.rates import places_of_calls
from taximeter.budgets.reservations import Reservations
from taximeter.budgets.service import BudgetService
from taximeter.budgets.slice_files import DeadSlices
from taximeter.budgets.store import BudgetStore
from taximeter.budgets.tally import Tally
from taximeter.budgets.thresholds import ThresholdReached
from taximeter.budgets.watching import Watching
from taximeter.config import LimitSettings, Settings
from taximeter.control.app import create
from taximeter.control.dashboard import warm
from taximeter.control.door.forms import Forms
from taximeter.control.door.sessions import Sessions
from taximeter.control.door.shares import Shares
from taximeter.control.door.trust import warning
from taximeter.control.process import watching
from taximeter.control.process.inforce import InForce
from taximeter.control.process.priority import freeze, give_way, thaw
from taximeter.control.process.state import ASKING_BUDGETS, State
from taximeter.control.process.sync import exchange
from taximeter.control.process.upkeep import RETRY_S, Missing, every, retention_start_us
from taximeter.control.services.audit import AuditTrail
from taximeter.control.services.corrections import WORKER, Corrections, prices_now
from taximeter.control.services.exporting import Exporter
from taximeter.control.services.live import Live
from taximeter.control.services.owed import OwedLedger
from taximeter.control.services.services import Services
from taximeter.core.errors import TaximeterError
from taximeter.core.hosts import Hosts
from taximeter.core.record import Record
from taximeter.delivery import Delivery
from taximeter.evidence.statements import told_of
from taximeter.journal import Journal, gone
from taximeter.node.audit import AuditLog
from taximeter.node.child import LEAVE, REFUSED, TAKE, TAKEN, Boot, Child
from taximeter.pricebook import Beforehand
from taximeter.reconcile.service import ReconcileService
from taximeter.server.asgi import asgi
from taximeter.server.server import Server
from taximeter.sinks.history.database import HistoryUnavailable
from taximeter.sinks.history.sink import History, default_url
from taximeter.sinks.prometheus.cells import Metrics
from taximeter.sinks.prometheus.families import Exposition
from taximeter.sinks.redis.client import ERRORS
from taximeter.sinks.redis.counters import Counters
from taximeter.sinks.redis.nodes import leave_nodes
from taximeter.sinks.redis.split import split
from taximeter.sinks.sink import Sink
from taximeter.sinks.webhook import letters

if TYPE_CHECKING:
    from taximeter.collecting.collector import Collector

log = logging.getLogger("taximeter.control")

REGISTER_S, AUDIT_S, PRUNE_S, KEYS_S, SWEEP_S, TAGS_S = 30.0, 60.0, 3_600.0, 2.0, 30.0, 10.0
ALERTS_S = 5.0
"""How often it is looked for what is worth an alert."""
OWED_S = 1.0
"""How often it is looked for what calls used that are billed later."""
RECONCILE_S = 30.0
"""How often it is looked whether a comparison with a provider is due."""
EVIDENCE_S = 60.0
"""How often what is kept of the journals' chains is put in order, and looked whether the day is over."""
COLLECT_S = 5.0
"""How often it is looked for what is to be fetched of them, where an upstream says `collect`."""
LOOK_S = 1.0
"""How often it is looked at how fast is spent."""
SECURE_S, COUNTED_S = 0.5, 5.0
"""How often it is seen that Redis still knows of budgets; how long that waits for records on their way there."""
NOT_OPEN = "the history has not answered since the start, and is needed to know where to go on"
"""Why no sink gets anything then."""
REMIND_S = 60.0
"""How often the log says again what does not answer."""
TOLD_DAYS = 800
"""So long it is remembered that a threshold was told of: longer than any period but `total`."""
WARM_S = 2.0
"""After the start, when what has to be ready at once is."""
DRAIN_S = 10.0
"""How long the end waits for the last records to reach the sinks; the next start delivers what is left."""
ORPHAN_S = 30
"""How long the end may take where the supervisor is gone; what is not delivered by then, the next start delivers."""
REQUESTS_S = 5.0
"""How long queries and downloads may go on after a stop."""


def main() -> None:
    """Deliver and answer until SIGTERM, or until the supervisor is gone."""
    child = Child("control")
    give_way()
    boot = child.wait()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(Control(boot, child).run())
    except TaximeterError as error:
        log.critical("Error: %s", error)
        sys.exit(1)


class Control:
    """Everything the process holds. Raises TaximeterError where the settings or the data directory cannot be used."""

    def __init__(self, boot: Boot, child: Child) -> None:
        self.child = child
        settings = boot.settings
        data_dir = Path(settings.data_dir)
        self.history = History(settings.history.url or default_url(str(data_dir)), boot.node)
        self.audit = AuditLog(data_dir, node=boot.node)
        self.trail = AuditTrail(self.audit, self.history)
        self.force = self._made(boot, os.environ)
        budgets = BudgetStore(data_dir, audit=self.audit)
        self.counters = Counters(
            boot.redis_url,
            history=self.history,
            tallies=self._tallies,
            calls_of=lambda record: places_of_calls(record.workspace, self.force.rates.of(record)),
            split=lambda: self.settings.redis.split,
        )
        self.live = Live(self.history.cursors)
        self.metrics = Metrics(self.history.cursors)
        self.breakers = watching.breakers(lambda: self.force, self.history, self.counters.server, self.audit)
        self.paces = Paces([each.pace for each in self.breakers.breakers], start=self.history.cursors)
        sinks: list[Sink] = [self.history, self.counters, self.metrics, self.live, *self.force.sinks.values()]
        self.sinks = [*sinks, self.paces] if self.breakers.breakers else sinks
        gone.declare_former(data_dir / "journal", boot.node)
        self.delivery = Delivery(
            data_dir / "journal",
            self.sinks,
            settings=settings.journal,
            node=boot.node,
            now_us=_now_us,
            price=self._cost,
        )
        self.corrections = Corrections(
            self.history,
            self.delivery,
            prices=lambda: prices_now(self.settings),
            journal=self._journal,
        )
        self.owed = OwedLedger(
            self.history, self.corrections, Current(self), journals=data_dir / "journal", audit=self.audit
        )
        self.billing = Billing(self.history, self.delivery, now_us=_now_us)
        self.collector = self._collector(boot, os.environ)
        reservations = Reservations(self.counters.server)
        self.slices = DeadSlices(data_dir, reservations.release, self._drained)
        self.budgets = BudgetService(
            budgets,
            reservations,
            self.history,
            rebuild=self.counters.rebuild,
            counted=lambda: self.delivery.health().sinks[self.counters.name].lag_records == 0,
            drained=self._drained,
            now_us=_now_us,
            capped=lambda: self.settings.budget.by_header,
        )
        self.watching = Watching(
            budgets,
            Reservations(self.counters.server),
            self.history,
            touched=self.counters.positions.take_touched,
            thresholds=lambda: self.settings.budget.thresholds,
            tell=self._tell,
            now_us=_now_us,
        )
        self.reconcile = ReconcileService(self.force.pullers, self.history, node=boot.node, now_us=_now_us)
        self.alerts = watching.alerts(
            lambda: self.force, self.history, self.counters.server, self.breakers, self.delivery, self.reconcile
        )
        self.state = State(boot, self.delivery)
        self.sessions, self.forms, self.shares = Sessions(), Forms(), Shares()
        self.services: Services | None = None
        self.services = self._services(self.force)
        self.server = Server(asgi(create(self.services)), _limits(settings))
        self.missing = Missing()
        self.sending: asyncio.Task[None] | None = None
        """What the webhook does beside taking records in."""

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self.force.settings

    async def run(self) -> None:
        """Serve until told to stop; then bring the last records to the sinks."""
        child, server = self.child, self.server
        if words := warning(self.settings):
            log.warning("%s", words)
        if not await self._open():
            self.delivery.hold(NOT_OPEN)

        def started() -> None:
            freeze()
            child.ready()

        server.on_started = started
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(act)
                    for act in (self.delivery.run(), self._begin(), self._remind(), _warm(), *self._upkeep())
                ]
                self._send(group)

                def stop() -> None:
                    tasks.append(group.create_task(self.live.close()))  # else its watchers would hold the server
                    server.stop()

                child.on_order(TAKE, lambda which: tasks.append(group.create_task(self._take(int(which), group))))
                child.on_order(LEAVE, lambda _: self._leave())
                child.on_stop(stop, orphan_s=ORPHAN_S)
                with child.socket() as listener:
                    await server.serve([listener])
                self.corrections.close()
                if not child.orphaned:
                    await self._drain()
                for task in (*tasks, self.sending):
                    if task is not None:
                        task.cancel()
        finally:
            await self._close()

    async def _take(self, which: int, group: asyncio.TaskGroup) -> None:
        """Go by other settings from now on; where they cannot be used, nothing has changed."""
        child, before = self.child, self.force
        try:
            boot = child.boot(which)
            environ = child.environ(boot)
            force = await asyncio.to_thread(self._made, boot, environ)
            collector = self._collector(boot, environ)
        except Exception as error:  # whatever is wrong with them, the ones of before go on
            log.error("These settings cannot be used: %s", error, exc_info=not isinstance(error, TaximeterError))
            child.answer(REFUSED, str(error) or type(error).__name__)
            return
        come, gone = force.go_on_with(before)
        former, self.collector = self.collector, collector
        if former is not None:
            await former.close()
        self.breakers.use(force.settings.breaker)
        self.reconcile.use(force.pullers)
        self.paces.measure([each.pace for each in self.breakers.breakers])
        if bool(self.breakers.breakers) != (self.paces in self.sinks):
            (come if self.breakers.breakers else gone).append(self.paces)
        self.force, self.state.boot = force, boot
        await self.alerts.use(force.settings.alert, force.mail, force.post)
        child.use(boot)
        self.services = self._services(force)
        self.server.service.handler = asgi(create(self.services))
        self.server.service.limits = _limits(force.settings)
        self.delivery.keep(force.settings.journal.keep_s)
        for sink in come:
            self.sinks.append(sink)
            self.delivery.add(sink)
        for sink in gone:
            self.sinks.remove(sink)
            self.delivery.remove(sink.name)
        self._send(group)
        child.answer(TAKEN)
        for sink in gone:
            await sink.close()
        thaw()
        freeze()

    def _send(self, group: asyncio.TaskGroup) -> None:
        """Send the webhook's letters, as long as there is one."""
        webhook = self.force.webhook
        if webhook is None and self.sending is not None:
            self.sending.cancel()
            self.sending = None
        elif webhook is not None and self.sending is None:
            self.sending = group.create_task(webhook.run())

    def _leave(self) -> None:
        self.state.leaving = True
        self.server.leave()

    def _made(self, boot: Boot, environ: Mapping[str, str]) -> InForce:
        return InForce(boot, environ, history=self.history, audit=self.audit, now_us=_now_us)

    def _collector(self, boot: Boot, environ: Mapping[str, str]) -> Collector | None:
        if not any(each.collect for each in boot.settings.upstream):
            return None
        from taximeter.collecting.collector import collector_of  # and the gateway's code with it

        return collector_of(boot.settings, environ, boot.node, self.history, self.corrections.note)

    async def _collect(self) -> None:
        if self.collector is not None:
            await self.collector.look()

    def _cost(self, record: Record) -> tuple[int | None, str | None]:
        return self.force.prices.cost(record)

    def _tallies(self, workspace: str) -> frozenset[Tally]:
        return self.budgets.tallies(workspace)

    def _journal(self) -> Journal:
        directory, node = Path(self.settings.data_dir) / "journal", self.force.boot.node
        return Journal(directory, node=node, worker=WORKER, settings=self.settings.journal, now_us=_now_us)

    async def _tell(self, reached: ThresholdReached) -> None:
        """Word of a budget's threshold to whom alerts tell, and to a webhook that takes events."""
        await self.alerts.happened(budget(reached))
        webhook = self.force.webhook
        if webhook is not None and self.settings.webhook.format == "cloudevents":
            body = letters.threshold_body(reached, self.force.boot.node)
            await webhook.post_event(reached.key, reached.allowance.budget.workspace, body)

    async def _drained(self, sink: str) -> bool:
        """Wait, bounded, until a sink has what is in this node's journals now."""
        return (await self.delivery.drain(COUNTED_S, (sink,))).complete

    async def _close_track(self, workspace: str, track: str) -> bool:
        webhook = self.force.webhook
        if webhook is None:
            return False
        await self.delivery.drain(DRAIN_S, ("webhook",))
        return await webhook.cut(workspace, track)

    def _services(self, force: InForce) -> Services:
        webhook, prices = force.webhook, force.prices
        exposition = Exposition(
            self.metrics,
            health=self.delivery.health,
            redis_drift=lambda: self.counters.auditor.drift,
            budget_spent_ratio=lambda: self.watching.ratios,
            budget_thresholds=lambda: self.watching.reached,
            alerts=self.alerts.standing,
            breakers=lambda: (self.breakers.open(), self.breakers.tripped),
            reconcile=self.reconcile.measured,
            letters=None if webhook is None else lambda: (webhook.waiting, webhook.dead),
            owed=self.owed.figures,
        )
        return Services(
            settings=force.settings,
            hosts=Hosts(force.settings.control.allowed_hosts),
            history=self.history,
            delivery=self.delivery,
            keys=force.keys,
            live=self.live,
            node=self.state,
            metrics=exposition.render,
            prices=lambda: list(prices.lists.cards()),
            card=Beforehand(prices).card,
            card_of=prices.apart().find,
            delivering=self.delivery.health,
            close_track=None if webhook is None else self._close_track,
            budgets=self.budgets,
            breakers=self.breakers,
            alerts=self.alerts,
            billing=self.billing,
            reconcile=self.reconcile,
            corrections=self.corrections,
            owed=self.owed,
            rebuild=self.counters.rebuild,
            letters=webhook,
            deadletters=self.delivery,
            audit=self.audit,
            trail=self.trail,
            evidence=self.history,
            sessions=self.sessions,
            forms=self.forms,
            shares=self.shares,
            former=None if self.services is None else self.services.door,
        )

    async def _open(self) -> bool:
        """Refuse a history of a newer Taximeter, and a Redis where a node with another history counts (ConfigError).

        Neither has to be there yet: calls are relayed and written down. False: it is not known which history it is.
        """
        try:
            await self.history.prepare()
            await self._register()
        except HistoryUnavailable as error:
            self.missing.tell("The history does not answer", error)
            return False
        except ERRORS as error:
            log.error("Redis does not answer. Calls are relayed, and kept in the journal until it does: %s", error)
        return True

    async def _begin(self) -> None:
        """Deliver as soon as the history has been open once: Redis must not be counted in for an unknown one."""
        while self.delivery.held:
            await asyncio.sleep(RETRY_S)
            with contextlib.suppress(HistoryUnavailable):  # it is gone again
                if await self._open():
                    await self.delivery.release()
        self.missing.found()

    async def _remind(self) -> None:
        while True:
            await asyncio.sleep(REMIND_S)
            self.missing.remind(self.delivery.health().sinks)

    async def _register(self) -> None:
        await self.counters.rebuilder.register(self.force.boot.node, await self.history.identity())

    def _exporter(self, notes: dict[str, str]) -> Exporter:
        return Exporter(
            lambda: self.force.settings.export,
            self.history.reader,
            lambda: self.force.prices.apart().find,
            notes,
            environ=lambda: self.force.environ,
        )

    def _upkeep(self) -> list[Coroutine[Any, Any, None]]:
        async def prune() -> None:
            before_us = retention_start_us(self.settings.history.retention_days)
            await self.history.prune(before_us)
            await self.owed.write_off(self.settings.history.owed_days)
            await self.owed.forget(before_us, self.settings.history.owed_days)
            await self.history.prune_told(retention_start_us(TOLD_DAYS))
            await self.history.prune_audit(retention_start_us(self.settings.history.audit_days))
            if self.force.webhook is not None:
                await self.force.webhook.prune(before_us)

        async def keep_evidence() -> None:
            await self.history.gather_evidence()
            self.force.signers()  # a key that cannot be read is told now, not when the day is over
            made = await self.history.seal_evidence_daily(_now_us(), self.force.signers)
            if made is not None:
                log.info("%s", told_of(made))

        async def share_keys() -> None:
            if self.settings.redis.url:  # an embedded one has no other nodes
                await exchange(self.counters.server, self.force.keys, self.force.sealing)
                await exchange(self.counters.server, self.budgets.store, self.force.sealing)
                await exchange(self.counters.server, self.breakers.store, self.force.sealing)

        async def watch_budgets() -> None:
            await self.budgets.count_apart()
            await split(self.counters)
            await self.watching.look()

        notes = self.state.notes
        return [
            every(REGISTER_S, "registering this node in Redis", self._register, notes),
            every(AUDIT_S, "auditing Redis against history", self.counters.auditor.audit, notes),
            every(TAGS_S, "summing by track, document and end user", self.history.roll_up_tags, notes),
            every(PRUNE_S, "forgetting old records", prune, notes),
            every(EVIDENCE_S, "keeping evidence", keep_evidence, notes),
            every(KEYS_S, "bringing the audit log into the history", self.trail.file, notes),
            every(KEYS_S, "exchanging proxy keys and budgets with other nodes", share_keys, notes),
            every(KEYS_S, "watching budgets", watch_budgets, notes),
            every(OWED_S, "settling calls that are billed later", self.owed.settle, notes),
            every(COLLECT_S, "fetching what is billed later", self._collect, notes),
            self.alerts.run(),
            self._exporter(notes).run(),
            every(ALERTS_S, "looking for what is worth an alert", self.alerts.look, notes),
            every(RECONCILE_S, "comparing with providers", self.reconcile.look, notes),
            every(LOOK_S, "watching how fast is spent", self.breakers.look, notes),
            every(SECURE_S, ASKING_BUDGETS, self.budgets.secure, notes),
            every(SECURE_S, "letting go slices of dead workers", self.slices.look, notes),
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
            await leave_nodes(self.counters.server, self.force.boot.node)
        if self.collector is not None:
            await self.collector.close()
        for sink in self.sinks:
            with contextlib.suppress(TaximeterError, *ERRORS):
                await sink.close()
        await self.alerts.close()


class Current:
    """The prices in force, which a reload may change."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def cost(self, record: Record) -> tuple[int | None, str | None]:
        """See PriceBook.cost."""
        return self._control.force.prices.cost(record)

    def why(self, record: Record) -> str | None:
        """See PriceBook.why."""
        return self._control.force.prices.why(record)


async def _warm() -> None:
    """What the first look at the dashboard would have to wait for; what goes wrong here is the page's to tell."""
    await asyncio.sleep(WARM_S)
    with contextlib.suppress(Exception):
        await asyncio.to_thread(warm)


def _limits(settings: Settings) -> LimitSettings:
    return replace(settings.limits, shutdown_s=REQUESTS_S)


def _now_us() -> int:
    return time.time_ns() // 1_000


if __name__ == "__main__":
    main()
