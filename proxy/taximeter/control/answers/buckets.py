"""Time buckets and pages of OpenAI's organization API. Pure; times in Unix seconds there, µs here.

Buckets are cut at UTC minutes, hours and days; the first and the last are clipped to the asked range, so the sum
over all pages is exactly the range's. A page holds `limit` buckets; its cursor is the next bucket's start.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator

import msgspec

from taximeter.core.errors import BadRequest
from taximeter.sinks.query import Window

US = 1_000_000


class Width(msgspec.Struct, frozen=True):
    """A bucket width, and how many buckets a page has by default and at most."""

    window: Window
    seconds: int
    default: int
    most: int


USAGE_WIDTHS = {
    "1m": Width("minute", 60, 60, 1_440),
    "1h": Width("hour", 3_600, 24, 168),
    "1d": Width("day", 86_400, 7, 31),
}
COST_WIDTHS = {"1d": Width("day", 86_400, 7, 180)}

_LATEST_S = 253_402_300_800
"""Year 10000: what the calendar can show."""


class Page(msgspec.Struct, frozen=True):
    """The part of a range that one answer covers."""

    from_s: int
    to_s: int
    width: Width
    next_page: str | None

    def buckets(self) -> Iterator[tuple[int, int]]:
        """(start, end) of every bucket of the page, in order, empty ones too."""
        start = self.from_s
        while start < self.to_s:
            end = min(_floor(start, self.width) + self.width.seconds, self.to_s)
            yield start, end
            start = end


def page(
    start_time: int, end_time: int, widths: dict[str, Width], bucket_width: str, limit: int | None, cursor: str | None
) -> Page:
    """The page a query asks for. Raises BadRequest on anything out of range."""
    width = widths.get(bucket_width)
    if width is None:
        raise BadRequest(f"No bucket_width {bucket_width[:20]!r}. Allowed: {', '.join(widths)}.", param="bucket_width")
    count = width.default if limit is None else limit
    if not 1 <= count <= width.most:
        raise BadRequest(f"limit is 1 to {width.most} with bucket_width {bucket_width}.", param="limit")
    for name, value in (("start_time", start_time), ("end_time", end_time)):
        if not 0 <= value <= _LATEST_S:
            raise BadRequest(f"{name} is in Unix seconds.", param=name)
    if end_time <= start_time:
        raise BadRequest("end_time must be after start_time.", param="end_time")
    from_s = start_time if cursor is None else _start_of(cursor)
    if not start_time <= from_s < end_time:
        raise BadRequest("This page does not belong to this range.", param="page")
    to_s = min(_floor(from_s, width) + count * width.seconds, end_time)
    return Page(from_s, to_s, width, _cursor(to_s) if to_s < end_time else None)


def _floor(second: int, width: Width) -> int:
    return second // width.seconds * width.seconds


def _cursor(start_s: int) -> str:
    return "page_" + urlsafe_b64encode(str(start_s).encode()).decode().rstrip("=")


def _start_of(cursor: str) -> int:
    try:
        kind, _, text = cursor.partition("_")
        if kind != "page":
            raise ValueError(cursor)
        return int(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, Base64Error):
        raise BadRequest("page is not a cursor of this API.", param="page") from None
