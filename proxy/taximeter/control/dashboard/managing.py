"""Keys and budgets, seen and managed: by the admin alone, through forms of these pages alone, each change audited.

What is done is done by the same stores as the API's, so the rules, the audit log and the other nodes are the same.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, QueryParameter

from taximeter.budgets.api import NewBudget, about_its_own_key
from taximeter.budgets.responses import limit_of
from taximeter.budgets.service import BudgetService
from taximeter.control.api.parameters import Given, only_known_parameters
from taximeter.control.dashboard.contexts import BudgetsPage, KeysPage, KeyUse, Unrotated
from taximeter.control.dashboard.fields import fields, read
from taximeter.control.dashboard.pointing import pointing
from taximeter.control.dashboard.showing import ERRORS, show
from taximeter.control.dashboard.view import last_days
from taximeter.control.door.access import admin_only
from taximeter.control.services.querying import ApiRequest, if_readable, up_to_date
from taximeter.control.services.services import Services
from taximeter.core.audit import ACTIONS, AuditEntry, AuditFilters
from taximeter.core.errors import BadRequest, Forbidden, NotFound
from taximeter.core.times import local, moment_us, zone
from taximeter.core.views import cost_usd
from taximeter.keys.api import NewKey, Rotation
from taximeter.keys.store import CreatedKey, created
from taximeter.sinks.query import Filters

CHANGES = 12
"""Entries of the audit log a page shows."""
UTC = zone("UTC")
OVERLAPS = {"0": "at once", "3600": "after an hour", "86400": "after a day", "604800": "after a week"}
"""Seconds for which the secret before a rotation holds, and how the page says it."""
KEY_HINTS = {
    "workspace": "whose calls it makes",
    "name": "what it is for",
    "models": "gpt-4o*, text-embedding-3-*: only these; empty: all",
    "expires_at": "2027-01-31, or RFC 3339; empty: never",
}
BUDGET_HINTS = {
    "workspace": "whose use is bounded; *: each one's",
    "limit": "12.50, or 1000000",
    "key_id": "key_…: only its calls",
    "task": "only calls of this task; *: each by itself",
    "track": "only this track; *: each by itself",
    "document": "only this document; *: each",
    "end_user": "only this user; *: each by itself",
    "model": "as the request names it; *: each",
    "upstream": "as the settings name it",
    "period": "minute, hour, day, week, month, total, rolling 30d",
    "tz": "where a day, week or month begins",
    "mode": "hard: calls beyond it are refused; soft: told",
}
Workspace = Annotated[str | None, QueryParameter(description="Only this workspace's.")]


class KeyPages(Controller):
    """Proxy keys, for people."""

    tags = ("dashboard",)
    guards = (admin_only, only_known_parameters)
    exception_handlers = ERRORS

    @get("/dashboard/keys", summary="Proxy keys: made, rotated, revoked", media_type="text/html")
    async def listing(self, services: Given, request: ApiRequest, workspace: Workspace = None) -> Response[str]:
        return await _keys(services, request, workspace, {"workspace": workspace or ""})

    @post("/dashboard/keys", status_code=200, media_type="text/html", include_in_schema=False)
    async def create(self, services: Given, request: ApiRequest) -> Response[str]:
        """The page with the new key, shown this once; or the form again, with what is wrong beside its field."""
        given = await _given(services, request)
        try:
            asked = read(NewKey, given)
            expires_at = moment_us(asked.expires_at, UTC, "expires_at") if asked.expires_at else 0
            key, secret = await asyncio.to_thread(
                services.keys.create, asked.workspace, name=asked.name, models=asked.models, expires_at=expires_at
            )
        except BadRequest as problem:
            return await _keys(services, request, None, given, problem=problem)
        made = created(services.keys.info(key), secret)
        return await _keys(services, request, None, {"workspace": key.workspace}, made=made)

    @post("/dashboard/keys/{key_id:str}/rotate", status_code=200, media_type="text/html", include_in_schema=False)
    async def rotate(self, services: Given, request: ApiRequest, key_id: FromPath[str]) -> Response[str]:
        given = await _given(services, request)
        try:
            asked = read(Rotation, given)
            expires_at = moment_us(asked.expires_at, UTC, "expires_at") if asked.expires_at else None
            key, secret = await asyncio.to_thread(
                services.keys.rotate, key_id, overlap_s=asked.overlap_s, expires_at=expires_at
            )
        except BadRequest as problem:
            return await _keys(services, request, None, {}, unrotated=Unrotated(key_id, given, problem.message))
        return await _keys(services, request, None, {}, made=created(services.keys.info(key), secret), rotated=True)

    @post("/dashboard/keys/{key_id:str}/revoke", status_code=303, include_in_schema=False)
    async def revoke(self, services: Given, request: ApiRequest, key_id: FromPath[str]) -> Response[str]:
        await _given(services, request)
        await asyncio.to_thread(services.keys.revoke, key_id)
        return Response("", status_code=303, headers={"location": "/dashboard/keys"})


class BudgetPages(Controller):
    """Budgets, for people."""

    tags = ("dashboard",)
    guards = (admin_only, only_known_parameters)
    exception_handlers = ERRORS

    @get("/dashboard/budgets", summary="Budgets: how they stand; made, ended", media_type="text/html")
    async def listing(
        self,
        services: Given,
        request: ApiRequest,
        workspace: Workspace = None,
        key_id: Annotated[str | None, QueryParameter(description="What the form is filled with.")] = None,
    ) -> Response[str]:
        filled = {"workspace": workspace or "", "key_id": key_id or ""}
        return await _budgets(services, request, workspace, {name: text for name, text in filled.items() if text})

    @post("/dashboard/budgets", status_code=303, media_type="text/html", include_in_schema=False)
    async def create(self, services: Given, request: ApiRequest) -> Response[str]:
        given = await _given(services, request)
        budgets = budgets_of(services)
        try:
            asked = read(NewBudget, given)
            about_its_own_key(services, asked)
            limit = limit_of(asked.limit, asked.unit)
            named: dict[str, Any] = msgspec.structs.asdict(asked)
            del named["workspace"], named["limit"]
            budget = await asyncio.to_thread(budgets.store.create, asked.workspace, limit, **named)
        except BadRequest as problem:
            return await _budgets(services, request, None, given, problem)
        await budgets.begin(budget)
        return Response("", status_code=303, headers={"location": "/dashboard/budgets"})

    @post("/dashboard/budgets/{budget_id:str}/end", status_code=303, include_in_schema=False)
    async def end(self, services: Given, request: ApiRequest, budget_id: FromPath[str]) -> Response[str]:
        await _given(services, request)
        await asyncio.to_thread(budgets_of(services).store.end, budget_id)
        return Response("", status_code=303, headers={"location": "/dashboard/budgets"})


async def _given(services: Services, request: ApiRequest) -> dict[str, str]:
    """What a form was filled with, once it is known to be one of ours. Raises Forbidden, BadRequest."""
    form = await request.form()
    given = {name: str(value) for name, value in form.multi_items() if isinstance(value, str)}
    try:
        services.forms.take(given.pop("form", ""), dict(request.scope["headers"]))
    except Forbidden as error:
        services.audit.note("request.refused", f"POST {request.url.path}", outcome="refused", problem=error.message)
        raise
    return given


async def _keys(
    services: Services,
    request: ApiRequest,
    workspace: str | None,
    given: dict[str, str],
    *,
    problem: BadRequest | None = None,
    made: CreatedKey | None = None,
    rotated: bool = False,
    unrotated: Unrotated | None = None,
) -> Response[str]:
    """`problem`: of the form for a new key; `unrotated`: of a key's own."""
    complete, lag_s = await up_to_date(services)
    stored = await asyncio.to_thread(services.keys.listing)
    month_us = last_days(services.now_us(), UTC, local(services.now_us(), UTC).day)[0]
    used, changes = await asyncio.gather(
        if_readable(services.history.usage(Filters(from_us=month_us), ("key_id",))),
        if_readable(_changes(services, "key.")),
    )
    by_key = {group.key["key_id"]: group.totals for group in used or ()}
    infos = [services.keys.info(key) for key in stored if workspace in (None, key.workspace)]
    page = KeysPage(
        rows=[
            KeyUse(
                key=each,
                calls=None if used is None else by_key[each.id].requests if each.id in by_key else 0,
                cost=cost_usd(by_key[each.id]) if each.id in by_key else None,
            )
            for each in sorted(infos, key=lambda each: (each.state != "active", each.workspace, each.created_at or ""))
        ],
        workspace=workspace,
        mode=services.settings.auth.mode,
        fields=fields(NewKey, given, KEY_HINTS, problem),
        made=made,
        rotated=rotated,
        unrotated=unrotated,
        overlaps=OVERLAPS,
        pointing=pointing(services.settings, request.headers.get("host", ""), made.workspace if made else workspace),
        changes=changes,
        tokens=lambda: services.forms.token(dict(request.scope["headers"]).get(b"cookie")),
        complete=complete,
        lag_seconds=lag_s,
    )
    return show(request, page, 200 if problem is None and unrotated is None else 400)


async def _budgets(
    services: Services,
    request: ApiRequest,
    workspace: str | None,
    given: dict[str, str],
    problem: BadRequest | None = None,
) -> Response[str]:
    budgets, changes = await asyncio.gather(budgets_of(services).listing(), if_readable(_changes(services, "budget.")))
    page = BudgetsPage(
        budgets=[each for each in budgets if workspace in (None, each.workspace)],
        workspace=workspace,
        fields=fields(NewBudget, given, BUDGET_HINTS, problem),
        changes=changes,
        tokens=lambda: services.forms.token(dict(request.scope["headers"]).get(b"cookie")),
    )
    return show(request, page, 200 if problem is None else 400)


async def _changes(services: Services, kind: str) -> list[AuditEntry]:
    """The last changes of one kind."""
    if services.trail is None:
        return []
    actions = [action for action in ACTIONS if action.startswith(kind)]
    found, _ = await services.trail.entries(AuditFilters(action=actions), CHANGES, None)
    return list(found)


def budgets_of(services: Services) -> BudgetService:
    """Raises NotFound where no budgets are kept."""
    if services.budgets is None:
        raise NotFound("This control plane keeps no budgets.")
    return services.budgets


PAGES = (KeyPages, BudgetPages)
