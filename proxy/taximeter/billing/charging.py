"""What customers are charged for any calls, whatever statement they are on: the second amount beside their cost. Pure.

Only what is the same on every statement is told: a price that depends on how much else a statement has (an included
volume, tiers) cannot be told for a part of it. The rest is reckoned as a statement of the same range reckons it, so
that parts add up to its charge exactly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec
from msgspec.structs import astuple, replace

from taximeter.billing import making
from taximeter.billing.making import KEY, Names, Part
from taximeter.billing.rule import Plan, borders
from taximeter.sinks.query import SERIES, Filters, Group, span

VOLUME = "Where the plan has included volume or tiers, only a statement tells the charge: they are of a whole period."
BETWEEN = "The charge was not reckoned: there are too many groups, or calls came in between. Ask for less, or again."
_START = "start"
"""Beside the names of a group, so that windows are charged apart: when it begins, µs."""


class Charge(msgspec.Struct, frozen=True):
    """What some calls are charged."""

    nusd: int | None = None
    """Of those whose charge is known; None: of none."""
    uncharged: int = 0
    """How many of the calls it is without."""


class Piece(msgspec.Struct, frozen=True):
    """Calls that are charged alike."""

    key: dict[str, str | None]
    """SERIES, and what else was grouped by."""
    start_us: int | None
    """Of their window; None: there are none."""
    requests: int
    cost_nusd: int
    charge: Charge
    by_volume: bool
    """Their price depends on how much else is used: their charge is not told."""


def names(group_by: Sequence[str]) -> tuple[str, ...]:
    """What history has to be grouped by to tell the charge of these groups."""
    return (*SERIES, *(name for name in group_by if name not in SERIES))


def ranges(filters: Filters, plans: Sequence[Plan]) -> list[Filters]:
    """The range in parts in each of which one set of plans holds."""
    start_us, end_us = span(filters)
    marks = [start_us, *borders(plans, start_us, end_us), end_us]
    return [replace(filters, from_us=first, to_us=last) for first, last in pairwise(marks)]


def pieces(found: Sequence[tuple[Filters, Sequence[Group]]], plans: Sequence[Plan]) -> list[Piece]:
    """What each group is charged; `found`: of each of `ranges` its groups by `names`."""
    by_workspace: dict[str, list[making.Stretch]] = defaultdict(list)
    keys: tuple[str, ...] = KEY
    for asked, groups in found:
        cells: dict[str, dict[Names, Sequence[int]]] = defaultdict(dict)
        for group in groups:
            keys = tuple(name for name in group.key if name != "workspace")
            start = None if group.start_us is None else str(group.start_us)
            place = (*(group.key[name] for name in keys), start)
            cells[group.key["workspace"] or ""][place] = (*astuple(group.totals), *astuple(group.details))
        for workspace, sums in cells.items():
            by_workspace[workspace].append((asked.from_us or 0, sums))
    return [
        _piece(workspace, part)
        for workspace, stretches in by_workspace.items()
        for part in making.parts((*keys, _START), stretches, plans, workspace, 0, 0)
    ]


def _piece(workspace: str, part: Part) -> Piece:
    plan, requests = part.plan, part.sums.get("requests", 0)
    by_volume = plan is not None and any(
        quantity and plan.prices[number].unit_nusd is None for number, quantity in part.charged.parts
    )
    start = part.key.pop(_START)
    return Piece(
        key={"workspace": workspace, **part.key},
        start_us=None if start is None else int(start),
        requests=requests,
        cost_nusd=part.sums.get("cost_nusd", 0),
        charge=Charge(None, requests) if by_volume else Charge(part.charged.nusd, part.sums.get(making.UNCHARGED, 0)),
        by_volume=by_volume,
    )


def summed(charges: Iterable[Charge]) -> Charge:
    """Several as one."""
    nusd, uncharged = None, 0
    for each in charges:
        uncharged += each.uncharged
        if each.nusd is not None:
            nusd = (nusd or 0) + each.nusd
    return Charge(nusd, uncharged)
