"""What the control plane needs from the rest, as interfaces: history's reads, delivery's waits, the node's state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from taximeter.core.record import Record
from taximeter.delivery.aside import Aside
from taximeter.delivery.health import Replayed
from taximeter.sinks.history.read.evidence import HistoryEvidence
from taximeter.sinks.query import (
    NEWEST,
    Filters,
    Group,
    Latency,
    Listing,
    Match,
    QuantitySum,
    Ranked,
    Sort,
    TrackPart,
    Window,
)
from taximeter.sinks.webhook.letters import Letter

T = TypeVar("T")


class SumsReader(Protocol):
    """The aggregates of sinks.history (see its Reader for what each returns and raises)."""

    async def usage(
        self, filters: Filters, group_by: Sequence[str] = (), window: Window | None = None, tz: str = "UTC"
    ) -> list[Group]: ...

    def parts(
        self, filters: Filters, group_by: Sequence[str], window: Window | None = None, tz: str = "UTC"
    ) -> AsyncIterator[list[Group]]: ...

    async def ranked(self, filters: Filters, by: str, most: int, window: Window, tz: str = "UTC") -> Ranked: ...

    async def latency(self, filters: Filters, by: str, marks: Sequence[int]) -> Latency: ...

    async def quantities(self, filters: Filters, group_by: Sequence[str]) -> list[QuantitySum]: ...

    async def apart_since_us(self) -> int: ...

    async def track(
        self, workspace: str, track: str, from_us: int | None = None, to_us: int | None = None
    ) -> list[TrackPart]: ...


class RecordsReader(Protocol):
    """The single records of sinks.history."""

    async def record(self, request_id: str) -> list[Record]: ...

    async def request(
        self, request_id: str, limit: int, page: str | None = None
    ) -> tuple[list[Record], str | None]: ...

    async def arrived(self, request_ids: Collection[str]) -> set[tuple[str, str]]: ...

    async def events(
        self, filters: Filters, limit: int = 100, page: str | None = None
    ) -> tuple[list[Record], str | None]: ...

    async def listing(self, filters: Filters, limit: int, page: str | None = None, sort: Sort = NEWEST) -> Listing: ...

    async def names(self, workspace: str | None = None) -> dict[str, list[str]]: ...

    async def search(self, text: str, workspace: str | None = None) -> list[Match]: ...

    def export(self, filters: Filters, chunk: int = 2_000) -> AsyncIterator[list[Record]]: ...

    async def count(self, filters: Filters) -> int: ...


class HistoryReader(SumsReader, RecordsReader, Protocol):
    """Both."""


class EvidenceReader(Protocol):
    """What history keeps of the journals' chains."""

    async def evidence(self, ask: Callable[[HistoryEvidence], T]) -> T:
        """Asks it in a thread, over one state of the database."""


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


class Readiness(msgspec.Struct, kw_only=True):
    """How this node does, each entry one sentence."""

    problems: list[str]
    """Why it should get no calls; empty: it is ready."""
    warnings: list[str]
    """What else is wrong. Calls are relayed and written down all the same, and nothing is lost."""


class Node(Protocol):
    """The state of this node."""

    def health(self) -> dict[str, Any]:
        """What /healthz tells an admin, beside status and version."""

    def readiness(self) -> Readiness: ...
