"""The pages. Each asks history what the usage API asks and hands it to a template; who may see what is the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

from litestar import Controller, Response, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, QueryParameter
from msgspec.structs import replace

from taximeter.billing import charging
from taximeter.billing.charging import Piece
from taximeter.control.answers import charged, queries, responses
from taximeter.control.api.parameters import Asked, Given, only_known_parameters, split
from taximeter.control.dashboard import figures
from taximeter.control.dashboard.contexts import Charges, HealthPage, LivePage, OverviewPage, TrackPage
from taximeter.control.dashboard.pointing import pointing
from taximeter.control.dashboard.showing import ERRORS, show
from taximeter.control.dashboard.sorting import Sorting, sorting
from taximeter.control.dashboard.time_series import time_series
from taximeter.control.dashboard.timeline import MOST_CALLS, timeline
from taximeter.control.dashboard.view import DAY_US, KEPT, NAMES, PERIODS, REFRESH_S, View, view
from taximeter.control.door.access import admin_only, anyone_known, own
from taximeter.control.services.querying import ApiRequest, if_readable, plans_for, run, up_to_date
from taximeter.control.services.services import Services
from taximeter.core.errors import BadRequest, NotFound
from taximeter.core.totals import Totals
from taximeter.sinks.query import Filters, Group

DIMENSIONS = {"workspace": "workspace", "model": "model", "provider": "provider", "task": "task"}
"""What the overview groups by -> what it is called."""
OF_WORKSPACE = {"model": "model", "provider": "provider", "task": "task", "key_id": "key"}
RECORDS = 100
LIVE_ROWS = 200

Viewed = NamedDependency[View]
"""The page's query, in a handler's signature."""
Sort = Annotated[str | None, QueryParameter(description="-cost, calls, -tokens, name, …: what tables are sorted by.")]
By = Annotated[str | None, QueryParameter(description="What the charts are grouped by.")]


async def page_view(
    request: ApiRequest,
    services: Given,
    asked: Asked,
    period: Annotated[str | None, QueryParameter(description=f"Instead of from and to: {', '.join(PERIODS)}.")] = None,
    refresh: Annotated[int | None, QueryParameter(description="Seconds after which the page asks for itself.")] = None,
) -> View:
    """The query of a page."""
    given = {name: request.query_params.getall(name) for name in request.query_params}
    named = {name: split(values) for name, values in given.items() if name in NAMES}
    kept: dict[str, list[str]] = {name: given[name] for name in KEPT if name in given}
    if refresh is not None and refresh not in REFRESH_S:
        raise BadRequest(f"refresh is one of {', '.join(map(str, REFRESH_S))} seconds.", param="refresh")
    return view(asked, period, services.now_us(), kept | named)


class Pages(Controller):
    """The dashboard; for people, in HTML."""

    tags = ("dashboard",)
    guards = (anyone_known, only_known_parameters)
    dependencies = {"view": Provide(page_view)}  # noqa: RUF012 - Litestar reads it as a class attribute
    exception_handlers = ERRORS

    @get("/", summary="Today against yesterday; cost and tokens over time", media_type="text/html")
    async def overview(
        self, services: Given, request: ApiRequest, view: Viewed, by: By = None, sort: Sort = None
    ) -> Response[str]:
        by = one_of(by, DIMENSIONS, "workspace" if request.auth.admin else "model")
        return await _overview(services, request, view, by, sorting(sort, figures.COLUMNS, "-cost"), DIMENSIONS)

    @get("/dashboard/workspaces/{name:str}", summary="One workspace", media_type="text/html")
    async def workspace(
        self, services: Given, request: ApiRequest, view: Viewed, name: FromPath[str], by: By = None, sort: Sort = None
    ) -> Response[str]:
        own(request.auth, [name])
        await _known(services, request, name)
        filters = replace(view.filters, workspace=[name])
        view = replace(view, filters=filters, params=view.params | {"workspace": [name]}, fixed=("workspace",))
        by = one_of(by, OF_WORKSPACE, "model")
        return await _overview(services, request, view, by, sorting(sort, figures.COLUMNS, "-cost"), OF_WORKSPACE, name)

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
            refused=sum(part.details.refused for part in parts),
            timeline=drawn,
            legend=legend,
            records_href=view.within(first_us, last_us + 1, workspace=name, track=track),
            complete=complete,
            lag_seconds=lag_s,
        )
        return show(request, page)

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
        known = await if_readable(figures.sums(services.history, Filters(from_us=services.now_us() - DAY_US)))
        totals = known.totals if known else Totals()
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


async def _known(services: Services, request: ApiRequest, name: str) -> None:
    """Raises NotFound on a workspace that nothing here has ever heard of."""
    if request.auth.workspace == name:
        return
    await up_to_date(services)
    if (await services.history.usage(Filters(workspace=name)))[0].details.attempts:
        return
    known = {each.workspace for each in await asyncio.to_thread(services.keys.listing)}
    if services.budgets is not None:
        known |= {each.workspace for each in await asyncio.to_thread(services.budgets.store.listing)}
    if name not in known:
        raise NotFound(
            f"No workspace {name[:128]!r}: no call of it is recorded, and no key or budget is for it.",
            param="workspace",
        )


async def _overview(
    services: Services,
    request: ApiRequest,
    view: View,
    by: str,
    sort: Sorting,
    dimensions: dict[str, str],
    workspace: str | None = None,
) -> Response[str]:
    complete, lag_s = await up_to_date(services)
    history = services.history
    others = [name for name in dimensions if name != by]
    series, today, tracks, apart_us, found = await asyncio.gather(
        time_series(history, view, by),
        figures.today(history, view),
        figures.recent_tracks(history, view, workspace),
        history.apart_since_us(),
        asyncio.gather(*(history.usage(view.filters, (name,)) for name in others)),
    )
    pieces = await _pieces(services, request, view, series.groups)
    groups = dict(zip(others, found, strict=True)) | {by: series.groups}
    page = OverviewPage(
        here="" if workspace else "Overview",
        view=view,
        dimensions=dimensions,
        workspace=workspace,
        series=series,
        sort=sort,
        today=today,
        tables=[figures.table(view, name, groups[name], sort, pieces) for name in dimensions],
        charges=_charges(pieces),
        pointing=pointing(services.settings, request.headers.get("host", ""), workspace),
        tracks=tracks,
        apart_since_us=apart_us if apart_us > view.from_us else 0,
        complete=complete,
        lag_seconds=lag_s,
    )
    return show(request, page)


async def _pieces(services: Services, request: ApiRequest, view: View, groups: Sequence[Group]) -> list[Piece] | None:
    """What the calls of the page's range are charged; None: there are no plans, or not for this reader."""
    plans = plans_for(services, request)
    if not plans:
        return None
    found = await run(services.history, queries.charges(view.filters, (), None, view.tz.key, plans))
    return found if queries.alike(groups, found) else []


def _charges(pieces: list[Piece] | None) -> Charges | None:
    if pieces is None:
        return None
    whole = charging.summed(piece.charge for piece in pieces)
    return Charges(whole=figures.charged([whole]), uncharged=whole.uncharged, note=charged.note(pieces or None))


def one_of(name: str | None, allowed: dict[str, str], usual: str) -> str:
    """A page's grouping. Raises BadRequest naming what is allowed."""
    if name is None:
        return usual
    if name not in allowed:
        raise BadRequest(f"Cannot group by {name[:80]!r}. Allowed: {', '.join(allowed)}.", param="by")
    return name
