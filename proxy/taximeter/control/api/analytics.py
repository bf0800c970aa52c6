"""`/usage/trends`, `/usage/peaks`, `/usage/forecast`, `/usage/alternatives`."""

from __future__ import annotations

from typing import Annotated

from litestar import Controller, get
from litestar.params import QueryParameter

from taximeter.control.answers import queries
from taximeter.control.answers.insights import Alternatives, Forecast, Peaks, Trends
from taximeter.control.api.parameters import Asked, Given, Many, groups, only_known_parameters, split
from taximeter.control.api.usage import GroupBy
from taximeter.control.door.access import anyone_known
from taximeter.control.services.querying import answer


class Analytics(Controller):
    """What the sums of the past say."""

    path = "/usage"
    tags = ("analytics",)
    guards = (anyone_known, only_known_parameters)

    @get("/trends", summary="A range against the one before it")
    async def trends(self, services: Given, asked: Asked, group_by: GroupBy = None) -> Trends:
        """Without `from` the last 7 days until now; the range before has the same length."""
        return await answer(services, queries.trends(asked.filters, groups(group_by), services.now_us(), asked.tz))

    @get("/peaks", summary="The hours of the day, and the busiest single hours")
    async def peaks(self, services: Given, asked: Asked) -> Peaks:
        """Without `from` the last 30 days until now."""
        return await answer(services, queries.peaks(asked.filters, services.now_us(), asked.tz))

    @get("/forecast", summary="This month's cost until its end, with the error of such forecasts so far")
    async def forecast(self, services: Given, asked: Asked) -> Forecast:
        """`from` and `to` have no meaning here: it looks at the last 84 days and this month."""
        return await answer(services, queries.forecast(asked.filters, services.now_us(), asked.tz))

    @get("/alternatives", summary="What a task's tokens cost at other models' prices")
    async def alternatives(
        self,
        services: Given,
        asked: Asked,
        candidate: Annotated[
            Many, QueryParameter(description="Further models to compare: provider/model. Several are possible.")
        ] = None,
    ) -> Alternatives:
        """The same tokens at another model's list price, nothing more. Without `from` the last 30 days until now."""
        named = split(candidate)
        query = queries.alternatives(asked.filters, named, services.card, services.now_us(), asked.tz)
        return await answer(services, query)
