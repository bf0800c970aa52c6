"""Statements in a browser: drawn up for a month, and those that are closed; closing is done elsewhere."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote, urlencode

from litestar import Controller, Response, get
from litestar.params import FromPath, QueryParameter

from taximeter.billing.api import billing_of, priced
from taximeter.billing.asking import Closing, question, tariff
from taximeter.billing.period import period
from taximeter.billing.shown import printed
from taximeter.billing.statement import Margin, Standing
from taximeter.control.api.parameters import Given, only_known_parameters
from taximeter.control.dashboard.contexts import BillingPage
from taximeter.control.dashboard.showing import ERRORS, show
from taximeter.control.door.access import admin_only
from taximeter.control.services.querying import ApiRequest
from taximeter.control.services.services import Services
from taximeter.core.errors import BadRequest, NotFound
from taximeter.core.times import local, zone


class BillingPages(Controller):
    """Statements, for people."""

    tags = ("dashboard",)
    guards = (admin_only, only_known_parameters)
    exception_handlers = ERRORS

    @get("/dashboard/billing", summary="Statements: drawn up for a month, and closed ones", media_type="text/html")
    async def month(
        self,
        services: Given,
        request: ApiRequest,
        workspace: Annotated[str, QueryParameter(description="Whose; empty: the list of all.")] = "",
        month: Annotated[str, QueryParameter(description="Such as 2026-11; empty: this one.")] = "",
    ) -> Response[str]:
        page = BillingPage(
            workspace=workspace,
            month=month or _this_month(services),
            statement=None,
            href="",
            problem="",
            margins=[],
            standings=[],
        )
        if not workspace:
            page.margins, page.problem = await _margins(services, page.month)
        else:
            asked = Closing(workspace=workspace, month=page.month)
            page.href = f"/billing/statement?{urlencode({'workspace': workspace, 'month': page.month})}&"
            try:
                made = await billing_of(services).preview(question(asked, services.settings), priced(services))
                page.statement = printed(made)
            except (BadRequest, NotFound) as problem:
                page.problem = problem.message
        page.standings = await _standings(services, workspace or None)
        return show(request, page)

    @get("/dashboard/billing/{workspace:str}/{number:int}", summary="A closed statement", media_type="text/html")
    async def closed(
        self, services: Given, request: ApiRequest, workspace: FromPath[str], number: FromPath[int]
    ) -> Response[str]:
        made = await billing_of(services).show(workspace, number)
        page = BillingPage(
            workspace=workspace,
            month=_this_month(services),
            statement=printed(made),
            href=f"/billing/statements/{quote(workspace, safe='')}/{number}?",
            problem="",
            margins=[],
            standings=await _standings(services, workspace),
        )
        return show(request, page)


async def _margins(services: Services, month: str) -> tuple[list[Margin], str]:
    """Of that month, or what is wrong with it."""
    settings = services.settings
    try:
        asked = period(month, None, None, settings.billing.tz)
    except BadRequest as problem:
        return [], problem.message
    return (await billing_of(services).margins(asked, tariff(settings))).data, ""


def _this_month(services: Services) -> str:
    return f"{local(services.now_us(), zone(services.settings.billing.tz)):%Y-%m}"


async def _standings(services: Services, workspace: str | None) -> list[Standing]:
    try:
        return await billing_of(services).standing(workspace)
    except NotFound:
        return []
