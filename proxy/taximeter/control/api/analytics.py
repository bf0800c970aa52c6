"""`/usage/trends`, `/usage/peaks`, `/usage/forecast`, `/usage/alternatives`. The shapes are in insights.py."""

from __future__ import annotations

import asyncio
from typing import Annotated
from zoneinfo import ZoneInfo

from litestar import Controller, get
from litestar.params import QueryParameter
from msgspec.structs import replace

from taximeter.control.answers import insights
from taximeter.control.answers.insights import Alternatives, Forecast, Peaks, Trends
from taximeter.control.api.parameters import Asked, Given, Many, groups, only_known_parameters, split
from taximeter.control.api.usage import GroupBy, bounded, up_to_date
from taximeter.control.door.access import anyone_known
from taximeter.core.errors import BadRequest

MOST_CANDIDATES = 50


class Analytics(Controller):
    """What the sums of the past say."""

    path = "/usage"
    tags = ("analytics",)
    guards = (anyone_known, only_known_parameters)

    @get("/trends", summary="A range against the one before it")
    async def trends(self, services: Given, asked: Asked, group_by: GroupBy = None) -> Trends:
        """Without `from` the last 7 days until now; the range before has the same length."""
        names = groups(group_by)
        complete, lag_s = await up_to_date(services, ())
        filters = insights.ranged(asked.filters, services.now_us(), ZoneInfo(asked.tz), insights.TREND_DAYS)
        now, then = await asyncio.gather(
            services.history.usage(filters, names), services.history.usage(insights.before(filters), names)
        )
        trends = await asyncio.to_thread(insights.trends, filters, bounded(now), bounded(then))
        return replace(trends, complete=complete, lag_seconds=lag_s)

    @get("/peaks", summary="The hours of the day, and the busiest single hours")
    async def peaks(self, services: Given, asked: Asked) -> Peaks:
        """Without `from` the last 30 days until now."""
        complete, lag_s = await up_to_date(services, ())
        filters = insights.ranged(asked.filters, services.now_us(), ZoneInfo(asked.tz), insights.PEAK_DAYS)
        hourly = bounded(await services.history.usage(filters, (), "hour", asked.tz))
        peaks = await asyncio.to_thread(insights.peaks, filters, hourly, asked.tz)
        return replace(peaks, complete=complete, lag_seconds=lag_s)

    @get("/forecast", summary="This month's cost until its end, with the error of such forecasts so far")
    async def forecast(self, services: Given, asked: Asked) -> Forecast:
        """`from` and `to` have no meaning here: it looks at the last 84 days and this month."""
        if asked.filters.from_us is not None or asked.filters.to_us is not None:
            raise BadRequest("A forecast is of this month; it takes neither 'from' nor 'to'.", param="from")
        complete, lag_s = await up_to_date(services, ())
        now_us = services.now_us()
        filters = insights.forecast_filters(asked.filters, now_us, ZoneInfo(asked.tz))
        daily = await services.history.usage(filters, (), "day", asked.tz)
        return replace(insights.forecast(daily, now_us, asked.tz), complete=complete, lag_seconds=lag_s)

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
        further = candidates(split(candidate))
        complete, lag_s = await up_to_date(services, ())
        now_us = services.now_us()
        filters = insights.ranged(asked.filters, now_us, ZoneInfo(asked.tz), insights.PEAK_DAYS)
        sums = await services.history.usage(replace(filters, operation="llm"), ("task", "provider", "model"))
        answer = await asyncio.to_thread(insights.alternatives, filters, bounded(sums), further, services.card, now_us)
        return replace(answer, complete=complete, lag_seconds=lag_s)


def candidates(names: list[str]) -> list[tuple[str, str]]:
    """`provider/model` names taken apart. Raises BadRequest."""
    if len(names) > MOST_CANDIDATES:
        raise BadRequest(f"At most {MOST_CANDIDATES} candidates.", param="candidate")
    for name in names:
        provider, slash, model = name.partition("/")
        if not (provider and slash and model):
            raise BadRequest(f"{name[:80]!r} is no provider/model, such as openai/gpt-4o-mini.", param="candidate")
    return [(name.partition("/")[0], name.partition("/")[2]) for name in names]
