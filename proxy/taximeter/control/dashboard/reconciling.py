"""The page of comparisons with providers: how each stands, and model by model what differs."""

from __future__ import annotations

from litestar import Controller, Response, get

from taximeter.control.api.parameters import Given, only_known_parameters
from taximeter.control.dashboard.contexts import Reconciled, ReconciledModel, ReconcilePage
from taximeter.control.dashboard.showing import ERRORS, show
from taximeter.control.door.access import admin_only
from taximeter.control.services.querying import ApiRequest
from taximeter.core.errors import NotFound
from taximeter.reconcile import responses, rule, shown
from taximeter.reconcile.rule import Cell
from taximeter.reconcile.service import ReconcileService

MOST_MODELS = 200
"""Models and keys that a comparison shows, those that differ first."""


class ReconcilePages(Controller):
    """What providers say they billed, for people."""

    tags = ("dashboard",)
    guards = (admin_only, only_known_parameters)
    exception_handlers = ERRORS

    @get("/dashboard/reconcile", summary="Our figures against the providers' own", media_type="text/html")
    async def page(self, services: Given, request: ApiRequest) -> Response[str]:
        service = services.reconcile
        found = [] if service is None else [await _reconciled(service, each) for each in await _names(service)]
        return show(request, ReconcilePage(comparisons=found))


async def _names(service: ReconcileService) -> list[str]:
    return [each.settings.name for each in await service.all()]


async def _reconciled(service: ReconcileService, name: str) -> Reconciled:
    try:
        standing, cells = await service.cells(name, None, None)
    except NotFound:  # not compared yet
        standing, cells = next(each for each in await service.all() if each.settings.name == name), []
    models = sorted((_model(each) for each in rule.by_model(cells)), key=lambda each: -each.apart)
    return Reconciled(
        info=shown.info(standing), days=standing.settings.days, at=standing.settings.at,
        models=models[:MOST_MODELS], further=max(0, len(models) - MOST_MODELS),
    )  # fmt: skip


def _model(cell: Cell) -> ReconciledModel:
    compared = rule.compare([cell])
    furthest = rule.worst(compared)
    return ReconciledModel(
        row=responses.row(cell),
        apart=0.0 if furthest is None else furthest.ratio,
        not_known=any(each.not_known for each in compared),
    )
