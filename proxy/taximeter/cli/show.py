"""How figures look on a terminal: counts, money, tables, bars. Knows rich; asks nobody for data.

Whatever is printed goes through here: names come from outside, and a terminal acts on what stands in them.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from taximeter.core.figures import count, money, short
from taximeter.core.visible import visible, visible_json

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

__all__ = ["bar", "console", "count", "echo", "money", "table", "visible"]

PIPE_COLUMNS = 200
"""Width where the output is no terminal: nothing is cut there."""

OUTCOME_STYLES = {
    "ok": "green",
    "client_left": "yellow",
    "refused": "yellow",
    "interrupted": "magenta",
}
"""The rest is red. NO_COLOR turns colours off."""


def echo(shown: bytes | str, *, err: bool = False) -> None:
    """Print one line of text; or (bytes) a JSON document, of the same value, with odd characters as JSON's escapes."""
    click.echo(visible(shown) if isinstance(shown, str) else visible_json(shown.decode()), err=err)


def console(stderr: bool = False) -> Console:
    """Where to print. Colours on a terminal only, and not with NO_COLOR. A `Text` is its maker's to make visible."""
    from rich.console import Console
    from rich.text import Text

    class Shown(Console):
        """Takes no text for markup, and shows all of it in one line; for the cells of tables too."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(visible(text), **options)

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_COLUMNS
    return Shown(stderr=stderr, width=width, highlight=False, soft_wrap=False, markup=False, emoji=False)


def table(names: Sequence[str], figures: Sequence[str], rows: Sequence[Sequence[RenderableType]]) -> Figures:
    """Text columns on the left, figures right-aligned; the way the requirement's examples look."""
    shown = Figures(names, figures)
    for row in rows:
        shown.add_row(*row)
    return shown


NAME_COLUMNS = 12
"""What a column of names keeps at least where there is little room; its names are folded then."""


class Figures:
    """A table that fits: where there is no room for names beside large figures, those are shortened (`11.9T`)."""

    def __init__(self, names: Sequence[str], figures: Sequence[str]) -> None:
        self._names = list(names)
        self._figures = list(figures)
        self._others: list[str] = []
        self._rows: list[tuple[RenderableType, ...]] = []

    def add_column(self, title: str) -> None:
        """One more, at the right, of neither names nor figures."""
        self._others.append(title)

    def add_row(self, *cells: RenderableType) -> None:
        self._rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        needed = self._width(self._rows)
        rows = self._rows if needed <= options.max_width else [self._shortened(row) for row in self._rows]
        yield self._table(rows)
        if rows != self._rows:
            yield Text("Shortened to fit; --json has whole figures.", style="dim")

    def _table(self, rows: Sequence[Sequence[RenderableType]]) -> Table:
        from rich import box
        from rich.table import Table

        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
        for at, name in enumerate(self._names):
            shown.add_column(name, overflow="fold", min_width=min(NAME_COLUMNS, self._longest(at, name, rows)))
        for figure in self._figures:
            shown.add_column(figure, justify="right", no_wrap=True)
        for other in self._others:
            shown.add_column(other)
        for row in rows:
            shown.add_row(*row)
        return shown

    def _width(self, rows: Sequence[Sequence[RenderableType]]) -> int:
        """The least it can be shown in."""
        names = [min(NAME_COLUMNS, self._longest(at, name, rows)) for at, name in enumerate(self._names)]
        figures = [self._longest(at, name, rows) for at, name in enumerate(self._figures, start=len(self._names))]
        return sum(names) + sum(figures) + _BETWEEN * (len(names) + len(figures) - 1)

    @staticmethod
    def _longest(at: int, title: str, rows: Sequence[Sequence[RenderableType]]) -> int:
        return max([len(title), *(len(str(row[at])) for row in rows if at < len(row))])

    def _shortened(self, row: Sequence[RenderableType]) -> tuple[RenderableType, ...]:
        first, last = len(self._names), len(self._names) + len(self._figures)
        return tuple(_shorter(cell) if first <= at < last else cell for at, cell in enumerate(row))


_BETWEEN = 3
"""Blanks between two columns."""
_is_count = re.compile(r"-?[\d,]{8,}").fullmatch


def _shorter(cell: RenderableType) -> RenderableType:
    """A count of a million and more in three digits and a letter; anything else as it is."""
    if not isinstance(cell, str) or not _is_count(cell):
        return cell
    return short(int(cell.replace(",", "")))


def bar(value: Decimal, largest: Decimal, width: int = 40) -> RenderableType:
    """A bar as long as `value` is of `largest`."""
    from rich.bar import Bar

    return Bar(float(largest) or 1.0, 0, float(value), width=width, color="cyan")
