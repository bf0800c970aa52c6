"""What a provider told, in its own names, until it is known what these are here. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from taximeter.core.names import clean
from taximeter.reconcile.rule import Figures, Place

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
        found.setdefault(place, Figures()).add(row.figures)
    return found
