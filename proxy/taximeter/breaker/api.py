"""`/breakers`: what breakers stop, and letting it go on."""

from __future__ import annotations

import asyncio
from typing import Annotated

from litestar import Controller, delete, get
from litestar.params import FromPath, QueryParameter

from taximeter.breaker.responses import TripInfo, TripList, info
from taximeter.breaker.service import BreakerService
from taximeter.control.api.parameters import Given, only_known_parameters
from taximeter.control.door.access import admin_only
from taximeter.control.services.services import Services
from taximeter.core.errors import NotFound


class BreakerAdmin(Controller):
    """Runaway breakers."""

    path = "/breakers"
    tags = ("budgets",)
    guards = (admin_only, only_known_parameters)

    @get("/", summary="List what breakers stop")
    async def listing(
        self,
        services: Given,
        all: Annotated[bool, QueryParameter(description="Also what they stopped before.")] = False,
    ) -> TripList:
        store = _of(services).store
        return TripList([info(each) for each in await asyncio.to_thread(store.stored if all else store.open)])

    @delete("/{trip_id:str}", status_code=200, summary="Let it go on before its time")
    async def reset(self, services: Given, trip_id: FromPath[str]) -> TripInfo:
        [ended] = await _of(services).reset([trip_id])
        return info(ended)


def _of(services: Services) -> BreakerService:
    if services.breakers is None:
        raise NotFound("This control plane knows no breakers.")
    return services.breakers
