"""Rates: how many requests or tokens a minute, and how many calls at once, of which calls. Pure.

A rate is decided when a call comes, of a window that moves on with time; a budget is about a period, and what a call
used of it is known at its end. Rates stand in the configuration (`[[rate]]`): every worker of a node has the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

from taximeter.core.record import Record
from taximeter.sinks.redis import keys

if TYPE_CHECKING:
    from taximeter.config import RateSettings

Kind = Literal["requests", "tokens", "calls"]
WINDOW_S = 60
"""Requests and tokens are per minute: of any 60 seconds, not of one on the clock."""
EACH = "*"
SCOPE = {
    "key": "key_id", "task": "task", "track": "track", "document": "document", "end_user": "end_user",
    "model": "request_model", "upstream": "upstream",
}  # fmt: skip
"""What a rate may name of a call besides its workspace, and what that is in the call's record."""


class Limit(NamedTuple):
    """One figure of a rate, for one combination of the values it is for each of."""

    rate: str
    """Its name in the configuration."""
    kind: Kind
    """Requests or tokens in a window, or calls at once."""
    limit: int
    place: str
    """Where it is kept, behind a workspace's prefix: the name of the rate and the values."""

    def key(self, workspace: str) -> str:
        """The key it is kept under."""
        return f"{keys.prefix(workspace)}{keys.RATE}{self.kind}:{self.place}"


class Rates:
    """The rates in force. `workspaces`: those that a rate names; with `everywhere` there is one for all."""

    def __init__(self, rates: Iterable[RateSettings] = ()) -> None:
        self._rates = tuple(rates)
        self.everywhere = any(rate.workspace == EACH for rate in self._rates)
        self.workspaces = frozenset(rate.workspace for rate in self._rates if rate.workspace != EACH)
        self._of_tokens = tuple(rate for rate in self._rates if rate.tokens_per_minute)

    def __bool__(self) -> bool:
        return bool(self._rates)

    def concern(self, workspace: str) -> bool:
        """Whether some rate may be about calls of this workspace."""
        return self.everywhere or workspace in self.workspaces

    def weigh(self, workspace: str) -> bool:
        """Whether some rate in tokens may be, so that what such a call may use has to be known."""
        return any(rate.workspace in (EACH, workspace) for rate in self._of_tokens)

    def of(self, call: Record) -> tuple[Limit, ...]:
        """What of them is about a call."""
        return tuple(limit for rate in self._rates for limit in _limits(rate, call))


def _limits(rate: RateSettings, call: Record) -> Iterable[Limit]:
    if rate.workspace not in (EACH, call.workspace):
        return
    place = [keys.name(rate.name)]
    for name, member in SCOPE.items():
        wanted: str = getattr(rate, name)
        if not wanted:
            continue
        value: str | None = getattr(call, member)
        if not value or wanted not in (EACH, value):
            return
        if wanted == EACH:
            place.append(f"{name}={keys.name(value)}")
    where = ":".join(place)
    if rate.requests_per_minute:
        yield Limit(rate.name, "requests", rate.requests_per_minute, where)
    if rate.tokens_per_minute:
        yield Limit(rate.name, "tokens", rate.tokens_per_minute, where)
    if rate.concurrent:
        yield Limit(rate.name, "calls", rate.concurrent, where)


def places_of_calls(workspace: str, limits: Iterable[Limit]) -> list[str]:
    """The keys in which a call of these limits counts as one of those at once."""
    return [limit.key(workspace) for limit in limits if limit.kind == "calls"]
