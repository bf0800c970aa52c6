"""The fields of the form above the records: a field a filter, with the values there are to pick from. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from taximeter.control.api.parameters import written
from taximeter.control.dashboard.view import ENDS, NAMES, View
from taximeter.core import errors
from taximeter.core.record import Operation, Outcome

MOST_LISTED = 60
"""Values a list to choose from may have; of more the field is typed into, with the first of them as suggestions."""
MOST_SUGGESTED = 200

CODES = tuple(sorted({each.code for each in vars(errors).values() if isinstance(each, type) and hasattr(each, "code")}))
"""Our own error codes."""
_FIXED: dict[str, tuple[str, ...]] = {
    "operation": tuple(Operation),
    "outcome": tuple(Outcome),
    "error_code": CODES,
}


class Picker(msgspec.Struct, frozen=True):
    """One field."""

    name: str
    value: str
    """What is chosen, several with commas; "": nothing is."""
    values: tuple[str, ...]
    """What there is to choose from, "(none)" for calls that carry none; empty: not known, it is typed."""
    listed: bool
    """Whether `values` are all there are, and few."""


def pickers(view: View, offered: Mapping[str, Sequence[str]]) -> list[Picker]:
    """A field for every filter but those the page is about. `offered`: the values of names in history."""
    return [_picker(name, view.params.get(name, ()), offered) for name in (*NAMES, *ENDS) if name not in view.fixed]


def _picker(name: str, chosen: Sequence[str], offered: Mapping[str, Sequence[str]]) -> Picker:
    found = _FIXED.get(name, offered.get(name, ()))
    values = tuple(_shown(value) for value in found[:MOST_SUGGESTED])
    known = len(found) <= MOST_LISTED and bool(found)
    fits = len(chosen) < 2 and all(_shown(value) in values for value in chosen)
    return Picker(name, ",".join(map(_shown, chosen)), values, known and fits)


def _shown(value: str) -> str:
    """A value as it is typed."""
    return written(value) or "(none)"
