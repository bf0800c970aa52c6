"""Lines of CSV that a spreadsheet opens without running them. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from decimal import Decimal

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins with one of these is a formula to a spreadsheet; model names come from requests."""


def csv_line(values: Iterable[object]) -> bytes:
    """Unknown is empty; a text that a spreadsheet would run gets a `'`; a Decimal has no exponent."""
    line = io.StringIO()
    csv.writer(line).writerow([_cell(value) for value in values])
    return line.getvalue().encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return f"{value:f}"
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text
