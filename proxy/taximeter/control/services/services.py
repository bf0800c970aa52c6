"""Everything the control plane's application is built from: the process makes the real things and passes them in."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from taximeter.alerts.service import AlertService
from taximeter.billing.service import Billing
from taximeter.breaker.service import BreakerService
from taximeter.budgets.service import BudgetService
from taximeter.config import Settings
from taximeter.control.door.door import Door
from taximeter.control.door.forms import Forms
from taximeter.control.door.sessions import Sessions
from taximeter.control.door.shares import Shares
from taximeter.control.services.arrivals import Arrivals
from taximeter.control.services.audit import AuditTrail
from taximeter.control.services.corrections import Corrections
from taximeter.control.services.interfaces import DeadLetters, Delivery, EvidenceReader, HistoryReader, Letters, Node
from taximeter.control.services.live import Live
from taximeter.control.services.owed import OwedLedger
from taximeter.control.services.turns import InTurn
from taximeter.core.hosts import Hosts
from taximeter.core.prices import Card
from taximeter.core.record import Record
from taximeter.keys.store import KeyStore
from taximeter.node.audit import AuditLog
from taximeter.reconcile.service import ReconcileService
from taximeter.sinks.health import DeliveryHealth


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """Everything the application is built from; it holds no state of its own."""

    settings: Settings
    hosts: Hosts
    history: HistoryReader
    delivery: Delivery
    keys: KeyStore
    live: Live
    node: Node
    metrics: Callable[[str], tuple[bytes, str]]
    """Accept header -> exposition and its content type."""
    prices: Callable[[], list[dict[str, Any]]]
    """The price list in force, one row a price."""
    close_track: Callable[[str, str], Awaitable[bool]] | None = None
    """Ends a (workspace, track) for the billing webhook, False where all of it was sent before; None: no webhook is
    configured."""
    budgets: BudgetService | None = None
    """None: this control plane keeps no budgets."""
    alerts: AlertService | None = None
    """None: no alert is configured."""
    breakers: BreakerService | None = None
    """None: this control plane knows no breakers."""
    billing: Billing | None = None
    """None: this control plane makes no statements."""
    reconcile: ReconcileService | None = None
    """None: this control plane compares nothing with providers."""
    corrections: Corrections | None = None
    """None: this control plane has no journal to write corrections into."""
    owed: OwedLedger | None = None
    """None: this control plane settles nothing that is billed later."""
    rebuild: Callable[[str | None], Awaitable[int]] | None = None
    """Writes the Redis counters of a workspace, or of all, anew; returns how many. None: there are none."""
    letters: Letters | None = None
    """What the webhook has not delivered; None: no webhook is configured."""
    deadletters: DeadLetters | None = None
    """What sinks could not take; None: nothing is delivered here."""
    card: Callable[[str, str, int], Card | None] = lambda provider, model, at_us: None
    """(provider, model, µs) -> the price of an LLM call then; None: none is known."""
    card_of: Callable[[Record], Card | None] = lambda record: None
    """A recorded call -> the price it has, by the list in force; for one thread at a time, and any."""
    audit: AuditLog = field(default_factory=AuditLog)
    """Who changes something writes it down here."""
    trail: AuditTrail | None = None
    """Reads what was written down; None: nothing is kept."""
    evidence: EvidenceReader | None = None
    """None: this control plane has no history that keeps any."""
    sessions: Sessions = field(default_factory=Sessions)
    forms: Forms = field(default_factory=Forms)
    former: Door | None = None
    """The door of the settings before; None: since the start there were none."""
    door: Door = field(init=False)
    """Who may come in."""
    shares: Shares = field(default_factory=Shares)
    """How much a workspace may have at once."""
    arrivals: Arrivals = field(init=False)
    """Waits for requests to be in history."""
    now_us: Callable[[], int] = lambda: time.time_ns() // 1_000
    delivering: Callable[[], DeliveryHealth] | None = None
    """How delivery is doing, for the page on the meter's health; None: not told."""

    def __post_init__(self) -> None:
        door = Door(self.settings, self.keys.in_force, self.sessions, audit=self.audit, former=self.former)
        object.__setattr__(self, "door", door)
        object.__setattr__(self, "arrivals", Arrivals(self.history, self.delivery))

    def in_turn(self) -> Services:
        """The same services, with a history in which each workspace reads in turn: for what answers requests."""
        fair = copy(self)
        object.__setattr__(fair, "history", InTurn(self.history, self.shares))
        return fair
