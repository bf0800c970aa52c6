"""`/usage/trends`, `/usage/peaks`, `/usage/forecast`, `/usage/alternatives`, `/usage/latency`, `/usage/quantities`."""

from __future__ import annotations

from typing import Annotated

from litestar import Controller, get
from litestar.params import QueryParameter

from taximeter.control.answers import latency, quantities, queries
from taximeter.control.answers.insights import TREND_DAYS, Alternatives, Forecast, Peaks, Trends, ranged
from taximeter.control.answers.latency import LatencyResponse
from taximeter.control.answers.quantities import QuantitiesResponse
from taximeter.control.api.parameters import Asked, Given, Many, groups, only_known_parameters, split, window_of
from taximeter.control.api.usage import GroupBy, Windows
from taximeter.control.door.access import anyone_known
from taximeter.control.services.querying import answer, up_to_date
from taximeter.core.errors import BadRequest
from taximeter.core.times import zone
from taximeter.sinks.history.windows import boundaries


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

    @get("/latency", summary="Percentiles of how long calls took, to the end and to the first token")
    async def latency(
        self,
        services: Given,
        asked: Asked,
        group_by: Annotated[str, QueryParameter(description="One name to group by.")] = "model",
        window: Windows = None,
    ) -> LatencyResponse:
        """Of calls that ended well; without `from` the last 7 days until now. Exact up to 20,000 calls: see `basis`."""
        by, *more = groups([group_by])
        if more:
            raise BadRequest("Latencies are grouped by one name.", param="group_by")
        if window == "minute":
            raise BadRequest("Windows of latencies are hour, day or month.", param="window")
        filters = ranged(asked.filters, services.now_us(), zone(asked.tz), TREND_DAYS)
        ends = filters.from_us or 0, filters.to_us or 0
        wide = window_of(window)
        marks = [*ends] if wide is None else boundaries(*ends, wide, asked.tz)
        complete, lag_s = await up_to_date(services)
        told = latency.response(filters, by, marks, await services.history.latency(filters, by, marks))
        told.complete, told.lag_seconds = complete, lag_s
        return told

    @get("/quantities", summary="Images, characters, pages, seconds, uses of tools and rarer tokens")
    async def quantities(self, services: Given, asked: Asked, group_by: GroupBy = None) -> QuantitiesResponse:
        """What is used beside the sums of `/usage`; of the hours (UTC) that begin in the range."""
        complete, lag_s = await up_to_date(services)
        told = quantities.response(asked.filters, await services.history.quantities(asked.filters, groups(group_by)))
        told.complete, told.lag_seconds = complete, lag_s
        return told
