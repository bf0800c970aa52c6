"""The pages. Each asks history what the usage API asks and hands it to a template; who may see what is the same."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, QueryParameter
from msgspec.structs import replace

from taximeter.budgets.rule import CHARGED
from taximeter.control.answers import responses
from taximeter.control.api.parameters import Asked, Given, Many, only_known_parameters, split
from taximeter.control.dashboard import figures
from taximeter.control.dashboard.contexts import HealthPage, LivePage, OverviewPage, RecordsPage, RequestPage, TrackPage
from taximeter.control.dashboard.showing import ERRORS, show
from taximeter.control.dashboard.time_series import time_series
from taximeter.control.dashboard.timeline import MOST_CALLS, timeline
from taximeter.control.dashboard.view import DAY_US, NAMES, PERIODS, View, view
from taximeter.control.door.access import admin_only, anyone_known, own
from taximeter.control.services.querying import ApiRequest, up_to_date
from taximeter.control.services.services import Services
from taximeter.core.errors import BadRequest, NotFound
from taximeter.core.times import shown
from taximeter.core.views import cost_usd
from taximeter.sinks.query import Filters

DIMENSIONS = {"workspace": "workspace", "model": "model", "provider": "provider", "task": "task"}
"""What the overview groups by -> what it is called."""
OF_WORKSPACE = {"model": "model", "provider": "provider", "task": "task", "key_id": "key"}
EXPORTS = {"CSV": "csv", "JSON Lines": "jsonl"}
RECORDS = 100
LIVE_ROWS = 200

Viewed = NamedDependency[View]
"""The page's query, in a handler's signature."""
By = Annotated[str | None, QueryParameter(description="What the charts are grouped by.")]


async def page_view(
    request: ApiRequest,
    services: Given,
    asked: Asked,
    period: Annotated[str | None, QueryParameter(description=f"Instead of from and to: {', '.join(PERIODS)}.")] = None,
) -> View:
    """The query of a page."""
    given = {name: request.query_params.getall(name) for name in request.query_params}
    named = {name: split(values) for name, values in given.items() if name in NAMES}
    kept: dict[str, list[str]] = {name: given[name] for name in ("period", "from", "to", "tz", "by") if name in given}
    return view(asked, period, services.now_us(), kept | named)


class Pages(Controller):
    """The dashboard; for people, in HTML."""

    tags = ("dashboard",)
    guards = (anyone_known, only_known_parameters)
    dependencies = {"view": Provide(page_view)}  # noqa: RUF012 - Litestar reads it as a class attribute
    exception_handlers = ERRORS

    @get("/", summary="Today against yesterday; cost and tokens over time", media_type="text/html")
    async def overview(self, services: Given, request: ApiRequest, view: Viewed, by: By = None) -> Response[str]:
        by = one_of(by, DIMENSIONS, "workspace" if request.auth.admin else "model")
        return await _overview(services, request, view, by, DIMENSIONS)

    @get("/dashboard/workspaces/{name:str}", summary="One workspace", media_type="text/html")
    async def workspace(
        self, services: Given, request: ApiRequest, view: Viewed, name: FromPath[str], by: By = None
    ) -> Response[str]:
        own(request.auth, [name])
        filters = replace(view.filters, workspace=[name])
        view = replace(view, filters=filters, params=view.params | {"workspace": [name]}, fixed=("workspace",))
        by = one_of(by, OF_WORKSPACE, "model")
        return await _overview(services, request, view, by, OF_WORKSPACE, name)

    @get("/dashboard/workspaces/{name:str}/tracks/{track_name:str}", summary="One track", media_type="text/html")
    async def track(
        self, services: Given, request: ApiRequest, view: Viewed, name: FromPath[str], track_name: FromPath[str]
    ) -> Response[str]:
        own(request.auth, [name])
        track = track_name  # `track` is a filter of every page
        complete, lag_s = await up_to_date(services)
        of_track = Filters(workspace=name, track=track)
        parts, (records, _) = await asyncio.gather(
            services.history.track(name, track), services.history.events(of_track, MOST_CALLS)
        )
        in_flight = services.delivery.in_flight(name, track)
        if not parts and not in_flight:
            raise NotFound(f"No call of a track {track[:128]!r} is recorded in {name[:128]!r}.", param="track")
        answer = responses.track(parts, name=track, workspace=name, in_flight=in_flight)
        first_us = min((part.first_us for part in parts), default=view.now_us)
        last_us = max((part.last_us for part in parts), default=view.now_us)
        drawn, legend = await asyncio.to_thread(timeline, records)
        page = TrackPage(
            view=view,
            answer=answer,
            records=records[:RECORDS],
            shown_calls=len(records),
            timeline=drawn,
            legend=legend,
            records_href=view.within(first_us, last_us + 1, workspace=name, track=track),
            complete=complete,
            lag_seconds=lag_s,
        )
        return show(request, page)

    @get("/dashboard/records", summary="Single records, newest first", media_type="text/html")
    async def records(
        self,
        services: Given,
        request: ApiRequest,
        view: Viewed,
        outcome: Annotated[Many, QueryParameter(description="How the attempts ended.")] = None,
        page: Annotated[str | None, QueryParameter(description="Cursor of an older page.")] = None,
    ) -> Response[str]:
        if outcome:
            view.params["outcome"] = split(outcome)
        asked = replace(view.filters, outcome=split(outcome) or None)
        complete, lag_s = await up_to_date(services)
        (records, next_page), sums = await asyncio.gather(
            services.history.events(asked, RECORDS, page), services.history.usage(asked)
        )
        totals = figures.summed(sums).totals

        whole = view.url("", period=None, by=None, from_=shown(view.from_us), to=shown(view.to_us))
        context = RecordsPage(
            view=view,
            records=records,
            next_page=next_page,
            paged=page is not None,
            totals=totals,
            cost=cost_usd(totals),
            exports={name: f"/usage/export.{kind}{whole}" for name, kind in EXPORTS.items()},
            complete=complete,
            lag_seconds=lag_s,
        )
        return show(request, context)

    @get("/dashboard/requests/{request_id:str}", summary="One request, every attempt", media_type="text/html")
    async def request(self, services: Given, request: ApiRequest, request_id: FromPath[str]) -> Response[str]:
        await up_to_date(services)
        records = await services.history.record(request_id)
        records = [each for each in records if request.auth.workspace in (None, each.workspace)]
        if not records:
            raise NotFound(f"No request {request_id[:128]!r} is recorded.", param="request_id")
        attempts, unknown = [], []
        for record in records:
            fields = responses.record(record)
            usage = fields.pop("usage")
            fields["tags"] = fields["tags"] or None
            known = [(name, _plain(value)) for name, value in fields.items() if value is not None]
            attempts.append((record, known, _pretty(usage)))
            unknown.append([name for name, value in fields.items() if value is None and name not in CHARGED])
        return show(request, RequestPage(request_id=request_id, attempts=attempts, unknown=unknown))

    @get("/dashboard/live", summary="Calls as they end", media_type="text/html")
    async def live(self, services: Given, request: ApiRequest, view: Viewed) -> Response[str]:
        await up_to_date(services)
        names = {name: getattr(view.filters, name) for name in NAMES}
        records, _ = await services.history.events(Filters(**names), 30)
        source = view.url("/usage/live", period=None, from_=None, to=None, tz=None, by=None)
        return show(request, LivePage(view=view, records=records, source=source, most=LIVE_ROWS))

    @get("/dashboard/health", guards=[admin_only], summary="How the meter itself is", media_type="text/html")
    async def health(self, services: Given, request: ApiRequest) -> Response[str]:
        complete, lag_s = await up_to_date(services)
        known = await figures.sums(services.history, Filters(from_us=services.now_us() - DAY_US))
        totals = known.totals
        page = HealthPage(
            readiness=services.node.readiness(),
            node=services.node.health(),
            delivering=None if services.delivering is None else services.delivering(),
            known=known,
            budgets=None if services.budgets is None else await services.budgets.listing(),
            reported=totals.total_tokens - totals.counted_tokens - totals.estimated_tokens,
            complete=complete,
            lag_seconds=lag_s,
        )
        return show(request, page)


async def _overview(
    services: Services,
    request: ApiRequest,
    view: View,
    by: str,
    dimensions: dict[str, str],
    workspace: str | None = None,
) -> Response[str]:
    complete, lag_s = await up_to_date(services)
    history = services.history
    others = [name for name in dimensions if name != by]
    series, today, tracks, found = await asyncio.gather(
        time_series(history, view, by),
        figures.today(history, view),
        figures.recent_tracks(history, view, workspace),
        asyncio.gather(*(history.usage(view.filters, (name,)) for name in others)),
    )
    groups = dict(zip(others, found, strict=True)) | {by: series.groups}
    page = OverviewPage(
        here="" if workspace else "Overview",
        view=view,
        dimensions=dimensions,
        workspace=workspace,
        series=series,
        today=today,
        tables=[figures.table(view, name, groups[name]) for name in dimensions],
        listen=services.settings.listen,
        tracks=tracks,
        complete=complete,
        lag_seconds=lag_s,
    )
    return show(request, page)


def one_of(name: str | None, allowed: dict[str, str], usual: str) -> str:
    """A page's grouping. Raises BadRequest naming what is allowed."""
    if name is None:
        return usual
    if name not in allowed:
        raise BadRequest(f"Cannot group by {name[:80]!r}. Allowed: {', '.join(allowed)}.", param="by")
    return name


def _plain(value: object) -> str:
    """A record's value as the API writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _pretty(usage: msgspec.Raw) -> str:
    """A provider's usage object, indented; "" where there was none."""
    raw = bytes(usage)
    return "" if raw == b"null" else msgspec.json.format(raw, indent=2).decode()
