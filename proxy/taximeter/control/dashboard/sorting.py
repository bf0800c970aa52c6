"""In what order a table's rows are, as its page's address says it: `sort=-cost` is by cost, the largest first. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taximeter.core.errors import BadRequest

TEXTS = ("name",)
"""Columns that a first click sorts upwards: figures come largest first."""


class Sorting(msgspec.Struct, frozen=True):
    """The column, and the way."""

    by: str
    descending: bool

    def clicked(self, column: str) -> str:
        """What a click on a column's head asks for: it, or the other way round where it is the one already."""
        down = not self.descending if column == self.by else column not in TEXTS
        return f"-{column}" if down else column

    def aria(self, column: str) -> str:
        """For the head's `aria-sort`."""
        if column != self.by:
            return "none"
        return "descending" if self.descending else "ascending"


def sorting(asked: str | None, columns: Sequence[str], usual: str) -> Sorting:
    """What `sort` says; without it the usual. Raises BadRequest on an unknown column."""
    text = asked or usual
    column = text.removeprefix("-")
    if column not in columns:
        allowed = ", ".join(f"{name}, -{name}" for name in columns)
        raise BadRequest(f"Cannot sort by {text[:80]!r}. Allowed: {allowed}.", param="sort")
    return Sorting(column, text.startswith("-"))
