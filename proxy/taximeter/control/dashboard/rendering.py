"""Templates to pages: jinja2 with everything escaped, and the headers that keep a page to its own origin."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from litestar import Response
from msgspec.structs import asdict

from taximeter import __version__
from taximeter.billing.shown import EXACT, amount
from taximeter.control.dashboard.contexts import Frame, Page
from taximeter.control.dashboard.view import FAILED, PERIODS, REFRESH_S
from taximeter.core import figures, views
from taximeter.core.times import local, shown
from taximeter.core.visible import visible, visible_json

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_FOLDER = Path(__file__).parent
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "same-origin",  # with no-referrer a browser sends `Origin: null` with our own forms
}
STATIC = {
    "dashboard.css": "text/css",
    "live.js": "text/javascript",
    "refresh.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""Files of static/ -> media type; nothing else is served from there."""


RECORD_PLACES = 6
"""Decimals of what a single call costs, wherever calls are listed; live.js has them from the page."""


@cache
def environment() -> Environment:
    """jinja2 as our templates need it. Not imported with this module: control is ready the sooner."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "count": figures.count,
        "calls": lambda number: f"{figures.count(number)} call{'' if number == 1 else 's'}",
        "money": figures.money,
        "places": figures.places,
        "milliseconds": figures.milliseconds,
        "whole": lambda ms: figures.count(None if ms is None else round(ms)),
        "size": figures.size,
        "change": figures.change,
        "share": figures.share,
        "rate": figures.rate,
        "usd": lambda nusd: None if nusd is None else views.usd(nusd),
        "rfc3339": shown,
        "moment": moment,
        "moment_utc": lambda us: moment(us, ZoneInfo("UTC")),
        "plain_amount": lambda value: f"{value:,f}".rstrip("0").rstrip(".") if value % 1 else f"{value:,.0f}",
        "exact_usd": lambda value: amount(value, EXACT),
        "clock": lambda us, tz: f"{local(us, tz):%H:%M:%S}",
        "percent": lambda fraction: figures.UNKNOWN if fraction is None else f"{fraction * 100:.0f} %",
        "exact": exact,
        "document": document,
        "named": lambda value: "(none)" if value in (None, "") else value,
    }
    made.globals |= {
        "version": __version__,
        "periods": PERIODS,
        "refreshes": REFRESH_S,
        "record_places": RECORD_PLACES,
        "failed": list(FAILED),
    }
    return made


def _shown(value: object) -> object:
    """What any `{{ … }}` comes to: text that could turn the reading order, or is not seen at all, is spelled out."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def exact(value: str) -> Markup:
    """For a form's hidden field, which comes back as it was: odd characters as references, not spelled out."""
    from markupsafe import Markup, escape

    escaped = "".join(each if each.isprintable() else f"&#{ord(each)};" for each in str(escape(value)))
    return Markup(escaped)  # noqa: S704 - escaped


def document(text: str) -> Markup:
    """A JSON document in its own lines, what is not seen in it escaped as JSON does."""
    from markupsafe import Markup, escape

    return Markup(escape(visible_json(text)))  # noqa: S704 - escaped


def compile_templates() -> None:
    """All of them, which is most of the work of a process's first page."""
    for name in environment().list_templates():
        environment().get_template(name)


def page(frame: Frame, context: Page, status: int = 200) -> Response[str]:
    """A page as a response."""
    html = environment().get_template(context.template).render(asdict(frame) | asdict(context))
    return Response(html, status_code=status, media_type="text/html", headers=HEADERS)


@cache
def static(name: str) -> bytes:
    """A file of STATIC, or charts.css: pygal's own styles."""
    if name == "charts.css":
        from taximeter.control.dashboard.charts import style_sheet

        return style_sheet().encode()
    return (_FOLDER / "static" / name).read_bytes()


def moment(us: int, tz: ZoneInfo) -> str:
    """22 Nov 14:03:05"""
    at = local(us, tz)
    return f"{at.day} {at:%b %H:%M:%S}"
