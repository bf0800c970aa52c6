"""The control process's part in breakers: measuring, tripping, arming again, telling. Every node's does it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec

from taximeter.breaker import rule
from taximeter.breaker.pace import Pace
from taximeter.breaker.rule import Place, Trip
from taximeter.breaker.store import TripStore
from taximeter.config.settings import BreakerSettings
from taximeter.core.errors import TaximeterError
from taximeter.core.globs import glob
from taximeter.sinks.query import Filters, Group, Window
from taximeter.sinks.redis.client import ERRORS, RedisServer

log = logging.getLogger("taximeter.breaker")

PACES = "tm:pace"
"""Redis hash: node -> what it measures now (`_Told`)."""
STALE_US = 5_000_000
"""What a node told longer ago is not added: it is gone."""
TOLD_PART = 32
"""A node tells of places that use more than this part of a floor: of fewer nodes than that, none is missed."""
MOST_TOLD = 500
"""Of one breaker, the fastest."""
USUAL_US = 600_000_000
"""For how long a usual is taken for right."""
LOOKED_UP = 20
"""Most usuals asked of history in one look; the rest are looked up by the next."""
REMEMBERED = 10_000
_HOUR_US = 3_600_000_000


class Sums(Protocol):
    """History's part."""

    async def usage(
        self, filters: Filters, group_by: Sequence[str] = (), window: Window | None = None, tz: str = "UTC"
    ) -> list[Group]: ...


class _Told(msgspec.Struct, kw_only=True):
    """What a node measures, for the others."""

    at: int
    rates: dict[str, list[tuple[str, str, str, int]]]
    """Breaker -> (workspace, key, track, a minute)."""


class Breaker:
    """One of the settings, its amounts as whole numbers."""

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings = settings
        self.concerns = glob(settings.workspace)
        self.floor = rule.written(settings.floor, settings.unit) or 0
        self.ceiling = rule.written(settings.ceiling, settings.unit)
        self.pace = Pace(settings.scope, settings.unit, settings.window_s)

    def of_note(self, rate: int) -> bool:
        """Whether so much a minute may be too much, whatever is usual."""
        return rate > self.floor or (self.ceiling is not None and rate > self.ceiling)


class BreakerService:
    """What the control process does with breakers."""

    def __init__(
        self,
        breakers: Sequence[BreakerSettings],
        store: TripStore,
        history: Sums,
        *,
        server: RedisServer | None,
        node: str,
        share: Callable[[], Awaitable[None]],
        tell: Callable[[Trip], Awaitable[None]],
        now_us: Callable[[], int],
        turn: Callable[[], bool] = lambda: True,
    ) -> None:
        """`server`: the Redis that nodes share, None: there are no other nodes; `share` brings this node's trips and
        the others' together; `tell` sends word of one that tripped, or is armed again; `turn`: whether this node adds
        up now what all measure (redis.nodes.Fleet), as what one trips, all know."""
        self.breakers = [Breaker(each) for each in breakers]
        self.store = store
        self._history = history
        self._server = server
        self._node = node
        self._share = share
        self._tell = tell
        self._now_us = now_us
        self._turn = turn
        self._usual: dict[tuple[str, Place], tuple[int, int | None]] = {}
        self.tripped: Counter[str] = Counter()
        """Breaker -> how often it tripped here since this process began."""

    def use(self, breakers: Sequence[BreakerSettings]) -> None:
        """Go by other settings from now on. A breaker that is as it was goes on measuring."""
        there = {each.settings.name: each for each in self.breakers}
        wanted = [(each, there.get(each.name)) for each in breakers]
        self.breakers = [had if had is not None and had.settings == each else Breaker(each) for each, had in wanted]
        kept = {each.settings.name for each in self.breakers if each in there.values()}
        self._usual = {key: usual for key, usual in self._usual.items() if key[0] in kept}

    def open(self) -> dict[str, int]:
        """Breaker -> how many places it stops now."""
        found = {each.settings.name: 0 for each in self.breakers}
        for trip in self.store.open():
            found[trip.breaker] = found.get(trip.breaker, 0) + 1
        return found

    async def reset(self, ids: Sequence[str]) -> list[Trip]:
        """Let these go on. Raises NotFound, DataDirError."""
        before = {trip.id for trip in self.store.open()}
        ended = await asyncio.to_thread(self.store.reset, ids, self._now_us())
        await self._changed([trip for trip in ended if trip.id in before])
        return ended

    async def look(self) -> None:
        """Arm what has cooled down, and trip what is too fast. Raises DataDirError."""
        now_us = self._now_us()
        cooled = [trip.id for trip in self.store.open() if trip.until <= now_us]
        if cooled:
            await self._changed(await asyncio.to_thread(self.store.end, cooled, now_us))
        own = {each.settings.name: each.pace.rates(now_us) for each in self.breakers}
        others = await self._others(own, now_us)
        asked = 0
        for breaker in self.breakers:
            name = breaker.settings.name
            rates = Counter(own[name])
            rates.update(others.get(name, {}))
            for place, rate in rates.items():
                if not breaker.of_note(rate) or not breaker.concerns(place.workspace):
                    continue
                if not self._armed(breaker, place, now_us):
                    continue
                known = self._usual.get((name, place))
                if known is None or known[0] < now_us:
                    if asked >= LOOKED_UP:
                        continue
                    asked += 1
                await self._judge(breaker, place, rate, now_us)

    def _armed(self, breaker: Breaker, place: Place, now_us: int) -> bool:
        """Whether a place may be stopped: not while it is, nor by what it used before it was let go on."""
        wanted = rule.trip_id(breaker.settings.name, place)
        last = next((trip for trip in self.store.stored() if trip.id == wanted), None)
        return last is None or (last.ended_at > 0 and last.ended_at + breaker.pace.window_us <= now_us)

    async def _judge(self, breaker: Breaker, place: Place, rate: int, now_us: int) -> None:
        settings = breaker.settings
        usual = await self._usual_of(breaker, place, now_us)
        limit = rule.limit_of(usual, times=settings.times, floor=breaker.floor, ceiling=breaker.ceiling)
        if limit is None or rate <= limit or not await self._ours(settings.name, place):
            return
        trip = Trip(
            id=rule.trip_id(settings.name, place),
            breaker=settings.name,
            workspace=place.workspace,
            key_id=place.key_id,
            track=place.track,
            unit=settings.unit,
            rate=rate,
            usual=usual,
            limit=limit,
            created_at=now_us,
            until=now_us + int(settings.cooldown_s * 1_000_000),
        )
        await asyncio.to_thread(self.store.absorb, [trip])
        self.tripped[settings.name] += 1
        await self._changed([trip])

    async def _ours(self, name: str, place: Place) -> bool:
        """Of several nodes that see the same, one trips; where Redis does not answer, each does for itself."""
        if self._server is None:
            return True
        with contextlib.suppress(*ERRORS):
            key = f"{PACES}:{rule.trip_id(name, place)}"
            return bool(await self._server.command("SET", key, self._node, "NX", "EX", 5))
        return True

    async def _changed(self, trips: Sequence[Trip]) -> None:
        for trip in trips:
            if trip.ended_at:
                log.warning("breaker %s: %s may call again", trip.breaker, trip.place.shown)
            else:
                log.error(
                    "breaker %s: %s is stopped until %s: it used %s",
                    trip.breaker, trip.place.shown, rule.clock(trip.until), rule.why(trip),
                )  # fmt: skip
        if not trips:
            return
        with contextlib.suppress(TaximeterError, *ERRORS):  # upkeep does the same every two seconds, and says so
            await self._share()
        for trip in trips:
            await self._tell(trip)

    async def _usual_of(self, breaker: Breaker, place: Place, now_us: int) -> int | None:
        """What is usual a minute for a place; of a new one, for others like it in its workspace; None: unknown."""
        key = breaker.settings.name, place
        known = self._usual.get(key)
        if known is not None and known[0] >= now_us:
            return known[1]
        until_us = now_us // _HOUR_US * _HOUR_US
        from_us = until_us - breaker.settings.usual_days * 24 * _HOUR_US
        span = Filters(from_us=from_us, to_us=until_us, workspace=place.workspace)
        try:
            own = msgspec.structs.replace(span, key_id=place.key_id or None, track=place.track or None)
            usual = rule.usual_of(self._hours(breaker, await self._history.usage(own, window="hour")))
            if usual is None and (place.key_id or place.track):
                by = "key_id" if place.key_id else "track"
                groups = await self._history.usage(span, (by,), window="hour")
                alike = [group for group in groups if group.key[by] not in (None, place.key_id or place.track)]
                usual = rule.usual_of(self._hours(breaker, alike))
        except TaximeterError as error:  # history does not answer: the ceiling holds all the same
            log.warning("breaker %s: what is usual for %s is not known: %s", breaker.settings.name, place.shown, error)
            return None
        if len(self._usual) >= REMEMBERED:
            self._usual.clear()
        self._usual[key] = now_us + USUAL_US, usual
        return usual

    def _hours(self, breaker: Breaker, groups: Sequence[Group]) -> list[int]:
        name = "cost_nusd" if breaker.settings.unit == "usd" else "total_tokens"
        return [int(getattr(group.totals, name) or 0) for group in groups]

    async def _others(self, own: dict[str, dict[Place, int]], now_us: int) -> dict[str, dict[Place, int]]:
        """What the other nodes measure; they are told what this one does. Nothing where Redis does not answer."""
        if self._server is None:
            return {}
        told = _Told(at=now_us, rates={each.settings.name: self._fast(each, own) for each in self.breakers})
        found: dict[str, dict[Place, int]] = {}
        asked: list[tuple[str | bytes, ...]] = [("HSET", PACES, self._node, _encode(told)), ("HGETALL", PACES)]
        try:
            _, *answer = await self._server.commands(asked if self._turn() else asked[:1])
        except ERRORS:
            return {}
        entries: Any = answer[0] if answer else {}
        for node, entry in entries.items():
            if node.decode() == self._node:
                continue
            with contextlib.suppress(ValueError):
                its = _decode(entry)
                if abs(now_us - its.at) <= STALE_US:
                    for name, rates in its.rates.items():
                        places = found.setdefault(name, {})
                        for workspace, key_id, track, rate in rates:
                            place = Place(workspace, key_id, track)
                            places[place] = places.get(place, 0) + rate
        return found

    def _fast(self, breaker: Breaker, own: dict[str, dict[Place, int]]) -> list[tuple[str, str, str, int]]:
        least = min(breaker.floor, breaker.ceiling or breaker.floor) // TOLD_PART
        rates = sorted(own[breaker.settings.name].items(), key=lambda each: -each[1])
        return [
            (place.workspace, place.key_id, place.track, rate) for place, rate in rates[:MOST_TOLD] if rate >= least
        ]


_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(_Told).decode
