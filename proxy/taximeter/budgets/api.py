"""`/budgets`: list, create, end budgets; list and settle what they are charged without its being known."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from litestar import Controller, delete, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from taximeter.budgets.responses import BudgetInfo, BudgetList, ChargeList, Settlement, info, limit_of
from taximeter.budgets.rule import Mode
from taximeter.budgets.service import BudgetService
from taximeter.budgets.tally import DIMENSIONS, Unit
from taximeter.control.api.parameters import Given, only_known_parameters
from taximeter.control.door.access import admin_only
from taximeter.control.services.corrections import Corrections
from taximeter.control.services.services import Services
from taximeter.core.errors import BadRequest, NotFound


class NewBudget(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a new budget is about."""

    workspace: str
    key_id: str = ""
    task: str = ""
    track: str = ""
    document: str = ""
    end_user: str = ""
    model: str = ""
    upstream: str = ""
    """Only calls that say so; any combination. `*`: each value has the limit for itself."""
    limit: Decimal
    """USD, tokens, requests or seconds of audio."""
    unit: Unit = "usd"
    period: str = "month"
    """minute, hour, day, week, month, total; or a rolling window, such as `rolling 30d`."""
    tz: str = "UTC"
    """IANA time zone in which the period begins."""
    mode: Mode = "hard"


def about_its_own_key(services: Services, asked: NewBudget) -> None:
    """Raises BadRequest where a key is named that opens another workspace: no call would count, and nothing be bounded.

    An id that is not known here passes: a key of it may be made in the settings, or be another node's.
    """
    for key in services.keys.listing():
        if key.id == asked.key_id and asked.workspace not in ("*", key.workspace):
            raise BadRequest(
                f"The key {key.id} opens workspace {key.workspace!r}: no call with it is of {asked.workspace!r}.",
                param="key_id",
            )


class BudgetAdmin(Controller):
    """Budgets of workspaces, and of parts of them."""

    path = "/budgets"
    tags = ("budgets",)
    guards = (admin_only, only_known_parameters)

    @get("/", summary="List the budgets, and how they stand")
    async def listing(
        self,
        services: Given,
        workspace: Annotated[str | None, QueryParameter(description="Only this workspace's.")] = None,
    ) -> BudgetList:
        return BudgetList([each for each in await _of(services).listing() if workspace in (None, each.workspace)])

    @post("/", summary="Create a budget")
    async def create(self, services: Given, data: JSONBody[NewBudget]) -> BudgetInfo:
        budgets = _of(services)
        about_its_own_key(services, data)
        limit = limit_of(data.limit, data.unit)
        named: dict[str, Any] = {name: getattr(data, name) for name in ("unit", "period", "tz", "mode", *DIMENSIONS)}
        budget = await asyncio.to_thread(budgets.store.create, data.workspace, limit, **named)
        await budgets.begin(budget)
        return next(each for each in await budgets.listing() if each.id == budget.id)

    @get("/{budget_id:str}/allowances", summary="How what each value may use of a budget with * stands")
    async def allowances(
        self,
        services: Given,
        budget_id: FromPath[str],
        limit: Annotated[int, QueryParameter(ge=1, le=1_000, description="So many, those that used most.")] = 100,
    ) -> BudgetList:
        """Of values used in the period now."""
        return BudgetList(await _of(services).allowances(budget_id, limit))

    @get("/charges", summary="Calls of which it is not known what they used, and what budgets are charged for them")
    async def charges(
        self,
        services: Given,
        workspace: Annotated[str | None, QueryParameter(description="Only this workspace's.")] = None,
    ) -> ChargeList:
        return ChargeList(await _corrections_of(services).charges(workspace))

    @post("/charges/{request_id:str}", status_code=200, summary="Say what such a call used, or that it cost nothing")
    async def settle(self, services: Given, request_id: FromPath[str], data: JSONBody[Settlement]) -> ChargeList:
        """Returns what it was charged until now."""
        with services.audit.act("budget.settle", request_id) as change:
            change.before = charged = ChargeList(await _corrections_of(services).settle(request_id, data))
            change.after = data
        return charged

    @delete("/{budget_id:str}", status_code=200, summary="End a budget")
    async def end(self, services: Given, budget_id: FromPath[str]) -> BudgetInfo:
        ended = await asyncio.to_thread(_of(services).store.end, budget_id)
        return info(ended, ended.ended_at)


def _corrections_of(services: Services) -> Corrections:
    if services.corrections is None:
        raise NotFound("This control plane writes no journal.")
    return services.corrections


def _of(services: Services) -> BudgetService:
    if services.budgets is None:
        raise NotFound("This control plane keeps no budgets.")
    return services.budgets
