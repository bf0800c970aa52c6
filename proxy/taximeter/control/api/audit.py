"""`/audit`: who changed what, who signed in, and who was refused."""

from __future__ import annotations

from typing import Annotated

from litestar import Controller, get
from litestar.params import QueryParameter

from taximeter.control.answers.audit import AuditPage, info
from taximeter.control.api.parameters import From, Given, Many, To, Zone, only_known_parameters, split
from taximeter.control.door.access import admin_only
from taximeter.core.audit import ACTIONS, AuditFilters
from taximeter.core.errors import BadRequest, NotFound
from taximeter.core.times import range_us


class AuditAdmin(Controller):
    """The audit log of all nodes on this history."""

    path = "/audit"
    tags = ("node",)
    guards = (admin_only, only_known_parameters)

    @get("/", summary="Who changed what, signed in, or was refused; newest first")
    async def listing(
        self,
        services: Given,
        from_: From = None,
        to: To = None,
        tz: Zone = "UTC",
        action: Annotated[Many, QueryParameter(description="Only these; what there is: docs/day-2.md.")] = None,
        actor: Annotated[Many, QueryParameter(description="Only what these did.")] = None,
        target: Annotated[Many, QueryParameter(description="Only what was done to these.")] = None,
        outcome: Annotated[Many, QueryParameter(description="ok, refused, failed.")] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=1_000, description="Entries a page.")] = 100,
        page: Annotated[str | None, QueryParameter(description="The answer before's `next_page`.")] = None,
    ) -> AuditPage:
        if services.trail is None:
            raise NotFound("This control plane keeps no audit log.")
        from_us, to_us = range_us(from_, to, tz)
        asked = AuditFilters(
            from_us=from_us,
            to_us=to_us,
            action=known_actions(split(action)) or None,
            actor=split(actor) or None,
            target=split(target) or None,
            outcome=split(outcome) or None,
        )
        entries, next_page = await services.trail.entries(asked, limit, page)
        return AuditPage([info(entry) for entry in entries], next_page)


def known_actions(named: list[str]) -> list[str]:
    """The same. Raises BadRequest where there is none of a name, so that a misspelt one finds nothing unseen."""
    for each in named:
        if each not in ACTIONS:
            raise BadRequest(f"No action {each[:80]!r}. There are: {', '.join(ACTIONS)}.", param="action")
    return named
