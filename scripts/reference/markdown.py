"""Markdown that this repository's viewers and the documentation site render alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

GENERATED = "<!-- Generated from the code by `make reference`; changes belong there. -->"


def page(title: str, *parts: str) -> str:
    """A whole page; parts are separated by one blank line."""
    return "\n\n".join([f"# {title}", GENERATED, *(part.strip("\n") for part in parts if part)]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; `|` in a cell is escaped, line breaks become spaces. Empty where there is no row."""
    lines = [_row(row) for row in rows]
    return "\n".join([_row(head), "|" + "---|" * len(head), *lines]) if lines else ""


def filled(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without the columns that are empty in every row."""
    kept = [at for at in range(len(head)) if any(row[at] for row in rows)]
    return table([head[at] for at in kept], [[row[at] for at in kept] for row in rows])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(flat(cell).replace("|", "\\|") for cell in cells) + " |"


def flat(text: str) -> str:
    """On one line, with one blank between words."""
    return " ".join(text.split())


def code(text: str) -> str:
    """As code; a pipe in it survives a table (escaped there)."""
    return f"`{text}`"


def slug(title: str) -> str:
    """The anchor of a heading, as repository viewers make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
