"""`/usage`: totals, groups, series; one track; one request; records in pages. Shapes: answers/responses.py."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Controller, get, post
from litestar.params import FromPath, QueryParameter

from taximeter.control.answers import queries, responses
from taximeter.control.answers.responses import EventsPage, TrackResponse, UsageAggregateResponse
from taximeter.control.api.parameters import (
    Asked,
    From,
    Given,
    Many,
    To,
    Zone,
    groups,
    one_workspace,
    only_known_parameters,
    split,
    window_of,
    with_ends,
)
from taximeter.control.door.access import anyone_known
from taximeter.control.services.querying import DRAIN_S, ApiRequest, answer, plans_for, run, up_to_date, while_here
from taximeter.core import pricecodes
from taximeter.core.errors import BadRequest, NotFound
from taximeter.core.times import range_us

MAX_WAIT_S = 300.0
MOST_CHUNKS = 1_000_000_000

After = Annotated[Many, QueryParameter(description="Wait, bounded, until these requests are counted.")]
GroupBy = Annotated[Many, QueryParameter(description="Names to group by; several at once are possible.")]
Windows = Annotated[str | None, QueryParameter(description="Windows of the series: minute, hour, day, month.")]
Workspace = Annotated[str | None, QueryParameter(description="Needed where several have this track.")]
Wait = Annotated[
    float, QueryParameter(ge=0, le=MAX_WAIT_S, description="Seconds to wait until no call of it is in flight.")
]

Chunks = Annotated[
    int | None, QueryParameter(ge=0, le=MOST_CHUNKS, description="How many chunks were indexed, for price_codes.")
]


class TrackClosed(msgspec.Struct):
    """A track was ended."""

    track: str
    workspace: str
    webhook: str
    """`queued`: its last segment is on its way; `nothing`: all of it was sent before; `off`: no webhook is
    configured."""


class Usage(Controller):
    """Who used what, and what it cost."""

    path = "/usage"
    tags = ("usage",)
    guards = (anyone_known, only_known_parameters)

    @get("/", summary="Totals, groups and series")
    async def aggregate(
        self,
        services: Given,
        request: ApiRequest,
        asked: Asked,
        group_by: GroupBy = None,
        window: Windows = None,
        after: After = None,
    ) -> UsageAggregateResponse:
        charged_by = plans_for(services, request)
        query = queries.usage(asked.filters, groups(group_by), window_of(window), asked.tz, charged_by)
        return await answer(services, query, split(after), request)

    @get("/events", summary="Records, newest first")
    async def events(
        self,
        services: Given,
        asked: Asked,
        outcome: Annotated[Many, QueryParameter(description="How the attempts ended.")] = None,
        error_code: Annotated[Many, QueryParameter(description="Our own codes of what was refused or failed.")] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=1_000, description="Records a page.")] = 100,
        page: Annotated[str | None, QueryParameter(description="The answer before's `next_page`.")] = None,
    ) -> EventsPage:
        if page is None:
            await services.delivery.drain(DRAIN_S)
        filters = with_ends(asked.filters, outcome, error_code)
        records, next_page = await services.history.events(filters, limit, page)
        return EventsPage(data=[responses.record(each) for each in records], next_page=next_page)


class Requests(Controller):
    """One request, one track."""

    path = "/usage"
    tags = ("usage",)
    guards = (anyone_known, only_known_parameters)

    @get("/requests/{request_id:str}", summary="Every attempt of one request")
    async def request(
        self,
        services: Given,
        request: ApiRequest,
        request_id: FromPath[str],
        page: Annotated[str | None, QueryParameter(description="The answer before's `next_page`.")] = None,
    ) -> EventsPage:
        """Of a batch also its lines, at most 1,000 a page."""
        if page is None:
            await services.delivery.drain(DRAIN_S)
        records, next_page = await services.history.request(request_id, 1_000, page)
        own = request.auth.workspace
        records = [each for each in records if own is None or each.workspace == own]
        if not records and page is None:
            raise NotFound(f"No request {request_id[:128]!r} is recorded.", param="request_id")
        return EventsPage(data=[responses.record(each) for each in records], next_page=next_page)

    @get("/tracks/{track:str}", summary="One track: token_usage, metrics, usage, documents")
    async def track(
        self,
        services: Given,
        request: ApiRequest,
        track: FromPath[str],
        workspace: Workspace = None,
        wait: Wait = 0,
        after: After = None,
        from_: From = None,
        to: To = None,
        tz: Zone = "UTC",
        price_codes: Annotated[bool, QueryParameter(description="Also at the prices of `[price_codes]`.")] = False,
        chunks: Chunks = None,
    ) -> TrackResponse:
        """All of it, or what ended from `from` until before `to`."""
        if chunks is not None and not price_codes:
            raise BadRequest("'chunks' is for price_codes=1.", param="chunks")
        from_us, to_us = range_us(from_, to, tz)
        named = one_workspace(request.auth, workspace)
        if wait:
            services.shares.hold("wait")
        settled = await while_here(request, services.delivery.settled(track, wait, named)) if wait else True
        complete, lag_s = await up_to_date(services, split(after), request)
        owner = named or await run(services.history, queries.owner(track))
        shown = responses.track(
            await services.history.track(owner, track, from_us, to_us) if owner is not None else [],
            name=track,
            workspace=owner,
            in_flight=services.delivery.in_flight(owner, track),
            complete=complete and settled,
            lag_seconds=lag_s,
        )
        if price_codes:
            written = msgspec.structs.asdict(services.settings.price_codes)
            prices = {code: pricecodes.price(value) for code, value in written.items()}
            shown.price_codes = pricecodes.bill(shown.token_usage, chunks, prices)
        return shown

    @post("/tracks/{track:str}/close", status_code=200, summary="End a track for the billing webhook")
    async def close(
        self,
        services: Given,
        request: ApiRequest,
        track: FromPath[str],
        workspace: Workspace = None,
    ) -> TrackClosed:
        await services.delivery.drain(DRAIN_S)
        named = one_workspace(request.auth, workspace)
        owner = named or await run(services.history, queries.owner(track))
        if owner is None:
            raise NotFound(f"No call of a track {track[:128]!r} is recorded.", param="track")
        if services.close_track is None:
            return TrackClosed(track, owner, "off")
        return TrackClosed(track, owner, "queued" if await services.close_track(owner, track) else "nothing")
