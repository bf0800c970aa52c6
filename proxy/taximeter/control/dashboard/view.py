"""What a page shows and how its links keep it: the period, the filters, the grouping. Pure; the clock is passed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

import msgspec

from taximeter.control.api.parameters import UsageParameters, written
from taximeter.core.bounds import FOREVER_US
from taximeter.core.errors import BadRequest
from taximeter.core.record import Outcome
from taximeter.core.times import local, shown
from taximeter.core.totals import FINE
from taximeter.sinks.history.windows import boundaries
from taximeter.sinks.query import Filters, Window

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US

PERIODS: dict[str, tuple[str, int]] = {
    "today": ("Today", 1),
    "7d": ("7 days", 7),
    "30d": ("30 days", 30),
    "90d": ("90 days", 90),
    "365d": ("12 months", 365),
}
"""Name -> what it is called, and how many local days it has, today included."""
USUAL = "30d"

NAMES = (
    "workspace",
    "provider",
    "model",
    "task",
    "operation",
    "track",
    "document",
    "key_id",
    "end_user",
    "service_tier",
)
"""Filters a page may carry, in the order they are shown."""
ENDS = ("outcome", "error_code")
"""Further ones of single records."""
KEPT = ("period", "from", "to", "tz", "by", "sort", "refresh")
"""What else the links of a page carry on."""
FAILED = tuple(each.value for each in Outcome if each not in (*FINE, Outcome.REFUSED))
"""Outcomes that are errors. What we refused is not: there nothing failed."""
REFRESH_S = (10, 30, 60, 300)
"""How often a page may ask for itself anew."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A page's query."""

    filters: Filters
    """With both ends of the range."""
    period: str | None
    """One of PERIODS; None: the range was given."""
    tz: ZoneInfo
    now_us: int
    params: dict[str, list[str]]
    """What the page's links carry on."""
    fixed: tuple[str, ...] = ()
    """Filters that are what the page is about: they cannot be taken away."""

    @property
    def from_us(self) -> int:
        return self.filters.from_us or 0

    @property
    def to_us(self) -> int:
        return FOREVER_US if self.filters.to_us is None else self.filters.to_us

    @property
    def window(self) -> Window:
        """Hours up to two days, days up to half a year, months beyond."""
        span_us = self.to_us - self.from_us
        return "hour" if span_us <= 2 * DAY_US + HOUR_US else "day" if span_us <= 190 * DAY_US else "month"

    def marks(self) -> list[int]:
        """Starts of the windows, and the end of the last."""
        return boundaries(self.from_us, self.to_us, self.window, self.tz.key)

    @property
    def title(self) -> str:
        """The range in words."""
        if self.period is not None:
            return PERIODS[self.period][0]
        first, last = local(self.from_us, self.tz), local(self.to_us - 1, self.tz)
        return day_name(first) if first.date() == last.date() else f"{day_name(first)} – {day_name(last)}"

    def url(self, path: str, /, **changes: str | Sequence[str] | None) -> str:
        """A link that keeps this query but for what is said; None takes a parameter away."""
        params: dict[str, Any] = {**self.params}
        for name, value in changes.items():
            params.pop(name.rstrip("_"), None)
            if value is not None:
                params[name.rstrip("_")] = value
        query = urlencode(_written(params), doseq=True)
        return f"{path}?{query}" if query else path

    @property
    def hidden(self) -> dict[str, list[str]]:
        """The query as the hidden fields of a form carry it on."""
        return _written(self.params)

    def within(self, start_us: int, end_us: int, **changes: str | Sequence[str] | None) -> str:
        """The link to the records of a range that a figure is made of."""
        return self.records(**{"period": None, "from_": shown(start_us), "to": shown(end_us), **changes})

    def records(self, **changes: str | Sequence[str] | None) -> str:
        """The link to the records a figure is made of."""
        return self.url("/dashboard/records", **{"by": None, "sort": None, **changes})

    @property
    def refresh_s(self) -> int:
        """How often the page asks for itself anew; 0: never."""
        return int(self.params.get("refresh", ["0"])[0])

    def still(self) -> str:
        """The link to this page of this very range, which tomorrow is the same."""
        return self.url("", period=None, refresh=None, from_=shown(self.from_us), to=shown(self.to_us))

    def chips(self) -> list[tuple[str, str, str]]:
        """(filter, value, link without it) of the filters in force."""
        return [
            (
                name,
                value or "(none)",
                self.url("", page=None, **{name: [each for each in self.params[name] if each != value]}) or "?",
            )
            for name in (*NAMES, *ENDS)
            if name not in self.fixed
            for value in self.params.get(name, ())
        ]


def view(asked: UsageParameters, period: str | None, now_us: int, given: Mapping[str, Sequence[str]]) -> View:
    """The query of a page from its parameters. Raises BadRequest on an unknown period.

    A given range wins over a period; without either it is the last 30 days. Periods are whole local days, so that
    today's end is the coming midnight.
    """
    place = ZoneInfo(asked.tz)
    filters = asked.filters
    if period is not None and period not in PERIODS:
        raise BadRequest(f"No period {period[:80]!r}. Allowed: {', '.join(PERIODS)}.", param="period")
    if filters.from_us is None and filters.to_us is None:
        period = period or USUAL
        start_us, end_us = last_days(now_us, place, PERIODS[period][1])
    else:
        period = None
        end_us = _after(now_us, place) if filters.to_us is None else filters.to_us
        start_us = max(0, end_us - 30 * DAY_US) if filters.from_us is None else filters.from_us
    return View(
        filters=msgspec.structs.replace(filters, from_us=start_us, to_us=end_us),
        period=period,
        tz=place,
        now_us=now_us,
        params={name: list(values) for name, values in given.items()},
    )


def _written(params: Mapping[str, str | Sequence[str]]) -> dict[str, list[str]]:
    """Each value as a query has it: what is a filter with its commas told from those between values."""
    listed = {name: [value] if isinstance(value, str) else value for name, value in params.items()}
    return {
        name: [written(each) for each in values] if name in (*NAMES, *ENDS) else [*values]
        for name, values in listed.items()
    }


def last_days(now_us: int, place: ZoneInfo, days: int) -> tuple[int, int]:
    """From the local midnight `days` - 1 days ago to the coming one."""
    today = local(now_us, place).replace(hour=0, minute=0, second=0, microsecond=0)
    return _us(today - timedelta(days=days - 1)), _us(today + timedelta(days=1))


def same_time_before(now_us: int, place: ZoneInfo, days: int = 1) -> int:
    """The same wall-clock time `days` days ago."""
    return _us(local(now_us, place) - timedelta(days=days))


def path(*parts: str) -> str:
    """A dashboard path of names that may hold anything."""
    return "/dashboard/" + "/".join(quote(part, safe="@:") for part in parts)


def day_name(day: datetime) -> str:
    """22 Nov 2026"""
    return f"{day.day} {day:%b %Y}"


def window_name(start_us: int, window: Window, place: ZoneInfo) -> str:
    """What a chart calls a window: `14:00`, `22 Nov`, `Nov 2026`."""
    start = local(start_us, place)
    return {"hour": f"{start:%a %H:%M}", "day": f"{start.day} {start:%b}", "month": f"{start:%b %Y}"}.get(
        window, f"{start:%H:%M}"
    )


def label(start_us: int, window: Window, place: ZoneInfo) -> str:
    """What the axis calls it: of hours only midnight has its day's name."""
    start = local(start_us, place)
    if window != "hour":
        return window_name(start_us, window, place)
    return f"{start:%a}" if start.hour == 0 else f"{start:%H:%M}"


def _after(now_us: int, place: ZoneInfo) -> int:
    return last_days(now_us, place, 1)[1]


def _us(moment: datetime) -> int:
    """µs since epoch, exact: `datetime.timestamp` is a float."""
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond
