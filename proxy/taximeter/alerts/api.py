"""`/alerts`: what was told lately, and what is on its way."""

from __future__ import annotations

from litestar import Controller, get

from taximeter.alerts.responses import AlertList, listed
from taximeter.control.api.parameters import Given, only_known_parameters
from taximeter.control.door.access import admin_only


class AlertAdmin(Controller):
    """Alerts without Prometheus."""

    path = "/alerts"
    tags = ("node",)
    guards = (admin_only, only_known_parameters)

    @get("/", summary="List what alerts told lately, and what is on its way")
    async def listing(self, services: Given) -> AlertList:
        """Of this node."""
        return AlertList() if services.alerts is None else listed(services.alerts.state)
