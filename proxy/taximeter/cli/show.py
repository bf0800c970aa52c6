"""How figures look on a terminal: counts, money, tables, bars. Knows rich; asks nobody for data."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from taximeter.core.figures import count, money

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

__all__ = ["bar", "console", "count", "money", "table"]

PIPE_COLUMNS = 200
"""Width where the output is no terminal: nothing is cut there."""

OUTCOME_STYLES = {
    "ok": "green",
    "client_left": "yellow",
    "refused": "yellow",
    "interrupted": "magenta",
}
"""The rest is red. NO_COLOR turns colours off."""


def console(stderr: bool = False) -> Console:
    """Where to print. Colours on a terminal only, and not with NO_COLOR."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_COLUMNS
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


def table(names: Sequence[str], figures: Sequence[str], rows: Sequence[Sequence[RenderableType]]) -> Table:
    """Text columns on the left, figures right-aligned; the way the requirement's examples look."""
    from rich import box
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for name in names:
        shown.add_column(name, overflow="fold")
    for figure in figures:
        shown.add_column(figure, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    return shown


def bar(value: Decimal, largest: Decimal, width: int = 40) -> RenderableType:
    """A bar as long as `value` is of `largest`."""
    from rich.bar import Bar

    return Bar(float(largest) or 1.0, 0, float(value), width=width, color="cyan")
