"""What can be asked of history and what is answered: values only, no SQL.

Times are µs since epoch, UTC; ranges are half-open; records belong to the moment they ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import msgspec

from taximeter.core.bounds import FOREVER_US
from taximeter.core.errors import BadRequest
from taximeter.core.record import Record
from taximeter.core.totals import Totals
from taximeter.sinks.cells import Details

Names = str | Sequence[str] | None
"""One value, any of several, or None: no filter. The value "" stands for records that carry none."""

Window = Literal["minute", "hour", "day", "month"]

SortName = Literal["ended", "cost", "tokens", "took"]

SERIES = ("workspace", "provider", "model", "task", "operation", "key_id", "service_tier")
"""Names the roll-ups are kept by: filters and group-bys on these alone never read single records,
except at the ragged ends of a range."""

TAGS = ("track", "document", "end_user")
"""Names with too many values for the roll-ups by SERIES. A filter on one reads its records by an index. A group-by on
one, also beside SERIES and filtered by them, has roll-ups of its own; one on two tags reads the range's records."""

GROUPS = SERIES + TAGS


class Stretch(NamedTuple):
    """Values of one name, as they are ordered in the database: behind the one, up to the other. None carries "", which
    comes before every value."""

    name: str
    """One of GROUPS."""
    after: str | None
    """None: from "" on."""
    upto: str | None
    """None: to the last."""


class Filters(msgspec.Struct, kw_only=True, frozen=True):
    """Which records. All given filters must hold."""

    from_us: int | None = None
    """First moment included; None: from the beginning."""
    to_us: int | None = None
    """First moment no longer included; None: until now and later."""
    workspace: Names = None
    provider: Names = None
    model: Names = None
    """The served model where the upstream told it, else the one asked for."""
    task: Names = None
    operation: Names = None
    """llm | embedding | rerank | other."""
    key_id: Names = None
    service_tier: Names = None
    track: Names = None
    document: Names = None
    end_user: Names = None
    request_id: Names = None
    outcome: Names = None
    kind: Names = None
    """usage | correction."""
    error_code: Names = None
    """Our own stable code (core.errors) of a call that we refused or that failed on our way to the provider."""
    stretch: Stretch | None = None
    """A part of the values of a name, of those that all other filters leave."""


class Group(msgspec.Struct, kw_only=True, gc=False):
    """Sums of one group in one window."""

    key: dict[str, str | None]
    """The names of `group_by`; None where the records carry none."""
    start_us: int | None
    """Start of the window (not before the range's own start); None without a window."""
    end_us: int | None
    """First moment after the window (not after the range's own end); None without a window."""
    totals: Totals
    details: Details


class Ranked(msgspec.Struct, kw_only=True):
    """The groups of one name, and over time the largest of them beside all. One snapshot: parts make up the whole."""

    groups: list[Group]
    """Of the whole range, the most expensive first, then by tokens."""
    largest: list[Group]
    """The first groups, by window."""
    everything: list[Group]
    """All groups as one, by window."""


SORTS: tuple[SortName, ...] = get_args(SortName)


class Sort(msgspec.Struct, frozen=True):
    """In which order single records come; what is not known comes below all that is."""

    by: SortName = "ended"
    descending: bool = True


NEWEST, OLDEST = Sort(), Sort(descending=False)


class Listing(msgspec.Struct, kw_only=True):
    """Some single records in order, and where the records before and after them are."""

    records: list[Record]
    before: str | None
    """Cursor of the page before; None: these are the first."""
    after: str | None
    """Cursor of the page after; None: these are the last."""


class Spread(msgspec.Struct, frozen=True):
    """How long the calls of a group or window took that ended well; null: none of them is known."""

    count: int
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one group, or of one window."""

    key: str | None = None
    start_us: int | None = None
    duration: Spread
    """From the request to the answer's end."""
    ttft: Spread
    """Until the first token, of streamed answers."""


Basis = Literal["records", "histogram", "unknown"]


class QuantitySum(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a kind (core.quantities) the calls of a group used."""

    key: dict[str, str | None]
    """The names grouped by; null: the calls carry none."""
    kind: str
    variant: str | None
    amount: int


class Latency(msgspec.Struct, kw_only=True):
    """Percentiles of how long calls took that ended well."""

    basis: Basis
    """`records`: of every single value. `histogram`: of counts by steps of 41 %, of hours that begin in the range.
    `unknown`: of neither, there are too many records to read, and the filters are not known to the histograms."""
    since_us: int = 0
    """Above 0: before this moment no histograms were kept."""
    total: Timing
    windows: list[Timing]
    """Those with calls."""
    groups: list[Timing]


class Match(NamedTuple):
    """A name that a search found."""

    name: str
    """What it is a name of: one of GROUPS."""
    value: str
    workspace: str | None
    """Whose it is, of TAGS."""


class TrackPart(msgspec.Struct, kw_only=True):
    """What one track used for one document, operation and model."""

    document: str | None
    operation: str
    provider: str
    model: str
    first_us: int
    last_us: int
    """`ended_at` of the first and the last record."""
    totals: Totals
    details: Details


def checked(group_by: Sequence[str]) -> tuple[str, ...]:
    """`group_by` without repeats. Raises BadRequest on a name that cannot be grouped by."""
    for name in group_by:
        if name not in GROUPS:
            raise BadRequest(f"Cannot group by {name!r}. Allowed: {', '.join(GROUPS)}.", param="group_by")
    return tuple(dict.fromkeys(group_by))


def span(filters: Filters) -> tuple[int, int]:
    """The range asked for, unbounded ends made explicit. Raises BadRequest where it is beyond the years 1970-9999."""
    start_us = 0 if filters.from_us is None else filters.from_us
    end_us = FOREVER_US if filters.to_us is None else filters.to_us
    if not (0 <= start_us <= FOREVER_US and 0 <= end_us <= FOREVER_US):
        raise BadRequest("Ranges lie between the years 1970 and 9999.", param="from")
    return start_us, max(start_us, end_us)
