"""Times as people write them, and as the API shows them: RFC 3339 or a date in, RFC 3339 UTC out. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from taximeter.core.bounds import FOREVER_US
from taximeter.core.errors import BadRequest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_is_date = re.compile(r"\d{4}-\d\d-\d\d").fullmatch
_lost_plus = re.compile(r" (?=\d\d:?\d\d$)").sub
"""A `+` not percent-encoded in a query arrives as a blank: `…T00:00:00 01:00` means `+01:00`."""


def zone(name: str) -> ZoneInfo:
    """The IANA time zone of this name. Raises BadRequest."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadRequest(f"No time zone {name[:80]!r}. Give an IANA name such as Europe/Berlin.", param="tz") from None


def moment_us(text: str, tz: ZoneInfo, param: str) -> int:
    """µs since epoch of `2026-11-22` (midnight in `tz`) or `2026-11-22T10:00:00Z` (without an offset: in `tz`).

    Raises BadRequest, naming `param`, also beyond the years 1970-9999: nothing else has to do with such moments.
    """
    try:
        moment = datetime.fromisoformat(text if _is_date(text) else _lost_plus("+", text))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=tz)
        us = (moment - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        raise BadRequest(
            f"{param}: {text[:80]!r} is no time. Give a date (2026-11-22) or RFC 3339 (2026-11-22T10:00:00Z).",
            param=param,
        ) from None
    if not 0 <= us <= FOREVER_US:
        raise BadRequest(f"{param}: {text[:80]!r} is not between the years 1970 and 9999.", param=param)
    return us


def range_us(from_: str | None, to: str | None, tz: str) -> tuple[int | None, int | None]:
    """A range as written, in µs since epoch; None where it has no such end. Raises BadRequest."""
    place = zone(tz)
    from_us = None if from_ is None else moment_us(from_, place, "from")
    to_us = None if to is None else moment_us(to, place, "to")
    if from_us is not None and to_us is not None and from_us > to_us:
        raise BadRequest("'from' is after 'to'.", param="from")
    return from_us, to_us


def shown(us: int | None) -> str | None:
    """RFC 3339 UTC, with a fraction only where there is one; None stays None. Beyond the calendar: its nearest end."""
    if us is None:
        return None
    us = min(max(us, _FIRST_US), _LAST_US)
    return (_EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")


def local(us: int, tz: ZoneInfo) -> datetime:
    """The wall-clock time in a zone."""
    return (_EPOCH + timedelta(microseconds=us)).astimezone(tz)
