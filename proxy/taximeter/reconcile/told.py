"""What a provider told, in its own names, until it is known what these are here. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from taximeter.core.bounds import MAX_SUM
from taximeter.core.names import clean
from taximeter.reconcile.rule import Figures, Place, PullFailed, day_of

By = Literal["", "upstream", "key", "workspace"]
"""What is told apart beside days and models: nothing; our upstreams, by the provider's keys; our proxy keys, by keys of
the same name; our workspaces, by the provider's projects or workspaces."""


class Span(NamedTuple):
    """Whole days (UTC), half-open, in seconds since epoch."""

    from_s: int
    to_s: int


class Row(msgspec.Struct):
    """One line of what it told."""

    day: str
    model: str
    figures: dict[str, int | None]
    key_id: str = ""
    project_id: str = ""


def theirs(rows: Iterable[Row], by: By, models: Mapping[str, str], names: Mapping[str, str]) -> dict[Place, Figures]:
    """The rows by place. `models`, `names`: what a name of theirs is here; one that is not in it stays as it is, cut as
    names are that we store."""
    found: dict[Place, Figures] = {}
    for row in rows:
        key = "" if not by else row.project_id if by == "workspace" else row.key_id
        place = Place(row.day, clean(models.get(row.model, row.model)), clean(names.get(key, key)))
        figures = found.setdefault(place, Figures())
        figures.add(row.figures)
        _possible(place, figures)
    return found


def within(rows: Iterable[Row], span: Span) -> list[Row]:
    """Those of these days: some answer with more than was asked for, and what is kept is kept by day."""
    first, last = (day_of(at_s) for at_s in span)
    return [row for row in rows if first <= row.day < last]


def _possible(place: Place, figures: Figures) -> None:
    """Raises PullFailed on sums that cannot be. A cost may be less than 0: credits are told as that."""
    for name in Figures.__struct_fields__:
        value = getattr(figures, name) or 0
        if abs(value) > MAX_SUM or (value < 0 and name != "cost_nusd"):
            raise PullFailed(f"{name} of {place.model or 'all models'} on {place.day} is {value}, which cannot be")
