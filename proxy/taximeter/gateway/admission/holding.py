"""What holds parts of budgets and admits calls by their rates, as the gate of one worker asks it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from taximeter.budgets.rate_windows import RateRefusal, RateWindows
    from taximeter.budgets.rates import Limit
    from taximeter.budgets.reservations import Lost, Refusal, Reservations, Reserved, Spent
    from taximeter.budgets.rule import Allowance

TIMEOUT_S = 1.0
"""A Redis that is silent for longer is taken for unavailable."""


class Holding(Protocol):
    """What holds parts of budgets (see budgets.reservations)."""

    async def reserve(
        self,
        call: str,
        wanted: Sequence[tuple[Allowance, int]],
        now_us: int,
        *,
        in_flight: bool = False,
        rates: Sequence[tuple[Limit, int]] = (),
    ) -> Reserved | Refusal | RateRefusal | Lost: ...

    async def admit(
        self, call: str, workspace: str, rates: Sequence[tuple[Limit, int]]
    ) -> Reserved | RateRefusal | Lost: ...

    @property
    def windows(self) -> RateWindows: ...

    async def changed(self, workspaces: Sequence[str]) -> dict[str, str]: ...

    async def release(self, workspace: str, calls: Sequence[str]) -> int: ...

    async def counted(self, workspace: str, event_ids: Iterable[str]) -> bool: ...

    async def wanted_back(self, workspaces: Sequence[str]) -> dict[str, str]: ...

    async def want_back(self, workspace: str) -> None: ...

    async def spent(self, allowances: Sequence[Allowance], now_us: int) -> list[Spent]: ...

    async def close(self) -> None: ...


def connect(redis_url: str) -> Reservations:
    """Reservations in the Redis at this URL; nothing is sent yet."""
    from taximeter.budgets.reservations import Reservations
    from taximeter.sinks.redis.client import RedisServer

    return Reservations(RedisServer(redis_url, timeout_s=None), timeout_s=TIMEOUT_S)
