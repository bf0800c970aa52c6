"""How figures look on a terminal: counts, money, tables, bars. Knows rich; asks nobody for data.

Whatever is printed goes through here: names come from outside, and a terminal acts on what stands in them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from taximeter.core.figures import count, money
from taximeter.core.visible import visible, visible_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
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
