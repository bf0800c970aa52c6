"""Breakers: what is stored of one that tripped, which calls it stops, and when it trips. Pure.

Shared by the gateway (refuses) and the control process (measures, trips, arms again).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from typing import Literal

import msgspec

from taximeter.core.errors import BreakerOpen
from taximeter.core.tags import is_valid

Scope = Literal["workspace", "key", "track"]
Unit = Literal["usd", "tokens"]

FEWEST_CELLS = 3
"""So many hours in which it used anything make a usual."""
PERCENTILE = 90
"""Of these hours, so many per cent used no more than the usual: one bad hour does not raise it."""
MOST = 2**53
"""Largest amount a minute that a setting may say, in nano-USD or tokens."""
KEPT = 1_000
"""Most trips that are over and still listed."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_is_id = re.compile(r"trip_[0-9a-f]{12}").fullmatch


class Place(msgspec.Struct, frozen=True):
    """What a breaker is about: a workspace, or a key or a track of it."""

    workspace: str
    key_id: str = ""
    track: str = ""

    @property
    def shown(self) -> str:
        """`track 'run-7' of workspace 'acme'`."""
        part = f"key {self.key_id!r} of " if self.key_id else f"track {self.track!r} of " if self.track else ""
        return f"{part}workspace {self.workspace!r}"


class Trip(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A breaker that tripped: until when the calls of a place are refused, and why. One entry a breaker and place."""

    id: str
    breaker: str
    """Its name in the settings."""
    workspace: str
    key_id: str = ""
    track: str = ""
    """At most one of key and track; neither: the whole workspace."""
    unit: Unit = "usd"
    rate: int
    """What it used a minute, in nano-USD or tokens, when it tripped."""
    usual: int | None = None
    """What it usually uses a minute; None: it is too new, and went beyond the ceiling."""
    limit: int
    """From so much a minute on it trips."""
    created_at: int
    """When it tripped, µs since epoch, as `until`."""
    until: int
    """It arms itself again then."""
    ended_at: int = 0
    """0: its calls are refused (up to `until`)."""

    @property
    def place(self) -> Place:
        return Place(self.workspace, self.key_id, self.track)


def trip_id(breaker: str, place: Place) -> str:
    """The id of a breaker's trips at a place: the same on every node, each time."""
    named = "\n".join((breaker, place.workspace, place.key_id, place.track))
    return f"trip_{sha256(named.encode()).hexdigest()[:12]}"


def is_stored(trip: Trip) -> bool:
    """Whether this is a trip another node may have made."""
    tags = [trip.workspace, *filter(None, (trip.key_id, trip.track))]
    if _is_id(trip.id) is None or not all(map(is_valid, tags)) or (trip.key_id and trip.track):
        return False
    return trip.id == trip_id(trip.breaker, trip.place) and 0 <= trip.created_at <= trip.until


def merge(*copies: Iterable[Trip]) -> list[Trip]:
    """Several copies as one, oldest first: of each id the last trip, over as soon as any copy says so.

    Idempotent, commutative and associative, so nodes may exchange copies in any order.
    """
    merged: dict[str, Trip] = {}
    for copy in copies:
        for one in copy:
            known = merged.get(one.id)
            if known is None or known.created_at < one.created_at:
                merged[one.id] = one
            elif known.created_at == one.created_at:
                ends = [at for at in (known.ended_at, one.ended_at) if at]
                merged[one.id] = msgspec.structs.replace(max(known, one, key=_order), ended_at=min(ends, default=0))
    found = sorted(merged.values(), key=lambda one: (one.created_at, one.id))
    over = [one for one in found if one.ended_at]
    dropped = {one.id for one in over[: max(0, len(over) - KEPT)]}
    return [one for one in found if one.id not in dropped]


def _order(trip: Trip) -> tuple[int, int, int]:
    return trip.until, trip.rate, trip.limit


class Trips:
    """The trips in force, by workspace: a call of a workspace without any costs nothing."""

    def __init__(self, trips: Iterable[Trip] = ()) -> None:
        self.workspaces: dict[str, tuple[Trip, ...]] = {}
        for trip in trips:
            if not trip.ended_at:
                self.workspaces[trip.workspace] = (*self.workspaces.get(trip.workspace, ()), trip)

    def of(self, workspace: str, key_id: str | None, track: str | None, now_us: int) -> Trip | None:
        """The one that stops a call now, the longest where several do."""
        found = [
            trip
            for trip in self.workspaces.get(workspace, ())
            if trip.key_id in ("", key_id) and trip.track in ("", track) and now_us < trip.until
        ]
        return max(found, key=lambda trip: trip.until, default=None)


def refusal(trip: Trip, now_us: int) -> BreakerOpen:
    """What a stopped call is answered."""
    name = trip.place.shown
    return BreakerOpen(
        f"{name[0].upper()}{name[1:]} is stopped until {clock(trip.until)}: it used {_why(trip)} (breaker "
        f"{trip.breaker!r}). An operator can let it go on before that: taximeter breaker reset {trip.id}.",
        retry_after_s=max(1, -(-(trip.until - now_us) // 1_000_000)),
    )


def _why(trip: Trip) -> str:
    rate = f"{amount(trip.rate, trip.unit)} a minute"
    if trip.usual is None:
        return f"{rate}, more than the ceiling of {amount(trip.limit, trip.unit)}"
    times = f"{trip.rate / trip.usual:,.0f} times " if trip.usual else "more than "
    return f"{rate}, {times}its usual {amount(trip.usual, trip.unit)}"


def why(trip: Trip) -> str:
    """`$3.2 a minute, 41 times its usual $0.08`."""
    return _why(trip)


def written(value: str | float, unit: Unit) -> int | None:
    """An amount as the settings give it, in nano-USD or tokens; None: "". Raises ValueError on what is none."""
    if value == "":
        return None
    try:
        scaled = Decimal(str(value)) * (10**9 if unit == "usd" else 1)
    except InvalidOperation:
        scaled = Decimal("nan")
    if not (scaled.is_finite() and 0 < scaled <= MOST and scaled % 1 == 0):
        raise ValueError(
            "it must be more than 0: USD with at most nine decimals, or whole tokens, at most 2^53 of either"
        )
    return int(scaled)


def amount(value: int, unit: Unit) -> str:
    """nano-USD or tokens as people write them."""
    if unit == "tokens":
        return f"{value:,} tokens"
    digits = 4 if value >= 10**7 else 9
    return "$" + f"{round(value / 10**9, digits):,.{digits}f}".rstrip("0").rstrip(".")


def clock(at_us: int) -> str:
    """A moment to the second, UTC."""
    return f"{_EPOCH + timedelta(microseconds=at_us):%Y-%m-%d %H:%M:%S} UTC"


def usual_of(hours: Sequence[int]) -> int | None:
    """What is usual a minute, by what was used in each hour in which anything was; None: too few of them.

    The hour that PERCENTILE of a hundred do not exceed, a sixtieth of it.
    """
    used = sorted(each for each in hours if each > 0)
    if len(used) < FEWEST_CELLS:
        return None
    return used[min(len(used) - 1, len(used) * PERCENTILE // 100)] // 60


def limit_of(usual: int | None, *, times: float, floor: int, ceiling: int | None) -> int | None:
    """From how much a minute on it trips; None: never, as nothing is known of it and there is no ceiling."""
    if usual is None:
        return ceiling
    limit = max(floor, int(usual * times))
    return limit if ceiling is None else min(limit, ceiling)
