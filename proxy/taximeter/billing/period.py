"""Which statement: of whom, and of which period, a month or any stretch of quarters of an hour. Pure."""

from __future__ import annotations

import re

import msgspec

from taximeter.core.errors import BadRequest
from taximeter.core.times import moment_us, zone

QUARTER_US = 900_000_000

BY = ("model", "task")
"""What lines are grouped by where nothing is said."""

_is_month = re.compile(r"(\d{4})-(0[1-9]|1[0-2])").fullmatch


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """Half-open, µs since epoch."""

    from_us: int
    to_us: int
    tz: str = "UTC"
    """IANA time zone it was given in."""

    def overlaps(self, other: Period) -> bool:
        return self.from_us < other.to_us and other.from_us < self.to_us


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Which statement."""

    workspace: str
    period: Period
    by: tuple[str, ...] = BY
    """Of query.GROUPS, without `workspace`."""
    currency: str = "USD"
    chunks: int = 0
    """How many chunks were indexed in the period, for plans that have a price for them."""


def period(month: str | None, from_: str | None, to: str | None, tz: str) -> Period:
    """`month` ("2026-11"), or `from_` and `to`, in a time zone. Raises BadRequest."""
    place = zone(tz)
    if (month is None) == (from_ is None and to is None):
        raise BadRequest("Say which period: a month, or 'from' and 'to'.", param="month")
    if month is not None:
        found = _is_month(month)
        if found is None:
            raise BadRequest(f"month: {month[:80]!r} is none. Give one such as 2026-11.", param="month")
        year, number = int(found[1]), int(found[2])
        after = (year + number // 12, number % 12 + 1)
        from_, to = (f"{each[0]:04}-{each[1]:02}-01" for each in ((year, number), after))
    given = {name: moment_us(text, place, name) for name, text in (("from", from_), ("to", to)) if text is not None}
    if len(given) < 2:
        raise BadRequest("A period has both ends: 'from' and 'to'.", param="to" if to is None else "from")
    ends = given["from"], given["to"]
    for name, at_us in given.items():
        if at_us % QUARTER_US:
            raise BadRequest(f"{name}: periods begin and end at full quarters of an hour.", param=name)
    if ends[0] >= ends[1]:
        raise BadRequest("'from' is not before 'to'.", param="from")
    return Period(from_us=ends[0], to_us=ends[1], tz=tz)
