"""Rates of one worker: which are about a call, what they say of it, and telling Redis that calls go on or have ended.

Nobody waits for the latter: it goes in one batch behind a call's end, and again where Redis did not take it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING

from taximeter.budgets.charges import Held, tokens_used
from taximeter.budgets.rates import WINDOW_S, Limit, Rates
from taximeter.core.errors import RateExceeded, RateTooSmall
from taximeter.core.holds import reservation_of
from taximeter.core.record import Record
from taximeter.gateway.admission.telling import Headers

if TYPE_CHECKING:
    from taximeter.budgets.rate_windows import Admitted, RateRefusal, RateWindows, Stands

RENEW_S = 5.0
"""How often it is said that calls go on; Redis forgets them after twelve times as long (rate_windows.LEASE_S)."""
_WORDS = {"requests": "requests a minute", "tokens": "tokens a minute", "calls": "calls at once"}


class RateGate:
    """The rates of one worker."""

    def __init__(self, rates: Rates, windows: Callable[[], RateWindows | None]) -> None:
        """`windows`: where they are kept, once a call needed them."""
        self.rates = rates
        self._windows = windows
        self._flying: dict[str, tuple[Admitted, Held]] = {}
        self._over: list[tuple[Admitted, int | None]] = []
        self._telling: asyncio.Task[None] | None = None
        self._renew_at_s = 0.0
        self._local = LocalWindows()

    def wanted(self, limits: Sequence[Limit], held: Held) -> list[tuple[Limit, int]]:
        """How much of each a call wants that uses at most that."""
        return [(limit, held.tokens if limit.kind == "tokens" else 1) for limit in limits]

    def began(self, admitted: Admitted, held: Held) -> None:
        """A call counts in its windows from now on; `held`: the most it may use."""
        self._flying[admitted.call] = admitted, held

    def admit_locally(
        self, call: str, workspace: str, wanted: Sequence[tuple[Limit, int]], held: Held, percent: float
    ) -> bool:
        """Let a call pass that Redis cannot be asked about, within a share of each limit; it is told afterwards."""
        from taximeter.budgets.rate_windows import Admitted

        if not self._local.admit(call, workspace, wanted, percent, asyncio.get_running_loop().time()):
            return False
        if wanted:
            self.began(Admitted(call, workspace, wanted, 0, []), held)
        return True

    def ended(self, record: Record) -> None:
        """A call's record is written: it counts as what it used."""
        found = self._flying.pop(reservation_of(record), None)
        if found is None:
            return
        self._local.ended(found[0].call)
        admitted, held = found
        self._over.append((admitted, tokens_used(record, held)))
        if self._telling is None:
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def look(self) -> None:
        """Tell Redis what it has to know and may have missed or forgotten. Raises redis.client.ERRORS."""
        windows = self._windows()
        if windows is None:
            return
        going_on = {admitted.workspace for admitted, _ in self._flying.values()}
        told, now_s = await windows.look(going_on), asyncio.get_running_loop().time()
        untold = self._local.untold(now_s)
        if untold:
            await windows.add(untold)
            self._local.told(len(untold))
        if told or now_s >= self._renew_at_s:
            await windows.renew(admitted for admitted, _ in self._flying.values())
            self._renew_at_s = now_s + RENEW_S
        if self._over and self._telling is None:
            await self._tell()

    async def settled(self) -> None:
        """Wait until Redis has heard of the calls that ended, or could not be told."""
        if self._telling is not None:
            await self._telling

    async def _tell(self) -> None:
        from taximeter.sinks.redis.client import ERRORS

        windows = self._windows()
        try:
            while self._over and windows is not None:
                over, self._over = self._over, []
                try:
                    await windows.end(over)
                except ERRORS:  # `look` tells it again; not what it used, which may have been taken off
                    self._over = [(admitted, None) for admitted, _ in over] + self._over
                    return
        finally:
            self._telling = None


class LocalWindows:
    """What one worker admits by itself while Redis is away: of each limit a share, in any window."""

    def __init__(self) -> None:
        self._begun: dict[str, deque[tuple[float, int]]] = {}
        """Key -> when, and how much."""
        self._calls: dict[str, set[str]] = {}
        self._untold: deque[tuple[float, str, int]] = deque()

    def admit(
        self, call: str, workspace: str, wanted: Sequence[tuple[Limit, int]], percent: float, now_s: float
    ) -> bool:
        """Count a call in all of these, or in none. A share is at least 1."""
        keys = [limit.key(workspace) for limit, _ in wanted]
        for key, (limit, amount) in zip(keys, wanted, strict=True):
            share = max(1, int(limit.limit * percent / 100))
            begun = self._begun.setdefault(key, deque())
            while begun and begun[0][0] < now_s - WINDOW_S - 1:
                begun.popleft()
            so_far = len(self._calls.get(key, ())) if limit.kind == "calls" else sum(each for _, each in begun)
            if so_far + amount > share:
                return False
        for key, (limit, amount) in zip(keys, wanted, strict=True):
            if limit.kind == "calls":
                self._calls.setdefault(key, set()).add(call)
            else:
                self._begun[key].append((now_s, amount))
                self._untold.append((now_s, key, amount))
        return True

    def ended(self, call: str) -> None:
        """It no longer counts as one of those at once."""
        if self._calls:
            self._calls = {key: left for key, calls in self._calls.items() if (left := calls - {call})}

    def untold(self, now_s: float) -> list[tuple[str, int]]:
        """What began in the last minute and Redis has not heard of: key, amount."""
        while self._untold and self._untold[0][0] < now_s - WINDOW_S:
            self._untold.popleft()
        if not self._untold:
            self._begun = {key: begun for key, begun in self._begun.items() if begun and begun[-1][0] > now_s - 90}
        return [(key, amount) for _, key, amount in self._untold]

    def told(self, count: int) -> None:
        """Redis has heard of the first of them."""
        for _ in range(count):
            self._untold.popleft()


def refused(refusal: RateRefusal) -> RateExceeded:
    """A call that a rate does not admit, as it is answered."""
    limit, wait_ms = refusal.limit, refusal.wait_ms
    told = rate_headers(refusal.stands)
    what = f"The rate {limit.rate!r} allows {limit.limit:,} {_WORDS[limit.kind]}"
    if wait_ms is None:
        return RateTooSmall(f"{what}, and this call alone may use {refusal.amount:,}.", told=told)
    wait_s = max(1, -(-wait_ms // 1000))
    if limit.kind == "tokens":
        what += f", and this call may use {refusal.amount:,}"
    return RateExceeded(f"{what}. Try again in {wait_s} s.", retry_after_s=wait_s, told=told)


def rate_headers(stands: Sequence[Stands]) -> Headers:
    """How the fullest rates stand, under the names and in the form in which OpenAI says it."""
    headers: Headers = []
    for kind in ("requests", "tokens"):
        of_kind = [each for each in stands if each.limit.kind == kind]
        if of_kind:
            fullest = min(of_kind, key=lambda each: each.remaining / max(1, each.limit.limit))
            headers += (
                (b"x-ratelimit-limit-%b" % kind.encode(), b"%d" % fullest.limit.limit),
                (b"x-ratelimit-remaining-%b" % kind.encode(), b"%d" % fullest.remaining),
                (b"x-ratelimit-reset-%b" % kind.encode(), duration(fullest.reset_ms).encode()),
            )
    return headers


def duration(ms: int) -> str:
    """`350ms`, `12s`, `1m0s`, as Go and OpenAI write it."""
    if ms < 1000:
        return f"{ms}ms"
    minutes, rest_ms = divmod(ms, WINDOW_S * 1000)
    seconds = f"{rest_ms / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


class Everywhere(Container[str]):
    """Every workspace."""

    def __contains__(self, workspace: object) -> bool:
        return True


def concerned(rates: Rates, budgeted: Sequence[str]) -> Container[str]:
    """Workspaces whose calls may have a limit; false where there is none."""
    return Everywhere() if rates.everywhere else frozenset(budgeted) | rates.workspaces
