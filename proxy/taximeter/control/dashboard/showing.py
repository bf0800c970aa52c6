"""What every page has around it: who looks, where one can go, and errors as pages."""

from __future__ import annotations

import logging
from http import HTTPStatus
from urllib.parse import quote

from litestar import Response
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap

from taximeter.control.dashboard.contexts import ErrorPage, Frame, Page
from taximeter.control.dashboard.rendering import page
from taximeter.control.door.access import Caller
from taximeter.control.door.door import READING
from taximeter.control.door.sessions import COOKIE
from taximeter.control.services.querying import ApiRequest
from taximeter.core.errors import RequestError, Unauthorized
from taximeter.sinks.history.database import HistoryUnavailable

log = logging.getLogger(__name__)

NAV = (
    ("Overview", "/"),
    ("Analytics", "/dashboard/analytics"),
    ("Performance", "/dashboard/performance"),
    ("Records", "/dashboard/records"),
    ("Live", "/dashboard/live"),
)
OF_ADMIN = (
    ("Keys", "/dashboard/keys"),
    ("Budgets", "/dashboard/budgets"),
    ("Billing", "/dashboard/billing"),
    ("Meter health", "/dashboard/health"),
)


def show(request: ApiRequest, context: Page, status: int = 200) -> Response[str]:
    """A page for whoever asks."""
    caller: Caller = request.scope.get("auth") or Caller()  # refused before anyone asked who it is
    nav = NAV + (OF_ADMIN if caller.admin else ())
    return page(Frame(caller=caller, nav=nav, signed_in=COOKIE in request.cookies), context, status)


def _refused(request: ApiRequest, error: RequestError) -> Response[str]:
    if isinstance(error, Unauthorized):
        query = request.url.query
        where = request.url.path + (f"?{query}" if query else "") if request.method in READING else "/"
        return Response("", status_code=303, headers={"location": f"/dashboard/login?next={quote(where, safe='')}"})
    return _told(request, error.status, error.message)


def _unknown(request: ApiRequest, error: HTTPException) -> Response[str]:
    return _told(request, error.status_code, error.detail)


def _without_history(request: ApiRequest, error: HistoryUnavailable) -> Response[str]:
    log.warning("dashboard: %s", error)
    return _told(request, 503, "The history database cannot be read now. Calls go on and are counted; try again soon.")


def _unforeseen(request: ApiRequest, error: Exception) -> Response[str]:
    log.error("dashboard: %s failed", request.url.path, exc_info=error)
    return _told(request, 500, "Something here failed; the log has it.")


def _told(request: ApiRequest, status: int, message: str) -> Response[str]:
    return show(request, ErrorPage(title=HTTPStatus(status).phrase, message=message), status)


def unknown_page(request: ApiRequest, error: HTTPException) -> Response[str] | None:
    """A page for a browser that asks for what is not here; None: who asks is no browser."""
    if "text/html" not in request.headers.get("accept", ""):
        return None
    return _told(request, error.status_code, f"There is no page {request.url.path[:128]!r} here.")


ERRORS: ExceptionHandlersMap = {
    RequestError: _refused,
    HTTPException: _unknown,
    HistoryUnavailable: _without_history,
    Exception: _unforeseen,
}
"""For the pages' controllers."""
