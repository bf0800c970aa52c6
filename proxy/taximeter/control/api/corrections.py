"""`POST /reprice`: a period priced again."""

from __future__ import annotations

from litestar import post
from litestar.params import JSONBody

from taximeter.control.api.parameters import Given, only_known_parameters
from taximeter.control.door.access import admin_only
from taximeter.control.services.corrections import RepriceRequest, filters_of
from taximeter.control.services.reprice import RepriceResponse, costs
from taximeter.core.errors import NotFound


@post(
    "/reprice",
    status_code=200,
    tags=["prices"],
    guards=[admin_only, only_known_parameters],
    summary="Price a period again from the kept usage; differences become corrections",
)
async def reprice_period(services: Given, data: JSONBody[RepriceRequest]) -> RepriceResponse:
    """By prices.toml, the environment and genai-prices as they are now. Doing it twice changes nothing more."""
    if services.corrections is None:
        raise NotFound("This control plane writes no journal.")
    filters = filters_of(data)
    if data.dry_run:
        return await services.corrections.reprice(filters, dry_run=True)
    with services.audit.act("prices.reprice", f"{data.from_}/{data.to or ''}") as change:
        repriced = await services.corrections.reprice(filters, dry_run=False)
        change.before, change.after = costs(repriced)
    return repriced
