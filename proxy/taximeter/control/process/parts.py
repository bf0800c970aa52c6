"""What the control process holds beside its pages and its port, put together: delivery, sinks, and what watches them.

Whoever makes them runs them: `main` behind the control port. A process of another making gives it prices of its own.
"""

from __future__ import annotations

import time
from asyncio import Task, TaskGroup
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

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
from taximeter.config import Settings
from taximeter.control.process import watching
from taximeter.control.process.inforce import InForce, compiled_prices
from taximeter.control.process.state import State
from taximeter.control.process.upkeep import Missing
from taximeter.control.services.audit import AuditTrail
from taximeter.control.services.corrections import WORKER, Corrections, prices_now
from taximeter.control.services.live import Live
from taximeter.control.services.owed import OwedLedger
from taximeter.core.record import Record
from taximeter.delivery import Delivery
from taximeter.journal import Journal, gone
from taximeter.node.audit import AuditLog
from taximeter.node.child import Boot
from taximeter.pricebook import PriceBook
from taximeter.reconcile.service import ReconcileService
from taximeter.sinks.history.sink import History, default_url
from taximeter.sinks.prometheus.cells import Metrics
from taximeter.sinks.redis.counters import Counters
from taximeter.sinks.redis.keys import AUDITOR
from taximeter.sinks.redis.nodes import Turn
from taximeter.sinks.sink import Sink
from taximeter.sinks.webhook import letters

if TYPE_CHECKING:
    from taximeter.collecting.collector import Collector

COUNTED_S = 5.0
"""How long seeing that Redis knows of budgets waits for records on their way there."""
AUDITOR_S = 180.0
"""So long after it last compared counters with history a node is taken for gone, and another does."""
DRAIN_S = 10.0
"""How long the end waits for the last records to reach the sinks; the next start delivers what is left."""


class Parts:
    """Everything but the pages. Raises TaximeterError where the settings or the data directory cannot be used."""

    def __init__(
        self,
        boot: Boot,
        environ: Mapping[str, str],
        *,
        prices_of: Callable[[Boot], PriceBook] = compiled_prices,
        prices_again: Callable[[Settings], PriceBook] = prices_now,
    ) -> None:
        """`environ`: the variables that the settings name. `prices_of` gives the prices that go with settings;
        `prices_again` those of the moment in which a period is priced again."""
        settings = boot.settings
        data_dir = Path(settings.data_dir)
        self._prices_of = prices_of
        self.history = History(settings.history.url or default_url(str(data_dir)), boot.node)
        self.audit = AuditLog(data_dir, node=boot.node)
        self.trail = AuditTrail(self.audit, self.history)
        self.force = self.made(boot, environ)
        budgets = BudgetStore(data_dir, audit=self.audit)
        self.counters = Counters(
            boot.redis_url,
            history=self.history,
            tallies=self._tallies,
            calls_of=lambda record: places_of_calls(record.workspace, self.force.rates.of(record)),
            split=lambda: self.settings.redis.split,
        )
        self.live = Live(self.history.begun)
        self.metrics = Metrics(self.history.begun)
        turn = self.counters.rebuilder.fleet.turn
        self.auditing = Turn(self.counters.server, AUDITOR, boot.node, AUDITOR_S)
        self.breakers = watching.breakers(lambda: self.force, self.history, self.counters.server, self.audit, turn)
        self.paces = Paces([each.pace for each in self.breakers.breakers], start=self.history.begun)
        sinks: list[Sink] = [self.history, self.counters, self.metrics, self.live, *self.force.sinks.values()]
        self.sinks = [*sinks, self.paces] if self.breakers.breakers else sinks
        gone.declare_former(data_dir / "journal", boot.node)
        self.delivery = Delivery(
            data_dir / "journal",
            self.sinks,
            settings=settings.journal,
            node=boot.node,
            now_us=now_us,
            price=self._cost,
        )
        self.corrections = Corrections(
            self.history,
            self.delivery,
            prices=lambda: prices_again(self.settings),
            journal=self._journal,
        )
        self.owed = OwedLedger(
            self.history, self.corrections, Current(self), journals=data_dir / "journal", audit=self.audit
        )
        self.billing = Billing(self.history, self.delivery, now_us=now_us)
        self.collector = self.made_collector(boot, environ)
        reservations = Reservations(self.counters.server)
        self.slices = DeadSlices(data_dir, reservations.release, self._drained)
        self.budgets = BudgetService(
            budgets,
            reservations,
            self.history,
            rebuild=self.counters.rebuild,
            counted=lambda: self.delivery.health().sinks[self.counters.name].lag_records == 0,
            drained=self._drained,
            now_us=now_us,
            capped=lambda: self.settings.budget.by_header,
            turn=turn,
        )
        self.watching = Watching(
            budgets,
            Reservations(self.counters.server),
            self.history,
            touched=self.counters.positions.take_touched,
            thresholds=lambda: self.settings.budget.thresholds,
            tell=self._tell,
            now_us=now_us,
            turn=turn,
        )
        self.reconcile = ReconcileService(self.force.pullers, self.history, node=boot.node, now_us=now_us)
        self.alerts = watching.alerts(
            lambda: self.force, self.history, self.counters.server, self.breakers, self.delivery, self.reconcile
        )
        self.state = State(boot, self.delivery)
        self.missing = Missing()
        self.sending: Task[None] | None = None
        """What the webhook does beside taking records in."""

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self.force.settings

    # ── other settings ───────────────────────────────────────────────────────────────────────────────────────

    def made(self, boot: Boot, environ: Mapping[str, str]) -> InForce:
        """What follows from these settings; may block. Raises as InForce does, and then nothing has happened."""
        return InForce(boot, environ, self._prices_of(boot), history=self.history, audit=self.audit, now_us=now_us)

    def made_collector(self, boot: Boot, environ: Mapping[str, str]) -> Collector | None:
        """What fetches calls that are billed later; None: no upstream says `collect`."""
        if not any(each.collect for each in boot.settings.upstream):
            return None
        from taximeter.collecting.collector import collector_of  # and the gateway's code with it

        return collector_of(boot.settings, environ, boot.node, self.history, self.corrections.note)

    async def use(self, force: InForce, collector: Collector | None) -> tuple[list[Sink], list[Sink]]:
        """Go by these from now on. Returns the sinks that come and those that go, for `deliver_to`."""
        come, go = force.go_on_with(self.force)
        former, self.collector = self.collector, collector
        if former is not None:
            await former.close()
        self.breakers.use(force.settings.breaker)
        self.reconcile.use(force.pullers)
        self.paces.measure([each.pace for each in self.breakers.breakers])
        if bool(self.breakers.breakers) != (self.paces in self.sinks):
            (come if self.breakers.breakers else go).append(self.paces)
        self.force, self.state.boot = force, force.boot
        await self.alerts.use(force.settings.alert, force.mail, force.post)
        return come, go

    def deliver_to(self, come: list[Sink], go: list[Sink]) -> None:
        """Deliver to these, too, and no longer to those; who took them out closes them."""
        self.delivery.keep(self.settings.journal.keep_s)
        for sink in come:
            self.sinks.append(sink)
            self.delivery.add(sink)
        for sink in go:
            self.sinks.remove(sink)
            self.delivery.remove(sink.name)

    def send(self, group: TaskGroup) -> None:
        """Send the webhook's letters, as long as there is one."""
        webhook = self.force.webhook
        if webhook is None and self.sending is not None:
            self.sending.cancel()
            self.sending = None
        elif webhook is not None and self.sending is None:
            self.sending = group.create_task(webhook.run())

    async def register(self) -> None:
        """Say in Redis that this node counts there, and with which history. Raises ConfigError where another does."""
        await self.counters.rebuilder.register(self.force.boot.node, await self.history.identity())

    # ── what the parts ask of each other ─────────────────────────────────────────────────────────────────────

    def _cost(self, record: Record) -> tuple[int | None, str | None]:
        return self.force.prices.cost(record)

    def _tallies(self, workspace: str) -> frozenset[Tally]:
        return self.budgets.tallies(workspace)

    def _journal(self) -> Journal:
        directory, node = Path(self.settings.data_dir) / "journal", self.force.boot.node
        return Journal(directory, node=node, worker=WORKER, settings=self.settings.journal, now_us=now_us)

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

    async def close_track(self, workspace: str, track: str) -> bool:
        """End a track for the webhook. False: there is no webhook, or all of it was sent before."""
        webhook = self.force.webhook
        if webhook is None:
            return False
        await self.delivery.drain(DRAIN_S, ("webhook",))
        return await webhook.cut(workspace, track)


class Current:
    """The prices in force, which a reload may change."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def cost(self, record: Record) -> tuple[int | None, str | None]:
        """See PriceBook.cost."""
        return self._parts.force.prices.cost(record)

    def why(self, record: Record) -> str | None:
        """See PriceBook.why."""
        return self._parts.force.prices.why(record)


def now_us() -> int:
    """The time of day, microseconds since epoch."""
    return time.time_ns() // 1_000
