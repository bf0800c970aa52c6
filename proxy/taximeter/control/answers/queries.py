"""What can be asked of history's sums. Each query says what it reads and makes its response of that; it does no I/O.

A query is a generator: it yields what it reads, is sent the sums, and returns its response. So the same one serves the
control plane's loop (`services.querying`) and a command that reads the database itself (`read`). Raises BadRequest.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from taximeter.billing import charging
from taximeter.billing.charging import Piece
from taximeter.billing.rule import Plan
from taximeter.control.answers import charged, insights, responses
from taximeter.control.answers.insights import Alternatives, CardOf, Forecast, Peaks, Trends
from taximeter.control.answers.responses import UsageAggregateResponse
from taximeter.core.errors import BadRequest
from taximeter.sinks.query import Filters, Group, Window

T = TypeVar("T")

MOST_CANDIDATES = 50
MOST_NAMED = 10
"""Workspaces an error names."""


class Read(NamedTuple):
    """What `usage` of a history is asked for."""

    filters: Filters
    group_by: Sequence[str] = ()
    window: Window | None = None
    tz: str = "UTC"
    if_few: bool = False
    """Where there are more rows than an answer may have, nothing is found, instead of an error."""


Found = Sequence[list[Group]]
"""The sums of each `Read`, in order."""
Query = Generator[Sequence[Read], Found, T]


class Returned(NamedTuple, Generic[T]):
    """The end of a query."""

    response: T


class Reader(Protocol):
    """A history that is waited for (sinks.history.read.Reader)."""

    def usage(
        self, filters: Filters, group_by: Sequence[str] = (), window: Window | None = None, tz: str = "UTC"
    ) -> list[Group]: ...


def advance(query: Query[T], found: Found | None) -> Sequence[Read] | Returned[T]:
    """What the query reads next, given what it has read (None: nothing yet); or what it comes to."""
    try:
        return next(query) if found is None else query.send(found)
    except StopIteration as end:
        return Returned(end.value)


def read(reader: Reader, query: Query[T]) -> T:
    """A query's response, from a history that is waited for. Raises what that raises."""
    found = None
    while not isinstance(step := advance(query, found), Returned):
        found = [reader.usage(*each[:4]) for each in step]
    response: T = step.response
    return response


def usage(
    filters: Filters, group_by: Sequence[str], window: Window | None, tz: str, plans: Sequence[Plan] = ()
) -> Query[UsageAggregateResponse]:
    """Totals, groups and series; with `plans` also what they are charged."""
    coarse = Read(filters, group_by, window, tz)
    (sums,) = yield (coarse,)
    if not plans:
        return responses.aggregate(sums, filters, group_by, windowed=window is not None)
    for again in (True, False):
        found = yield from charges(filters, group_by, window, tz, plans)
        if alike(sums, found) or not again:
            break
        (sums,) = yield (coarse,)  # calls may have come in between
    answer = responses.aggregate(sums, filters, group_by, windowed=window is not None)
    charged.put(answer, group_by, found if alike(sums, found) else None)
    return answer


def charges(
    filters: Filters, group_by: Sequence[str], window: Window | None, tz: str, plans: Sequence[Plan]
) -> Query[list[Piece]]:
    """What these groups are charged, in pieces; of too many nothing."""
    ranges = charging.ranges(filters, plans)
    apart = yield [Read(each, charging.names(group_by), window, tz, if_few=True) for each in ranges]
    return charging.pieces(list(zip(ranges, apart, strict=True)), plans)


def alike(sums: Sequence[Group], found: Sequence[Piece]) -> bool:
    """Whether both are of the same calls."""
    whole = sum(group.totals.requests for group in sums), sum(group.totals.cost_nusd for group in sums)
    return whole == (sum(piece.requests for piece in found), sum(piece.cost_nusd for piece in found))


def owner(track: str) -> Query[str | None]:
    """Whose track it is; None: no call of it is known. Raises BadRequest where several workspaces use the name."""
    (sums,) = yield (Read(Filters(track=track), ("workspace",)),)
    names = [name for each in sums if (name := each.key["workspace"]) is not None]
    if len(names) > 1:
        shown = ", ".join(names[:MOST_NAMED])
        raise BadRequest(f"Several workspaces have this track ({shown}): say which `workspace`.", param="workspace")
    return names[0] if names else None


def trends(filters: Filters, group_by: Sequence[str], now_us: int, tz: str) -> Query[Trends]:
    """A range, without `from` of 7 days, against the one of the same length before it."""
    ranged = insights.ranged(filters, now_us, ZoneInfo(tz), insights.TREND_DAYS)
    past = insights.before(ranged)
    now, then, earlier, days = yield (
        Read(ranged, group_by),
        Read(past, group_by),
        Read(insights.earlier(ranged)),
        Read(past, (), "day", tz),
    )
    return insights.trends(ranged, now, then, insights.recorded_from(ranged, earlier, days))


def peaks(filters: Filters, now_us: int, tz: str) -> Query[Peaks]:
    """The hours of the day of a range, without `from` of 30 days."""
    ranged = insights.ranged(filters, now_us, ZoneInfo(tz), insights.PEAK_DAYS)
    (hourly,) = yield (Read(ranged, (), "hour", tz),)
    return insights.peaks(ranged, hourly, tz)


def forecast(filters: Filters, now_us: int, tz: str) -> Query[Forecast]:
    """This month's cost until its end."""
    if filters.from_us is not None or filters.to_us is not None:
        raise BadRequest("A forecast is of this month; it takes neither 'from' nor 'to'.", param="from")
    (daily,) = yield (Read(insights.forecast_filters(filters, now_us, ZoneInfo(tz)), (), "day", tz),)
    return insights.forecast(daily, now_us, tz)


def alternatives(
    filters: Filters, candidates: Sequence[str], card_of: CardOf, now_us: int, tz: str
) -> Query[Alternatives]:
    """What the tokens of each task cost at the prices of the models in use, and of `candidates` (provider/model)."""
    further = _named(candidates)
    ranged = insights.ranged(filters, now_us, ZoneInfo(tz), insights.PEAK_DAYS)
    (sums,) = yield (Read(replace(ranged, operation="llm"), ("task", "provider", "model")),)
    return insights.alternatives(ranged, sums, further, card_of, now_us)


def _named(candidates: Sequence[str]) -> list[tuple[str, str]]:
    if len(candidates) > MOST_CANDIDATES:
        raise BadRequest(f"At most {MOST_CANDIDATES} candidates.", param="candidate")
    parts = [name.partition("/") for name in candidates]
    for name, (provider, _, model) in zip(candidates, parts, strict=True):
        if not (provider and model):
            raise BadRequest(f"{name[:80]!r} is no provider/model, such as openai/gpt-4o-mini.", param="candidate")
    return [(provider, model) for provider, _, model in parts]
