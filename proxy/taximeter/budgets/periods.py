"""Periods of budgets: where they begin and end in any time zone, and rolling windows cut into buckets. Pure.

What is used is summed by bucket: a period is one, a rolling window as many as it takes to cover it. A bucket is named
by the second in which it begins, so no change of clocks makes one name of two hours.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from taximeter.core.errors import BadRequest

FIXED = ("minute", "hour", "day", "week", "month", "total")
"""Calendar periods; a week begins on Monday."""
UNITS_S = {"m": 60, "h": 3_600, "d": 86_400}
"""Of a rolling window's length."""
SHORTEST_S, LONGEST_S = 60, 366 * 86_400
"""Of a rolling window: as long as single records are kept by default, and longer."""
AHEAD_S = 2
"""So far another node's clock may be ahead, and so long a question may be on its way to Redis."""
PARTS = 24
"""A rolling window is cut into at least so many buckets: so much of its length it may be too strict by."""
GRACE_S = 3_600
"""So long a bucket is kept after its period: nodes' clocks differ, and records come late."""

_GRAINS_S = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800,
    345_600, 604_800, 1_209_600,
)  # fmt: skip
"""No step is more than two and a half times the one before, so no window has more than 63 buckets."""
_QUARTER_S = 900
"""Clocks change, and zones differ from UTC, by whole quarters of an hour: a calendar period begins on one."""

_is_rolling = re.compile(r"rolling ([1-9][0-9]{0,5})([mhd])").fullmatch


class Period(msgspec.Struct, frozen=True):
    """A period as written (`month`, `rolling 30d`) in an IANA time zone."""

    text: str
    tz: str = "UTC"
    window_s: int = 0
    """Of a rolling one: its length, else 0."""
    grain_s: int = 0
    """And that of its buckets."""

    @property
    def endless(self) -> bool:
        return self.text == "total"

    @property
    def label(self) -> str:
        """`month`, `month@Europe/Berlin`, `rolling30d`: as part of a key."""
        return self.text.replace(" ", "") if self.tz == "UTC" else f"{self.text}@{self.tz}"

    def start_s(self, at_s: int) -> int:
        """The bucket of a moment, both in seconds since epoch; 0 for `total`."""
        if self.grain_s:
            return at_s // self.grain_s * self.grain_s
        if self.text == "total":
            return 0
        if self.text == "minute":
            return at_s // 60 * 60
        return _start_s(self.text, self.tz, at_s // _QUARTER_S)

    def end_s(self, start_s: int) -> int | None:
        """When (s since epoch) the bucket that begins then is over; None: never."""
        if self.grain_s:
            return start_s + self.grain_s
        if self.text == "total":
            return None
        return start_s + 60 if self.text == "minute" else _end_s(self.text, self.tz, start_s)

    def starts_s(self, now_s: int) -> list[int]:
        """The buckets that make up the period now, oldest first.

        A rolling window's include the one its beginning falls into, so it counts up to a bucket too much and never
        too little, and the next one: another node's clock may be ahead. For the same reason the last moments of a
        calendar period include the next period, in which a call may end that is decided now.
        """
        if not self.grain_s:
            start_s = self.start_s(now_s)
            end_s = self.end_s(start_s)
            return [start_s] if end_s is None or now_s + AHEAD_S < end_s else [start_s, end_s]
        first = self.start_s(now_s - self.window_s)
        return list(range(first, self.start_s(now_s) + 2 * self.grain_s, self.grain_s))

    def kept_s(self, now_s: int) -> list[int]:
        """The buckets that may still be asked for, oldest first: those of the period now, and just before."""
        starts = self.starts_s(now_s)
        if self.text == "total" or self.grain_s:
            return starts
        while (before := self.start_s(starts[0] - 1)) < starts[0] and starts[0] > now_s - GRACE_S:
            starts.insert(0, before)
        return starts

    def expires_s(self, start_s: int) -> int | None:
        """When (s since epoch) nobody asks for a bucket any more; None: never."""
        end_s = self.end_s(start_s)
        return None if end_s is None else end_s + self.window_s + GRACE_S

    def resets_at_s(self, now_s: int) -> int | None:
        """When (s since epoch) the next period begins, or a rolling window's oldest bucket leaves it; None: never."""
        if self.grain_s:
            return self.start_s(now_s - self.window_s) + self.grain_s + self.window_s
        return self.end_s(self.start_s(now_s))

    def name(self, now_s: int) -> str:
        """The period now, for people: `total`, `month:2026-11`, `week:2026-W48`, `day:2026-11-22`,
        `hour:2026-11-22T09`, `rolling 30d`."""
        if self.window_s or self.text == "total":
            return self.text
        at = datetime.fromtimestamp(now_s, _zone(self.tz))
        form = {"month": "%Y-%m", "week": "%G-W%V", "day": "%Y-%m-%d", "hour": "%Y-%m-%dT%H"}
        return f"{self.text}:{at.strftime(form.get(self.text, '%Y-%m-%dT%H:%M'))}"


@lru_cache(maxsize=4_096)
def period_of(text: str, tz: str = "UTC") -> Period:
    """The period that is written so. Raises BadRequest."""
    try:
        _zone(tz)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadRequest(f"{tz[:64]!r} is no IANA time zone such as Europe/Berlin.", param="tz") from None
    if text in FIXED:
        return Period(text, tz)
    found = _is_rolling(text)
    if found is None:
        raise BadRequest(
            f"A period is one of {', '.join(FIXED)}, or a rolling window such as 'rolling 30d', 'rolling 24h' or "
            f"'rolling 10m', not {text[:64]!r}.",
            param="period",
        )
    window_s = int(found[1]) * UNITS_S[found[2]]
    if not SHORTEST_S <= window_s <= LONGEST_S:
        raise BadRequest("A rolling window is one minute to 366 days long.", param="period")
    if tz != "UTC":
        raise BadRequest("A rolling window has no time zone.", param="tz")
    return Period(text, tz, window_s, max(grain for grain in _GRAINS_S if grain * PARTS <= window_s))


@lru_cache(maxsize=256)
def _zone(tz: str) -> tzinfo:
    return UTC if tz == "UTC" else ZoneInfo(tz)


@lru_cache(maxsize=16_384)
def _start_s(text: str, tz: str, quarter: int) -> int:
    """Where the calendar period begins in which a quarter of an hour (since epoch) is."""
    zone, at_s = _zone(tz), quarter * _QUARTER_S
    if text == "hour":
        offset = _offset_s(zone, at_s)
        start_s = (at_s + offset) // 3_600 * 3_600 - offset
        while _offset_s(zone, start_s) != offset:  # clocks changed in this hour: by half of one, on Lord Howe Island
            start_s += _QUARTER_S
        return start_s
    return _midnight_s(zone, _first_day(text, datetime.fromtimestamp(at_s, zone).date()))


@lru_cache(maxsize=16_384)
def _end_s(text: str, tz: str, start_s: int) -> int:
    zone = _zone(tz)
    if text == "hour":
        offset = _offset_s(zone, start_s)
        end_s = (start_s + offset) // 3_600 * 3_600 + 3_600 - offset
        while _offset_s(zone, end_s - 1) != offset:
            end_s -= _QUARTER_S
        return end_s
    day = datetime.fromtimestamp(start_s, zone).date()
    length = {"day": 1, "week": 7, "month": 32}[text]
    return _midnight_s(zone, _first_day(text, _first_day(text, day) + timedelta(days=length)))


def _first_day(text: str, day: date) -> date:
    if text == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if text == "week" else day


def _midnight_s(zone: tzinfo, day: date) -> int:
    """The first moment of a local day; where clocks skip it, the moment they do."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())


def _offset_s(zone: tzinfo, at_s: int) -> int:
    offset = datetime.fromtimestamp(at_s, zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())
