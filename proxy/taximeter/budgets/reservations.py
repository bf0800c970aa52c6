"""Holding a part of hard budgets in Redis while a call is in flight, and reading how much of a budget is spent.

What a call holds is let go in the step that counts its record (counters.lua). Knows no HTTP.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from taximeter.budgets.rate_windows import Admitted, RateRefusal, RateWindows
from taximeter.budgets.rates import Limit
from taximeter.budgets.rule import Allowance
from taximeter.budgets.tally import AMOUNTS
from taximeter.core.record import seq_of
from taximeter.sinks.redis import keys
from taximeter.sinks.redis.asking import Asker
from taximeter.sinks.redis.client import RedisServer, Script, raised

_RESERVE = Script("reserve.lua", __package__)
_RELEASE = Script("release.lua", __package__)
_EPOCH = Script("epoch.lua", __package__)
MOST_HELD = 2**62
"""More than any limit: a bound beyond it is refused all the same."""
_REMEMBERED = 10_000
"""Workspaces whose epoch is remembered; beyond it memory starts over."""


class Refusal(msgspec.Struct, frozen=True):
    """Why nothing was reserved."""

    allowance: Allowance
    spent: int
    """In the budget's own unit."""
    charged: int
    """Likewise, for calls of which it is not known what they used."""
    over: bool
    """Not enough is left, whatever becomes of the calls in flight; else it is only held by these."""
    unheld: tuple[int, ...] = ()
    """What is left of each budget asked for, and not held; in its own unit."""

    @property
    def unheld_later(self) -> int:
        """What is left of this one when the calls in flight have ended, at most."""
        return max(0, self.allowance.budget.limit - self.spent - self.charged)


class Lost(msgspec.Struct, frozen=True):
    """Nothing was reserved: this Redis does not have all that was spent and held. It is being put together again."""


class Spent(msgspec.Struct, frozen=True):
    """How a budget stands in its period now, in its own unit."""

    spent: int
    held: int
    """By calls in flight, an upper bound of what they will use."""
    charged: int = 0
    """For calls that ended and of which it is not known what they used: their upper bounds."""


class Reserved(msgspec.Struct, frozen=True):
    """What a call holds, of allowances of one workspace, and the epoch of Redis's memory that knows of it."""

    wanted: Sequence[tuple[Allowance, int]]
    epoch: str
    unheld: tuple[int, ...] = ()
    """What is left of each budget after this, and not held; in its own unit. Empty: not told."""
    admitted: Admitted | None = None
    """In which rates' windows it counts."""

    @property
    def workspace(self) -> str:
        return self.wanted[0][0].budget.workspace


class Reservations:
    """Reservations in one Redis. Methods raise redis.client.ERRORS."""

    def __init__(self, server: RedisServer, *, timeout_s: float = 5.0) -> None:
        """`timeout_s`: for how long a server that is asked to reserve may be silent."""
        self._server = server
        self._reserving = Asker(server, _RESERVE, timeout_s=timeout_s)
        self.windows = RateWindows(server, timeout_s=timeout_s)
        """Those of rates, in the same Redis."""
        self._asker = f":{secrets.token_hex(8)}"
        self._last: dict[str, tuple[str, int]] = {}
        """Workspace -> the epoch we reserved in last, and how often."""

    async def reserve(
        self,
        call: str,
        wanted: Sequence[tuple[Allowance, int]],
        now_us: int,
        *,
        in_flight: bool = False,
        rates: Sequence[tuple[Limit, int]] = (),
    ) -> Reserved | Refusal | RateRefusal | Lost:
        """Hold an amount of each of these allowances of one workspace, and count in each of these rates, or in none.

        `call` names the call: a second time for the same one changes nothing of budgets. `in_flight`: it is under way
        already, so it holds its part whatever is left.
        """
        workspace = wanted[0][0].budget.workspace
        prefix = keys.prefix(workspace)
        names = [prefix + "gen", *_places(workspace), prefix + keys.TALLIES]
        epoch, times = self._last.get(workspace, ("", 0))
        args: list[str | int] = [call, now_us // 1_000_000, self._asker, epoch, times, int(in_flight)]
        for allowance, amount in wanted:
            sums, tally = sum_keys(allowance, now_us), allowance.budget.tally
            limit: str | int = allowance.budget.limit
            if allowance.cap:
                sums = [prefix + keys.cap(tally.unit, *allowance.values), *sums]
                limit = allowance.cap if allowance.cap == "?" else f"{allowance.cap}{limit}"
            names += sums
            args += (_field(allowance), len(sums), limit, min(amount, MOST_HELD))
            args += (tally.text, tally.widest.text)
        admitted: Admitted | None = None
        if rates:
            found, reply = await self.windows.admit(call, workspace, rates, (names, args))
            if found is None or isinstance(found, RateRefusal):
                return found or Lost()
            admitted = found
        else:
            [reply] = raised([await self._reserving.ask((names, args))])
        if reply[0] == b"held":
            epoch = self._learn(workspace, reply[1].decode().removeprefix("-"), int(reply[2]))
            return Reserved(wanted, epoch, tuple(map(int, reply[3:])), admitted)
        if reply[0] == b"lost":
            await self._server.command("SADD", keys.ASKED, workspace)  # whoever puts it together may not know of it
            return Lost()
        whose = wanted[reply[1] - 1][0]
        if whose.cap:
            whose = replace(whose, budget=replace(whose.budget, limit=int(reply[4])))
        unheld = tuple(map(int, reply[5:]))
        return Refusal(whose, int(reply[2]), int(reply[3]), over=reply[0] == b"over", unheld=unheld)

    async def admit(
        self, call: str, workspace: str, rates: Sequence[tuple[Limit, int]]
    ) -> Reserved | RateRefusal | Lost:
        """Count a call without budgets in each of these rates, or in none."""
        admitted, _ = await self.windows.admit(call, workspace, rates)
        if admitted is None or isinstance(admitted, RateRefusal):
            return admitted or Lost()
        return Reserved((), "", (), admitted)

    def _learn(self, workspace: str, epoch: str, times: int) -> str:
        if len(self._last) >= _REMEMBERED:
            self._last.clear()
        self._last[workspace] = epoch, times
        return epoch

    async def changed(self, workspaces: Sequence[str]) -> dict[str, str]:
        """Each workspace's epoch now, of these; "" where there is none, or Redis went back since we reserved last."""
        fields = [
            ("HMGET", keys.prefix(workspace) + keys.HELD, keys.EPOCH_FIELD, self._asker) for workspace in workspaces
        ]
        found: dict[str, str] = {}
        for workspace, (epoch, times) in zip(workspaces, await self._server.commands(fields), strict=True):
            now = (epoch or b"").decode().removeprefix("-")
            last = self._last.get(workspace)
            stale = last is not None and last[0] == now and int(times or 0) < last[1]
            found[workspace] = "" if stale else now
        return found

    async def state(self, workspace: str) -> tuple[str, str]:
        """The counters' generation and the epoch: "" where there is none."""
        return await self._state(workspace)

    async def move_epoch(self, workspace: str, expected: str, afterwards: str) -> tuple[str, str]:
        """Begin an epoch (`-<number>`: what is held is being gathered) or open it (`<number>`), if it is the one
        expected; returns what `state` does."""
        return await self._state(workspace, expected, afterwards)

    async def _state(self, workspace: str, *args: str) -> tuple[str, str]:
        names = [keys.prefix(workspace) + "gen", *_places(workspace)]
        [(generation, epoch)] = raised(await self._server.run(_EPOCH, [(names, args)]))
        return generation.decode(), epoch.decode()

    async def release(self, workspace: str, calls: Sequence[str]) -> int:
        """Let go what calls hold whose records are counted; returns how many held something."""
        [released] = raised(await self._server.run(_RELEASE, [(_places(workspace), list(calls))]))
        return int(released)

    async def counted(self, workspace: str, event_ids: Iterable[str]) -> bool:
        """Whether all of these records of a workspace are counted here."""
        last: dict[str, int] = {}
        for event_id in event_ids:
            journal_id = event_id.rpartition(":")[0]
            last[journal_id] = max(last.get(journal_id, 0), seq_of(event_id))
        if not last:
            return True
        cursors = await self._server.command("HMGET", keys.prefix(workspace) + "cursor", *last)
        return all(int(cursor or 0) >= seq for cursor, seq in zip(cursors, last.values(), strict=True))

    async def want_back(self, workspace: str) -> None:
        """Have workers give back their slices of this workspace's budgets: a call needs what they hold."""
        await self._server.command("HINCRBY", keys.prefix(workspace) + keys.HELD, keys.WANTED_FIELD, 1)

    async def wanted_back(self, workspaces: Sequence[str]) -> dict[str, str]:
        """How often that was said, of each of these workspaces."""
        asked = [("HGET", keys.prefix(workspace) + keys.HELD, keys.WANTED_FIELD) for workspace in workspaces]
        replies = await self._server.commands(asked) if asked else []
        return {name: (reply or b"").decode() for name, reply in zip(workspaces, replies, strict=True)}

    async def held_before(self, workspace: str, before_s: int, limit: int) -> list[str]:
        """Calls that reserved before this moment (s since epoch), oldest first."""
        found = await self._server.command("ZRANGEBYSCORE", _places(workspace)[2], "-inf", before_s, "LIMIT", 0, limit)
        return [call.decode() for call in found]

    async def close(self) -> None:
        """Close the server's connections, where this object is its only user."""
        await self._server.close()

    async def spent(self, allowances: Sequence[Allowance], now_us: int) -> list[Spent]:
        """How each of these stands."""
        commands: list[tuple[str | int | bytes, ...]] = []
        for allowance in allowances:
            prefix = keys.prefix(allowance.budget.workspace)
            commands += [("HMGET", key, *AMOUNTS) for key in sum_keys(allowance, now_us)]
            commands.append(("HGET", prefix + keys.HELD, _field(allowance)))
        replies = iter(await self._server.commands(commands) if commands else [])
        found = []
        for allowance in allowances:
            amounts = [next(replies) for _ in sum_keys(allowance, now_us)]
            spent, charged = (sum(int(each[at] or 0) for each in amounts) for at in (0, 1))
            found.append(Spent(spent, int(next(replies) or 0), charged))
        return found

    async def asked(self) -> set[str]:
        """Workspaces whose calls could not be decided at some time."""
        return {name.decode() for name in await self._server.command("SMEMBERS", keys.ASKED)}

    async def workspaces(self) -> set[str]:
        """Every workspace with counters."""
        return {name.decode() for name in await self._server.command("SMEMBERS", keys.WORKSPACES)}

    async def tallies(self, workspaces: Sequence[str]) -> dict[str, set[str]]:
        """What is added up for budgets of each of these workspaces now (Tally.text)."""
        asked = [("SMEMBERS", keys.prefix(workspace) + keys.TALLIES) for workspace in workspaces]
        replies = await self._server.commands(asked) if asked else []
        return {
            workspace: {text.decode() for text in reply} for workspace, reply in zip(workspaces, replies, strict=True)
        }


def sum_keys(allowance: Allowance, now_us: int) -> list[str]:
    """The sums an allowance is measured by, of its period now."""
    tally, prefix = allowance.budget.tally, keys.prefix(allowance.budget.workspace)
    return [prefix + keys.tally(tally, at, allowance.values) for at in tally.when.starts_s(now_us // 1_000_000)]


def _field(allowance: Allowance) -> str:
    return keys.held_field(allowance.budget.id, allowance.own)


def _places(workspace: str) -> list[str]:
    prefix = keys.prefix(workspace)
    return [prefix + keys.HELD, prefix + keys.RESERVED, prefix + keys.RESERVED_AT]
