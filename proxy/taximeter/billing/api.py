"""`/billing/statements`: drawn up, closed, listed and shown again."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from litestar import Controller, Response, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from taximeter.billing.asking import MOST_CHUNKS, Closing, question, tariff
from taximeter.billing.books import Tariff
from taximeter.billing.formats import MEDIA, Format, written
from taximeter.billing.period import period
from taximeter.billing.service import Billing
from taximeter.billing.statement import Audience, MarginList, StandingList, Statement, for_customer
from taximeter.control.answers.responses import encode
from taximeter.control.api.parameters import From, Given, Many, To, only_known_parameters, split
from taximeter.control.door.access import admin_only
from taximeter.control.services.services import Services
from taximeter.control.services.unit_prices import itemise
from taximeter.core.errors import NotFound

PRINTED = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
"""Of a statement as a page: it has its style in itself."""


Kind = Annotated[Format, QueryParameter(name="format", description="json, csv, html, or pdf.")]
For = Annotated[Audience, QueryParameter(name="for", description="customer: without cost and margin.")]


class BillingAdmin(Controller):
    """Statements of workspaces."""

    path = "/billing"
    tags = ("billing",)
    guards = (admin_only, only_known_parameters)

    @get("/statements", summary="Closed statements, beside what the ledger says and what is still open")
    async def listing(
        self,
        services: Given,
        workspace: Annotated[str | None, QueryParameter(description="Null: each that has statements.")] = None,
    ) -> StandingList:
        return StandingList(data=await billing_of(services).standing(workspace))

    @get("/margins", summary="Cost, charge and margin of each workspace in a period")
    async def margins(
        self,
        services: Given,
        month: Annotated[str | None, QueryParameter(description="Such as 2026-11; or from and to.")] = None,
        from_: From = None,
        to: To = None,
        tz: Annotated[str | None, QueryParameter(description="IANA time zone; null: billing.tz.")] = None,
    ) -> MarginList:
        """By the plans as they are now, closed or not; corrections count in the period they are of."""
        settings = services.settings
        asked = period(month, from_, to, tz or settings.billing.tz)
        return await billing_of(services).margins(asked, tariff(settings))

    @get("/statement", summary="A statement as it would be closed now: cost and charge of any period")
    async def preview(
        self,
        services: Given,
        workspace: Annotated[str, QueryParameter(description="Whose.")],
        month: Annotated[str | None, QueryParameter(description="Such as 2026-11; or from and to.")] = None,
        from_: From = None,
        to: To = None,
        tz: Annotated[str | None, QueryParameter(description="IANA time zone; null: billing.tz.")] = None,
        by: Annotated[
            Many, QueryParameter(description="What lines are grouped by: any name to group by but workspace.")
        ] = None,
        currency: Annotated[str | None, QueryParameter(description="Null: billing.currency.")] = None,
        chunks: Annotated[int, QueryParameter(ge=0, le=MOST_CHUNKS, description="Chunks indexed, as you know.")] = 0,
        kind: Kind = "json",
        reader: For = "operator",
    ) -> Response[Statement]:
        asked = Closing(
            workspace=workspace, month=month, from_=from_, to=to, tz=tz, by=split(by), currency=currency, chunks=chunks
        )
        made = await billing_of(services).preview(question(asked, services.settings), priced(services))
        return await answered(made, kind, reader)

    @post("/statements", summary="Close a statement: numbered, and never changed again")
    async def close(self, services: Given, data: JSONBody[Closing]) -> Statement:
        """What comes later for its period is on the next one."""
        return await closed(services, data)

    @get("/statements/{workspace:str}/{number:int}", summary="A closed statement, as it was closed")
    async def show(
        self,
        services: Given,
        workspace: FromPath[str],
        number: FromPath[int],
        kind: Kind = "json",
        reader: For = "operator",
    ) -> Response[Statement]:
        return await answered(await billing_of(services).show(workspace, number), kind, reader)


async def closed(services: Services, asked: Closing) -> Statement:
    """Close it, and have it written down who did. Raises as Billing.close."""
    question_, prices = question(asked, services.settings), priced(services)
    with services.audit.act("statement.close", asked.workspace) as change:
        by = services.audit.actor()
        made = await billing_of(services).close(question_, prices, by=by.user or by.name, anyway=asked.force)
        change.target = f"{asked.workspace} {made.number}"
        change.after = {"from": made.from_, "to": made.to, "cost_usd": str(made.total.cost_usd)}
    return made


def priced(services: Services) -> Tariff:
    """Plans and rates, and what calls' costs are made of by the providers' prices in force."""
    return tariff(services.settings, itemise(services.card_of))


def billing_of(services: Services) -> Billing:
    """Raises NotFound where there is no history to make statements of."""
    if services.billing is None:
        raise NotFound("This control plane makes no statements.")
    return services.billing


async def answered(statement: Statement, kind: Format, reader: Audience) -> Response[Any]:
    """The statement as JSON, or as a file."""
    shown = for_customer(statement) if reader == "customer" else statement
    if kind == "json":
        return Response(encode(shown), media_type="application/json")
    made = await asyncio.to_thread(written, shown, kind)
    return Response(made, media_type=MEDIA[kind], headers=PRINTED if kind == "html" else None)
