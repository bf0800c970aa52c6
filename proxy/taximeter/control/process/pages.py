"""What the control plane's application is given: the parts, and what its visitors hold."""

from __future__ import annotations

from taximeter.control.door.forms import Forms
from taximeter.control.door.sessions import Sessions
from taximeter.control.door.shares import Shares
from taximeter.control.process.parts import Parts
from taximeter.control.services.services import Services
from taximeter.core.hosts import Hosts
from taximeter.pricebook import Beforehand
from taximeter.sinks.prometheus.families import Exposition


class Pages:
    """Sessions, forms and shares go on through a reload; all else is as the settings in force have it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._sessions, self._forms, self._shares = Sessions(), Forms(), Shares()
        self._services: Services | None = None

    def services(self) -> Services:
        """Made anew of the settings in force, with the door there was."""
        parts, force = self._parts, self._parts.force
        webhook, prices = force.webhook, force.prices
        self._services = Services(
            settings=force.settings,
            hosts=Hosts(force.settings.control.allowed_hosts),
            history=parts.history,
            delivery=parts.delivery,
            keys=force.keys,
            live=parts.live,
            node=parts.state,
            metrics=self._exposition().render,
            prices=lambda: list(prices.lists.cards()),
            card=Beforehand(prices).card,
            card_of=prices.apart().find,
            delivering=parts.delivery.health,
            close_track=None if webhook is None else parts.close_track,
            budgets=parts.budgets,
            breakers=parts.breakers,
            alerts=parts.alerts,
            billing=parts.billing,
            reconcile=parts.reconcile,
            corrections=parts.corrections,
            owed=parts.owed,
            rebuild=parts.counters.rebuild,
            letters=webhook,
            deadletters=parts.delivery,
            audit=parts.audit,
            trail=parts.trail,
            evidence=parts.history,
            sessions=self._sessions,
            forms=self._forms,
            shares=self._shares,
            former=None if self._services is None else self._services.door,
        )
        return self._services

    def _exposition(self) -> Exposition:
        parts, webhook = self._parts, self._parts.force.webhook
        return Exposition(
            parts.metrics,
            health=parts.delivery.health,
            redis_drift=lambda: parts.counters.auditor.drift,
            budget_spent_ratio=lambda: parts.watching.ratios,
            budget_thresholds=lambda: parts.watching.reached,
            alerts=parts.alerts.standing,
            breakers=lambda: (parts.breakers.open(), parts.breakers.tripped),
            reconcile=parts.reconcile.measured,
            letters=None if webhook is None else lambda: (webhook.waiting, webhook.dead),
            owed=parts.owed.figures,
        )
