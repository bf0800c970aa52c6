"""A statement as PDF, by fpdf2 (extra `pdf`). Imported with the first one."""

from __future__ import annotations

from itertools import zip_longest
from textwrap import wrap

from fpdf import FPDF, XPos, YPos
from fpdf.enums import TableBordersLayout
from fpdf.fonts import FontFace

from taximeter.billing.shown import Printed, printed
from taximeter.billing.statement import Statement
from taximeter.core.times import local, moment_us, zone

_FONT = "helvetica"
_GREY = (90, 90, 90)
_UTC = zone("UTC")
_MOST = (500, 1_200)
"""Characters in the cells of what a line is about and of what was used: 26 lines of the widest letters, of 35."""


class _Page(FPDF):
    """A4 across; each page says which of how many it is."""

    def __init__(self, title: str) -> None:
        super().__init__(orientation="landscape", format="A4")
        self._title = title
        self.set_title(title)
        self.set_margins(15, 15)
        self.set_auto_page_break(True, margin=18)

    def footer(self) -> None:
        self.set_y(-12)
        self.set_font(_FONT, size=8)
        self.set_text_color(*_GREY)
        self.cell(0, 6, f"{self._title} - page {self.page_no()} of {{nb}}", align="R")


def document(statement: Statement) -> bytes:
    """The PDF. Letters outside Latin-1 are shown by their code points: the standard fonts have none for them."""
    shown = printed(statement)
    page = _Page(_latin(shown.title))
    page.set_creation_date(local(moment_us(statement.closed_at or statement.to, _UTC, "closed_at"), _UTC))
    page.add_page()
    page.set_font(_FONT, style="B", size=16)
    _text(page, shown.title, 9)
    page.set_font(_FONT, size=10)
    _text(page, shown.period, 5)
    if shown.plans:
        _text(page, f"Plan: {shown.plans}", 5)
    page.ln(4)
    page.set_font(_FONT, size=9)
    _table(page, shown)
    page.ln(4)
    page.set_text_color(*_GREY)
    for words in shown.words:
        _text(page, words, 4.5)
    return bytes(page.output())


def _table(page: FPDF, shown: Printed) -> None:
    widths = (60, 140, 33, 34) if shown.own else (65, 165, 37)
    bold = FontFace(emphasis="BOLD")
    with page.table(
        col_widths=widths,
        width=sum(widths),
        align="LEFT",
        text_align=("LEFT", "LEFT", *("RIGHT",) * (len(widths) - 2)),
        borders_layout=TableBordersLayout.HORIZONTAL_LINES,
        headings_style=bold,
        line_height=4.5,
        padding=1,
    ) as table:
        for cells in _rows(shown):
            for part in _fitting([_latin(cell) for cell in cells]):
                table.row(part)
        ends = [shown.cost] if shown.own else []
        table.row([_latin(cell) for cell in ("Total", "", *ends, shown.charge)], style=bold)
        if shown.own:
            table.row([_latin(cell) for cell in ("Margin", "", "", shown.margin)])


def _fitting(cells: list[str]) -> list[list[str]]:
    """A row as several where its first two cells would not fit on a page: a row is never broken inside."""
    about = wrap(cells[0], _MOST[0]) or [""]
    used = [cells[1]]
    if len(cells[1]) > _MOST[1]:
        used = [part for text in cells[1].split("\n") for part in wrap(text, _MOST[1])]
    found = [list(pair) + [""] * (len(cells) - 2) for pair in zip_longest(about, used, fillvalue="")]
    found[0][2:] = cells[2:]
    return found


def _rows(shown: Printed) -> list[list[str]]:
    amounts = [f"Cost, {shown.currency}"] if shown.own else []
    found = [[shown.by, "Used", *amounts, f"Charge, {shown.currency}"]]
    for row in shown.rows:
        used = "\n".join(text for text in (row.used, row.prices, row.remarks) if text)
        found.append([row.about, used, *([row.cost] if shown.own else []), row.charge])
    return found


def _text(page: FPDF, text: str, height: float) -> None:
    page.multi_cell(0, height, _latin(text), new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def _latin(text: str) -> str:
    return text.encode("latin-1", "backslashreplace").decode("latin-1")
