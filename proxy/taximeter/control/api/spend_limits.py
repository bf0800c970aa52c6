"""OpenAI's spend limits of projects, in OpenAI's own shape: a hard budget in USD of a workspace and a month of UTC.

The official SDK's `client.admin.organization.projects.spend_limit`. It is the same budget that `/budgets` shows. Of an
organization there is none: budgets are each of a workspace, and nothing bounds all of them together.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec
from litestar import Controller, delete, get, post
from litestar.params import FromPath, JSONBody

from taximeter.budgets.responses import BudgetInfo
from taximeter.budgets.rule import Budget
from taximeter.budgets.service import BudgetService
from taximeter.budgets.tally import DIMENSIONS
from taximeter.control.api.parameters import Given, only_known_parameters
from taximeter.control.door.access import admin_only
from taximeter.control.services.services import Services
from taximeter.core.errors import BadRequest, NotFound

Row = dict[str, Any]
NUSD_PER_CENT = 10**7


class NewSpendLimit(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a spend limit is set to."""

    threshold_amount: int
    """In cents."""
    currency: Literal["USD"]
    interval: Literal["month"]


class SpendLimits(Controller):
    """`client.admin.organization.spend_limit`, and that of projects."""

    path = "/v1/organization"
    tags = ("organization",)
    guards = (admin_only, only_known_parameters)

    @get("/projects/{project_id:str}/spend_limit", summary="The hard limit of what a workspace may spend a month")
    async def retrieve(self, services: Given, project_id: FromPath[str]) -> Row:
        budgets = _of(services)
        found = _lowest(await _limits(budgets, project_id))
        if found is None:
            raise NotFound(f"Workspace {project_id[:128]!r} has no spend limit.", param="project_id")
        return await _shown(budgets, found)

    @post("/projects/{project_id:str}/spend_limit", status_code=200, summary="Set what a workspace may spend a month")
    async def update(self, services: Given, project_id: FromPath[str], data: JSONBody[NewSpendLimit]) -> Row:
        """Creates the budget, then ends those of the same kind there were."""
        if data.threshold_amount < 1:
            raise BadRequest("threshold_amount is in cents, at least 1.", param="threshold_amount")
        budgets = _of(services)
        before = await _limits(budgets, project_id)
        limit = data.threshold_amount * NUSD_PER_CENT
        same = [each for each in before if each.limit == limit]
        if same:
            made = same[0]
        else:
            made = await asyncio.to_thread(
                budgets.store.create, project_id, limit, unit="usd", period="month", mode="hard"
            )
            await budgets.begin(made)
        for each in before:
            if each.id != made.id:
                await asyncio.to_thread(budgets.store.end, each.id)
        return await _shown(budgets, made)

    @delete("/projects/{project_id:str}/spend_limit", status_code=200, summary="End a workspace's spend limit")
    async def remove(self, services: Given, project_id: FromPath[str]) -> Row:
        budgets = _of(services)
        found = await _limits(budgets, project_id)
        if not found:
            raise NotFound(f"Workspace {project_id[:128]!r} has no spend limit.", param="project_id")
        for each in found:
            await asyncio.to_thread(budgets.store.end, each.id)
        return {"object": "project.spend_limit.deleted", "deleted": True}

    @get("/spend_limit", summary="404: nothing bounds all workspaces together")
    async def of_all(self) -> Row:
        raise NotFound(_NONE)

    @delete("/spend_limit", status_code=200, summary="404: nothing bounds all workspaces together")
    async def remove_of_all(self) -> Row:
        raise NotFound(_NONE)

    @post("/spend_limit", status_code=200, summary="400: nothing bounds all workspaces together")
    async def set_of_all(self, data: JSONBody[NewSpendLimit]) -> Row:
        raise BadRequest(_NONE)


_NONE = "There is no spend limit over all workspaces. Set that of each: projects/{workspace}/spend_limit."


def _of(services: Services) -> BudgetService:
    if services.budgets is None:
        raise NotFound("This control plane keeps no budgets.")
    return services.budgets


async def _limits(budgets: BudgetService, workspace: str) -> list[Budget]:
    """Budgets in force that are what OpenAI calls a spend limit."""
    there = await asyncio.to_thread(budgets.store.listing)
    return [each for each in there if each.workspace == workspace and _is_one(each)]


def _is_one(budget: Budget) -> bool:
    whole = not any(getattr(budget, name) for name in DIMENSIONS)
    return whole and (budget.unit, budget.period, budget.tz, budget.mode) == ("usd", "month", "UTC", "hard")


def _lowest(found: list[Budget]) -> Budget | None:
    return min(found, key=lambda each: each.limit, default=None)


async def _shown(budgets: BudgetService, budget: Budget) -> Row:
    stands = next((each for each in await budgets.listing() if each.id == budget.id), None)
    return {
        "object": "project.spend_limit",
        "threshold_amount": budget.limit // NUSD_PER_CENT,
        "currency": "USD",
        "interval": "month",
        "enforcement": {"status": "enforcing" if stands is not None and _spent(stands) else "inactive"},
    }


def _spent(stands: BudgetInfo) -> bool:
    """Whether calls are refused now; where that is not known, no."""
    return stands.spent is not None and stands.spent + (stands.charged or 0) >= stands.limit
