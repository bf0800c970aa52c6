"""What the control plane needs from the rest, as interfaces: history's reads, delivery's waits, the state of the node.

The process that runs it (control/process.py) builds the real things and passes them in as one `Services`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Protocol

from taximeter.config import Settings
from taximeter.control.arrivals import Arrivals
from taximeter.control.budgetinfo import BudgetInfo, ChargeInfo, Settlement
from taximeter.control.budgetring import BudgetRing
from taximeter.control.door import Door
from taximeter.control.keyring import KeyRing
from taximeter.control.live import Live
from taximeter.control.reprice import RepriceResponse
from taximeter.control.sessions import Sessions
from taximeter.control.shares import Shares
from taximeter.control.turns import InTurn
from taximeter.core.budgets import Budget
from taximeter.core.hosts import Hosts
from taximeter.core.prices import Card
from taximeter.core.record import Record
from taximeter.delivery.aside import Aside
from taximeter.delivery.health import DeliveryHealth, Replayed
from taximeter.sinks.history.query import Filters, Group, Ranked, TrackPart, Window
from taximeter.sinks.webhook.letters import Letter


class Sums(Protocol):
    """The aggregates of sinks.history (see its Reader for what each answers and raises)."""

    async def usage(
        self, filters: Filters, group_by: Sequence[str] = (), window: Window | None = None, tz: str = "UTC"
    ) -> list[Group]: ...

    async def ranked(self, filters: Filters, by: str, most: int, window: Window, tz: str = "UTC") -> Ranked: ...

    async def track(
        self, workspace: str, track: str, from_us: int | None = None, to_us: int | None = None
    ) -> list[TrackPart]: ...


class Records(Protocol):
    """The single records of sinks.history."""

    async def record(self, request_id: str) -> list[Record]: ...

    async def arrived(self, request_ids: Collection[str]) -> set[tuple[str, str]]: ...

    async def events(
        self, filters: Filters, limit: int = 100, page: str | None = None
    ) -> tuple[list[Record], str | None]: ...

    def export(self, filters: Filters, chunk: int = 2_000) -> AsyncIterator[list[Record]]: ...

    async def count(self, filters: Filters) -> int: ...


class History(Sums, Records, Protocol):
    """Both."""


class Drained(Protocol):
    """How far a drain came."""

    @property
    def complete(self) -> bool: ...
    @property
    def lag_seconds(self) -> float: ...


class Delivery(Protocol):
    """The waits of delivery, all bounded."""

    async def drain(self, timeout_s: float, sinks: Sequence[str] = ("history",)) -> Drained: ...

    async def settled(self, track: str, timeout_s: float, workspace: str | None = None) -> bool: ...

    def in_flight(self, workspace: str | None = None, track: str | None = None) -> int: ...

    def place(self, sink: str) -> int: ...

    async def beyond(self, sink: str, place: int, timeout_s: float) -> bool: ...


class Letters(Protocol):
    """The webhook's outbox (see sinks.webhook.store)."""

    async def letters(self, *, dead: bool | None = None, limit: int = 1_000) -> list[Letter]: ...

    async def resend(self, keys: Sequence[str] | None = None) -> int: ...


class DeadLetters(Protocol):
    """What sinks could not take (see delivery.Delivery)."""

    aside: Aside

    async def replay(self, keys: Sequence[str] | None = None) -> Replayed: ...


class Desk(Protocol):
    """Budgets (see control.budgets.BudgetDesk)."""

    ring: BudgetRing

    async def listing(self) -> list[BudgetInfo]: ...

    async def begin(self, budget: Budget) -> None: ...


class Corrections(Protocol):
    """Prices a period again, settles what was charged (see control.corrections)."""

    async def reprice(self, filters: Filters, *, dry_run: bool) -> RepriceResponse: ...

    async def charges(self, workspace: str | None) -> list[ChargeInfo]: ...

    async def settle(self, request_id: str, known: Settlement) -> list[ChargeInfo]: ...


class Node(Protocol):
    """The state of this node."""

    def health(self) -> dict[str, Any]:
        """What /healthz tells an admin, beside status and version."""

    async def problems(self) -> list[str]:
        """Why this node is not ready, each in one sentence; empty: it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """Everything the application is built from; it holds no state of its own."""

    settings: Settings
    hosts: Hosts
    history: History
    delivery: Delivery
    keyring: KeyRing
    live: Live
    node: Node
    metrics: Callable[[str], tuple[bytes, str]]
    """Accept header -> exposition and its content type."""
    prices: Callable[[], list[dict[str, Any]]]
    """The price list in force, one row a price."""
    close_track: Callable[[str, str], Awaitable[bool]] | None = None
    """Ends a (workspace, track) for the billing webhook, False where all of it was sent before; None: no webhook is
    configured."""
    budgets: Desk | None = None
    """None: this control plane keeps no budgets."""
    corrections: Corrections | None = None
    """None: this control plane has no journal to write corrections into."""
    rebuild: Callable[[str | None], Awaitable[int]] | None = None
    """Writes the Redis counters of a workspace, or of all, anew; answers how many. None: there are none."""
    letters: Letters | None = None
    """What the webhook has not delivered; None: no webhook is configured."""
    deadletters: DeadLetters | None = None
    """What sinks could not take; None: nothing is delivered here."""
    card: Callable[[str, str, int], Card | None] = lambda provider, model, at_us: None
    """(provider, model, µs) -> the price of an LLM call then; None: none is known."""
    sessions: Sessions = field(default_factory=Sessions)
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
        object.__setattr__(self, "door", Door(self.settings, self.keyring.keys, self.sessions))
        object.__setattr__(self, "arrivals", Arrivals(self.history, self.delivery))

    def in_turn(self) -> Services:
        """The same services, with a history in which each workspace reads in turn: for what answers requests."""
        fair = copy(self)
        object.__setattr__(fair, "history", InTurn(self.history, self.shares))
        return fair
