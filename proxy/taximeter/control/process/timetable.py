"""What the control process does now and then, and how often."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any

from taximeter.control.process.parts import Parts, now_us
from taximeter.control.process.state import ASKING_BUDGETS
from taximeter.control.process.sync import Seen, exchange
from taximeter.control.process.upkeep import every, retention_start_us
from taximeter.control.services.exporting import Exporter
from taximeter.evidence.statements import told_of
from taximeter.sinks.redis.split import split

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
SECURE_S = 0.5
"""How often it is seen that Redis still knows of budgets."""
TOLD_DAYS = 800
"""So long it is remembered that a threshold was told of: longer than any period but `total`."""


def upkeep(parts: Parts) -> list[Coroutine[Any, Any, None]]:
    """All of it; each goes on until it is cancelled. What goes wrong stands in the notes of `parts.state`."""
    notes = parts.state.notes
    acts = Upkeep(parts)
    return [
        every(REGISTER_S, "registering this node in Redis", parts.register, notes),
        every(AUDIT_S, "auditing Redis against history", acts.audit, notes),
        every(TAGS_S, "summing by track, document and end user", parts.history.roll_up_tags, notes),
        every(PRUNE_S, "forgetting old records", acts.prune, notes),
        every(EVIDENCE_S, "keeping evidence", acts.keep_evidence, notes),
        every(KEYS_S, "bringing the audit log into the history", parts.trail.file, notes),
        every(KEYS_S, "exchanging proxy keys and budgets with other nodes", acts.share_keys, notes),
        every(KEYS_S, "watching budgets", acts.watch_budgets, notes),
        every(OWED_S, "settling calls that are billed later", parts.owed.settle, notes),
        every(COLLECT_S, "fetching what is billed later", acts.collect, notes),
        parts.alerts.run(),
        acts.exporter().run(),
        every(ALERTS_S, "looking for what is worth an alert", parts.alerts.look, notes),
        every(RECONCILE_S, "comparing with providers", parts.reconcile.look, notes),
        every(LOOK_S, "watching how fast is spent", parts.breakers.look, notes),
        every(SECURE_S, ASKING_BUDGETS, parts.budgets.secure, notes),
        every(SECURE_S, "letting go slices of dead workers", parts.slices.look, notes),
        every(SWEEP_S, "letting go what ended calls hold of budgets", parts.budgets.sweep, notes),
    ]


class Upkeep:
    """What takes more than one part."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._keys, self._budgets, self._trips = Seen(), Seen(), Seen()

    async def audit(self) -> None:
        """Compare some counters with history, as the one node that does."""
        async with self._parts.auditing.held() as ours:
            if ours:
                await self._parts.counters.auditor.audit()

    async def prune(self) -> None:
        """Forget what is no longer kept."""
        parts = self._parts
        before_us = retention_start_us(parts.settings.history.retention_days)
        await parts.history.prune(before_us)
        await parts.owed.write_off(parts.settings.history.owed_days)
        await parts.owed.forget(before_us, parts.settings.history.owed_days)
        await parts.history.prune_told(retention_start_us(TOLD_DAYS))
        await parts.history.prune_audit(retention_start_us(parts.settings.history.audit_days))
        if parts.force.webhook is not None:
            await parts.force.webhook.prune(before_us)

    async def keep_evidence(self) -> None:
        """Make segments of the journals' chains, and a root where a day is over."""
        parts = self._parts
        await parts.history.gather_evidence()
        parts.force.signers()  # a key that cannot be read is told now, not when the day is over
        made = await parts.history.seal_evidence_daily(now_us(), parts.force.signers)
        if made is not None:
            log.info("%s", told_of(made))

    async def share_keys(self) -> None:
        """With the nodes on the same Redis; an embedded one has no others."""
        parts = self._parts
        if parts.settings.redis.url:
            server, sealing = parts.counters.server, parts.force.sealing
            await exchange(server, parts.force.keys, sealing, self._keys)
            await exchange(server, parts.budgets.store, sealing, self._budgets)
            await exchange(server, parts.breakers.store, sealing, self._trips)

    async def watch_budgets(self) -> None:
        """Add up what is not added up at every record, spread what has grown too large, look how full budgets are."""
        await self._parts.budgets.look_after()
        if self._parts.counters.rebuilder.fleet.turn():
            await split(self._parts.counters)
        await self._parts.watching.look()

    async def collect(self) -> None:
        """Fetch what calls used that are billed later, where an upstream says so."""
        if self._parts.collector is not None:
            await self._parts.collector.look()

    def exporter(self) -> Exporter:
        """Brings files by month to what history has."""
        parts = self._parts
        return Exporter(
            lambda: parts.force.settings.export,
            parts.history.reader,
            lambda: parts.force.prices.apart().find,
            parts.state.notes,
            environ=lambda: parts.force.environ,
        )
