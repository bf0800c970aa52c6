"""What an audit raises, and how it says where two books differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Uneven(AssertionError):
    """The books do not agree; the message says which and where."""


class NotYet(Uneven):
    """It may come right by itself; if it does not, it is uneven."""


def same(what: str, told: Mapping[Any, Any], expected: Mapping[Any, Any], error: type[Uneven] = Uneven) -> None:
    """Raise with the first few differences."""
    if told == expected:
        return
    nothing = object()
    differing = [key for key in {**expected, **told} if told.get(key, nothing) != expected.get(key, nothing)]
    shown = "\n".join(f"  {key}: {told.get(key)}, expected {expected.get(key)}" for key in differing[:4])
    raise error(f"{what} differs in {len(differing)} of {len(expected)} places:\n{shown}")
