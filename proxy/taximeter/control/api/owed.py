"""`GET /usage/owed`: calls that are billed later, and what is known of what they wait for."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.params import QueryParameter

from taximeter.control.answers.owed import OwedList, info
from taximeter.control.api.parameters import Given, Many, only_known_parameters, split
from taximeter.control.door.access import anyone_known, own
from taximeter.control.services.querying import DRAIN_S, ApiRequest
from taximeter.core.errors import BadRequest, NotFound

STATES = ("outstanding", "expired", "ended")


@get(
    "/usage/owed",
    tags=["usage"],
    guards=[anyone_known, only_known_parameters],
    summary="Calls that are billed later: what is outstanding, since when, for whom",
)
async def owed(
    services: Given,
    request: ApiRequest,
    workspace: Annotated[str | None, QueryParameter(description="Only this workspace's.")] = None,
    states: Annotated[Many, QueryParameter(name="state", description="outstanding (default), expired, ended.")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=10_000, description="So many, the oldest.")] = 1_000,
) -> OwedList:
    """`outstanding` holds what has ended, too, as long as its results have not been read whole."""
    if services.owed is None:
        raise NotFound("This control plane settles nothing that is billed later.")
    asked = split(states) or ["outstanding"]
    for name in asked:
        if name not in STATES:
            raise BadRequest(f"No state {name[:80]!r}. Allowed: {', '.join(STATES)}.", param="state")
    mine = own(request.auth, [] if workspace is None else [workspace])
    await services.delivery.drain(DRAIN_S)
    async with services.shares.turn():
        found = await services.owed.listed(mine[0] if mine else None, asked, limit)
    return OwedList([info(each) for each in found])
