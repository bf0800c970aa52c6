"""Statements as files: CSV for spreadsheets, HTML for a printer, PDF where fpdf2 is installed."""

from __future__ import annotations

import csv
import io
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import UNSET

from taximeter.billing import shown
from taximeter.billing.statement import Quantities, Statement
from taximeter.core.errors import BadRequest
from taximeter.sinks.query import GROUPS

if TYPE_CHECKING:
    from jinja2 import Template

Format = Literal["json", "csv", "html", "pdf"]
MEDIA = {"json": "application/json", "csv": "text/csv", "html": "text/html", "pdf": "application/pdf"}

_NAMES = GROUPS[1:]
_AMOUNTS = ("cost_usd", "charge_usd", "cost", "charge")
COLUMNS = (
    "workspace", "number", "from", "to", "corrects", *_NAMES, *Quantities.__struct_fields__, "others",
    "unknown_requests", "unpriced_requests", "unpriced_reasons", "uncharged_requests", "left_out", "prices",
    "currency", "rate", *_AMOUNTS, "cost_prices",
)  # fmt: skip
"""Of the CSV, one row a line; what lines are not grouped by is empty. A reader for whom there is no cost has no such
columns."""
_OWN = ("cost_usd", "cost", "unpriced_requests", "unpriced_reasons", "cost_prices")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def written(statement: Statement, kind: Format) -> bytes:
    """The statement as a file of this kind. Raises BadRequest where PDFs cannot be made."""
    if kind == "json":
        return msgspec.json.Encoder(decimal_format="number").encode(statement)
    if kind == "csv":
        return as_csv(statement)
    return as_html(statement) if kind == "html" else as_pdf(statement)


def as_csv(statement: Statement) -> bytes:
    """One row a line; a text that a spreadsheet would run as a formula gets a `'`."""
    own = statement.total.cost_usd is not UNSET
    columns = [name for name in COLUMNS if own or name not in _OWN]
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, extrasaction="ignore")
    writer.writeheader()
    for line in statement.lines:
        texts = line.key | {"workspace": statement.workspace}
        figures = {
            "number": statement.number,
            "from": statement.from_,
            "to": statement.to,
            "corrects": line.corrects,
            "others": msgspec.json.encode(line.others).decode() if line.others else "",
            "unknown_requests": line.unknown_requests,
            "unpriced_requests": line.unpriced_requests,
            "unpriced_reasons": msgspec.json.encode(line.unpriced_reasons).decode() if own else "",
            "uncharged_requests": line.uncharged_requests,
            "left_out": " ".join(line.left_out),
            "prices": "; ".join(map(shown.unit_price, line.prices)),
            "cost_prices": "; ".join(shown.cost_prices(line)),
            "currency": statement.currency,
            "rate": f"{line.rate:f}",
        }
        amounts = {name: "" if (value := getattr(line, name)) is None else value for name in _AMOUNTS}
        exact = {name: f"{value:f}" if hasattr(value, "as_tuple") else "" for name, value in amounts.items()}
        plain = {name: f"'{text}" if text and text.startswith(_FORMULA) else text for name, text in texts.items()}
        writer.writerow({**msgspec.structs.asdict(line.quantities), **figures, **plain, **exact})
    return file.getvalue().encode()


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template("statement.html")


def as_html(statement: Statement) -> bytes:
    """A page of its own, that loads nothing, for a printer or a mail."""
    return _template().render(page=shown.printed(statement)).encode()


def as_pdf(statement: Statement) -> bytes:
    """Raises BadRequest where fpdf2 is not installed."""
    if find_spec("fpdf") is None:
        raise BadRequest("PDFs need fpdf2: pip install 'taximeter[pdf]'.", param="format")
    from taximeter.billing.pdf import document

    return document(statement)
