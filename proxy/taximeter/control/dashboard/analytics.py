"""The page of trends, peak hours, the month's end, other models' prices: the queries of /usage/trends and so on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from litestar import Controller, Response, get
from litestar.di import Provide
from litestar.params import QueryParameter
from markupsafe import Markup

from taximeter.control.answers import queries
from taximeter.control.answers.insights import Peaks, Trend, Trends
from taximeter.control.api.parameters import Given, Many, only_known_parameters, split
from taximeter.control.dashboard import charts
from taximeter.control.dashboard.contexts import AnalyticsPage
from taximeter.control.dashboard.pages import DIMENSIONS, By, Sort, Viewed, one_of, page_view
from taximeter.control.dashboard.showing import ERRORS, show
from taximeter.control.dashboard.sorting import Sorting, sorting
from taximeter.control.dashboard.view import NAMES, View, last_days
from taximeter.control.door.access import anyone_known
from taximeter.control.services.querying import ApiRequest, run, up_to_date
from taximeter.core.figures import count
from taximeter.core.times import local
from taximeter.sinks.query import Filters

SHOWN = 12
COLUMNS = ("name", "calls", "cost", "before", "moved")
"""What the table of trends can be sorted by."""


class AnalyticsPages(Controller):
    """What the sums of the past say, for people."""

    tags = ("dashboard",)
    guards = (anyone_known, only_known_parameters)
    dependencies = {"view": Provide(page_view)}  # noqa: RUF012 - Litestar reads it as a class attribute
    exception_handlers = ERRORS

    @get("/dashboard/analytics", summary="Trends, peaks, forecast, other prices", media_type="text/html")
    async def page(
        self,
        services: Given,
        request: ApiRequest,
        view: Viewed,
        by: By = None,
        sort: Sort = None,
        candidate: Annotated[Many, QueryParameter(description="A further model to compare: provider/model.")] = None,
    ) -> Response[str]:
        by = one_of(by, DIMENSIONS, "model")
        order = sorting(sort, COLUMNS, "-moved")
        complete, lag_s = await up_to_date(services)
        now_us, tz = services.now_us(), view.tz.key
        further = [name for name in split(candidate) if name]
        trends, peaks, forecast, alternatives = await asyncio.gather(
            run(services.history, queries.trends(view.filters, (by,), now_us, tz)),
            run(services.history, queries.peaks(view.filters, now_us, tz)),
            run(services.history, queries.forecast(_without_range(view), now_us, tz)),
            run(services.history, queries.alternatives(view.filters, further, services.card, now_us, tz)),
        )
        page = AnalyticsPage(
            view=view,
            dimensions=DIMENSIONS,
            by=by,
            shown=SHOWN,
            sort=order,
            trends=trends,
            rows=_in_order(trends, by, order),
            peaks=peaks,
            hours=await asyncio.to_thread(_hours, peaks, view),
            forecast=forecast,
            month_href=view.within(_month_start_us(view), last_days(now_us, view.tz, 1)[1]),
            alternatives=alternatives,
            complete=complete,
            lag_seconds=lag_s,
        )
        return show(request, page)


def _in_order(trends: Trends, by: str, sort: Sorting) -> list[Trend]:
    """The groups by a column; `moved`: by how much more or less they cost."""
    value: dict[str, Callable[[Trend], Any]] = {
        "name": lambda each: str(getattr(each, by) or "").lower(),
        "calls": lambda each: each.now.requests,
        "cost": lambda each: each.now.estimated_cost_usd or 0,
        "before": lambda each: each.before.estimated_cost_usd or 0,
        "moved": lambda each: abs((each.now.estimated_cost_usd or 0) - (each.before.estimated_cost_usd or 0)),
    }
    return sorted(trends.groups, key=value[sort.by], reverse=sort.descending)


def _hours(peaks: Peaks, view: View) -> Markup:
    marks = tuple(
        charts.Mark(each.usage.requests, view.records(), f"{each.hour:02}:00: {count(each.usage.requests)} calls")
        if each.usage.requests
        else None
        for each in peaks.hours
    )
    labels = tuple(f"{each.hour:02}" for each in peaks.hours)
    return charts.stacked((charts.Series("Calls", marks, 0),), labels, "Calls by hour of the day")


def _without_range(view: View) -> Filters:
    return Filters(**{name: getattr(view.filters, name) for name in NAMES})


def _month_start_us(view: View) -> int:
    return last_days(view.now_us, view.tz, local(view.now_us, view.tz).day)[0]
