"""`/reconciliations`: our figures against what providers say they billed."""

from __future__ import annotations

from litestar import Controller, get, post
from litestar.params import FromPath

from taximeter.control.api.parameters import From, Given, To, only_known_parameters
from taximeter.control.door.access import admin_only
from taximeter.control.services.services import Services
from taximeter.core.errors import NotFound
from taximeter.core.times import range_us
from taximeter.reconcile import shown
from taximeter.reconcile.responses import ReconcileDetail, ReconcileInfo, ReconcileList
from taximeter.reconcile.rule import PullFailed, day_of
from taximeter.reconcile.service import ReconcileService


class ReconcileAdmin(Controller):
    """Comparisons with providers."""

    path = "/reconciliations"
    tags = ("reconcile",)
    guards = (admin_only, only_known_parameters)

    @get("/", summary="How each comparison with a provider stands")
    async def listing(self, services: Given) -> ReconcileList:
        """Of the days that were compared last."""
        if services.reconcile is None:
            return ReconcileList([])
        return ReconcileList([shown.info(each) for each in await services.reconcile.all()])

    @get("/{name:str}", summary="One comparison, by day, model and key")
    async def one(self, services: Given, name: FromPath[str], from_: From = None, to: To = None) -> ReconcileDetail:
        """Of whole days (UTC); without a range, of those compared last."""
        from_us, to_us = range_us(from_, to, "UTC")
        days = [None if us is None else day_of(us // 1_000_000) for us in (from_us, to_us)]
        return shown.detail(*await _of(services).cells(name, *days))

    @post("/{name:str}", status_code=200, summary="Compare now")
    async def compare(self, services: Given, name: FromPath[str]) -> ReconcileInfo:
        """Asks the provider again, which can take minutes. What went wrong is `problem` of the answer."""
        service = _of(services)
        try:
            return shown.info(await service.now(name))
        except PullFailed:
            return next(shown.info(each) for each in await service.all() if each.settings.name == name)


def _of(services: Services) -> ReconcileService:
    if services.reconcile is None:
        raise NotFound("This control plane compares nothing.")
    return services.reconcile
