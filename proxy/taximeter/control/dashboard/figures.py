"""What the pages show, gathered from history: totals beside those before, rows for tables.

Figures come from the same queries as `GET /usage`, so a page and the API agree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
from msgspec.structs import replace

from taximeter.billing import charging
from taximeter.billing.charging import Charge, Piece
from taximeter.control.answers.charged import by_names
from taximeter.control.dashboard.sorting import Sorting
from taximeter.control.dashboard.view import FAILED, View, last_days, path, same_time_before
from taximeter.control.services.interfaces import HistoryReader
from taximeter.core import views
from taximeter.core.figures import count, places
from taximeter.core.totals import Totals
from taximeter.sinks.query import Filters, Group

ROWS = 12
"""Groups a table shows; the rest is one row."""
RECENT = 1_000
"""The newest records among which a workspace's recent tracks are looked for: all of a long range would take seconds."""
TRACKS = 12


class Figures(msgspec.Struct, frozen=True):
    """Sums, as tiles and tables show them."""

    totals: Totals
    refused: int = 0
    """Attempts that we refused: `totals.errors` has them too."""
    attempts: int = 0

    @property
    def failed(self) -> int:
        """Attempts that failed. What we refused is no error: nothing failed."""
        return self.totals.errors - self.refused

    @property
    def rate(self) -> float | None:
        """The part that failed of those sent; None: none was."""
        sent = self.attempts - self.refused
        return self.failed / sent if sent > 0 else None

    @property
    def cost(self) -> Decimal | None:
        return views.cost_usd(self.totals)

    @property
    def input_tokens(self) -> int:
        totals = self.totals
        return totals.llm_input_tokens + totals.embedding_tokens + totals.rerank_tokens


class Today(msgspec.Struct, frozen=True):
    """Today so far, beside yesterday until the same time and yesterday in all."""

    now: Figures
    then: Figures
    whole: Figures
    now_href: str
    whole_href: str
    failed_href: str
    """The records of today that failed."""
    since_yesterday: bool
    """Recording began yesterday: it is not a whole day to compare with."""


class Row(msgspec.Struct, frozen=True):
    """A group in a table. `href`: its own view; `records`: what it is made of."""

    name: str | None
    figures: Figures
    href: str | None
    records: str | None
    colour: int | None = None
    failed: str | None = None
    """The link to those of its records that failed."""
    charge: Decimal | None = None
    """What the customers pay, as far as it is known; None: it is of none."""


COLUMNS = ("name", "calls", "errors", "tokens", "cost")
"""What a table of groups can be sorted by."""


class Table(msgspec.Struct, frozen=True):
    """Groups of one name, in the order asked for."""

    name: str
    rows: list[Row]
    total: Figures
    charged: bool = False
    """It has a column of charges."""

    @property
    def places(self) -> int:
        """Decimals of its column of money."""
        return places(row.figures.cost for row in self.rows)

    @property
    def charge_places(self) -> int:
        """Decimals of its column of charges."""
        return places(row.charge for row in self.rows)


def summed(groups: Iterable[Group]) -> Figures:
    """Several groups as one."""
    found = list(groups)
    return Figures(
        views.summed(group.totals for group in found),
        sum(group.details.refused for group in found),
        sum(group.details.attempts for group in found),
    )


def of(group: Group) -> Figures:
    """One group's."""
    return Figures(group.totals, group.details.refused, group.details.attempts)


async def sums(history: HistoryReader, filters: Filters) -> Figures:
    """All of it as one."""
    return summed(await history.usage(filters))


async def today(history: HistoryReader, view: View) -> Today:
    """Today and yesterday of the same filters, whatever the page's range."""
    midnight, next_us = last_days(view.now_us, view.tz, 1)
    before, _ = last_days(view.now_us, view.tz, 2)
    then_us = same_time_before(view.now_us, view.tz)
    ranges = ((midnight, next_us), (before, then_us), (before, midnight))
    now, then, whole, earlier = await asyncio.gather(
        *(sums(history, replace(view.filters, from_us=start, to_us=end)) for start, end in ranges),
        sums(history, replace(view.filters, from_us=None, to_us=before)),
    )
    today_href, before_href = view.within(midnight, next_us), view.within(before, midnight)
    failed_href = view.within(midnight, next_us, outcome=FAILED)
    began = bool(whole.totals.requests) and not earlier.totals.requests
    return Today(now, then, whole, today_href, before_href, failed_href, began)


def table(
    view: View, name: str, groups: Iterable[Group], sort: Sorting, pieces: Sequence[Piece] | None = None
) -> Table:
    """The groups of `name`, at most ROWS of them and the rest as one. `pieces`: what all of them are charged."""
    charges = by_names(pieces or (), (name,))
    groups = in_order(groups, name, sort)
    shown_groups = groups if len(groups) <= ROWS + 1 else groups[:ROWS]
    rows = [
        Row(
            name=group.key[name],
            figures=of(group),
            href=own_view(view, name, group.key[name]),
            records=view.records(**{name: group.key[name] or ""}),
            failed=view.records(**{name: group.key[name] or "", "outcome": FAILED}),
            charge=charged(charges.get((group.key[name],), ())),
        )
        for group in shown_groups
    ]
    if len(shown_groups) < len(groups):
        rest = groups[len(shown_groups) :]
        charge = charged(each for group in rest for each in charges.get((group.key[name],), ()))
        rows.append(Row(f"{count(len(rest))} more", summed(rest), None, None, charge=charge))
    return Table(name, rows, summed(groups), charged=pieces is not None)


def charged(charges: Iterable[Charge]) -> Decimal | None:
    """Several charges as one, as far as they are known."""
    nusd = charging.summed(charges).nusd
    return None if nusd is None else views.usd(nusd)


async def recent_tracks(history: HistoryReader, view: View, workspace: str | None) -> list[tuple[Row, int]]:
    """The tracks of a workspace used last, each with all it has used and when it was used last (µs)."""
    if workspace is None:
        return []
    records, _ = await history.events(Filters(workspace=workspace, to_us=view.to_us), RECENT)
    last: dict[str, int] = {}
    for record in records:
        if record.track is not None and len(last) < TRACKS:
            last.setdefault(record.track, record.ended_at)
    if not last:
        return []
    groups = await history.usage(Filters(workspace=workspace, track=list(last)), ("track",))
    by_name = {group.key["track"]: of(group) for group in groups}
    return [
        (Row(name, by_name[name], path("workspaces", workspace, "tracks", name), None), at)
        for name, at in last.items()
        if name in by_name
    ]


def own_view(view: View, name: str, value: str | None) -> str:
    """The page of one group: a workspace's own, else the same page with the group as a filter."""
    if name == "workspace" and value is not None:
        return view.url(path("workspaces", value), workspace=None, by=None)
    return view.url("", **{name: value or ""})


def in_order(groups: Iterable[Group], name: str, sort: Sorting) -> list[Group]:
    """The groups by a column; those alike as by cost."""
    value: dict[str, Callable[[Group], Any]] = {
        "name": lambda group: (group.key[name] or "").lower(),
        "calls": lambda group: group.totals.requests,
        "errors": lambda group: of(group).failed,
        "tokens": lambda group: group.totals.total_tokens,
        "cost": lambda group: group.totals.cost_nusd,
    }
    return sorted(sorted(groups, key=_weight), key=value[sort.by], reverse=sort.descending)


def _weight(group: Group) -> tuple[Any, ...]:
    return -group.totals.cost_nusd, -group.totals.total_tokens, -group.totals.requests, str(list(group.key.values()))
