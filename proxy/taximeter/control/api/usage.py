"""`/usage`: totals, groups, series; one track; one request; records in pages. The shapes are in shapes.py."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, get, post
from litestar.params import FromPath, QueryParameter

from taximeter.control.answers import responses as shapes
from taximeter.control.answers.responses import EventsPage, TrackResponse, UsageAggregateResponse
from taximeter.control.api.parameters import (
    Asked,
    From,
    Given,
    Many,
    To,
    Zone,
    ends,
    groups,
    one_workspace,
    only_known_parameters,
    split,
    window_of,
)
from taximeter.control.door.access import Caller, anyone_known
from taximeter.control.services.arrivals import seen
from taximeter.control.services.services import Services
from taximeter.core.errors import BadRequest, NotFound
from taximeter.sinks.query import Filters, Group

DRAIN_S = 5.0
"""Longest a question waits for the journal to be delivered; beyond it the answer says `complete: false`."""
AFTER_S = 10.0
"""Longest a question waits for requests of other nodes to arrive in the shared history."""
MOST_ROWS = 50_000
"""Of one answer: about 20 MB, and half a second of work in a thread."""
MAX_AFTER = 100
MAX_WAIT_S = 300.0

Asking = Request[Any, Caller, Any]

After = Annotated[Many, QueryParameter(description="Wait, bounded, until these requests are counted.")]
GroupBy = Annotated[Many, QueryParameter(description="Names to group by; several at once are possible.")]
Windows = Annotated[str | None, QueryParameter(description="Windows of the series: minute, hour, day, month.")]
Workspace = Annotated[str | None, QueryParameter(description="Needed where several have this track.")]
Wait = Annotated[
    float, QueryParameter(ge=0, le=MAX_WAIT_S, description="Seconds to wait until no call of it is in flight.")
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
        request: Asking,
        asked: Asked,
        group_by: GroupBy = None,
        window: Windows = None,
        after: After = None,
    ) -> UsageAggregateResponse:
        names = groups(group_by)
        width = window_of(window)
        complete, lag_s = await up_to_date(services, split(after), request)
        sums = bounded(await services.history.usage(asked.filters, names, width, asked.tz))
        return await asyncio.to_thread(
            shapes.aggregate,
            sums,
            asked.filters,
            names,
            windowed=width is not None,
            complete=complete,
            lag_seconds=lag_s,
        )

    @get("/events", summary="Records, newest first")
    async def events(
        self,
        services: Given,
        asked: Asked,
        outcome: Annotated[Many, QueryParameter(description="How the attempts ended.")] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=1_000, description="Records a page.")] = 100,
        page: Annotated[str | None, QueryParameter(description="The answer before's `next_page`.")] = None,
    ) -> EventsPage:
        if page is None:
            await services.delivery.drain(DRAIN_S)
        filters = msgspec.structs.replace(asked.filters, outcome=split(outcome) or None)
        records, next_page = await services.history.events(filters, limit, page)
        return EventsPage(data=[shapes.record(each) for each in records], next_page=next_page)


class Requests(Controller):
    """One request, one track."""

    path = "/usage"
    tags = ("usage",)
    guards = (anyone_known, only_known_parameters)

    @get("/requests/{request_id:str}", summary="Every attempt of one request")
    async def request(self, services: Given, request: Asking, request_id: FromPath[str]) -> EventsPage:
        await services.delivery.drain(DRAIN_S)
        records = await services.history.record(request_id)
        own = request.auth.workspace
        records = [each for each in records if own is None or each.workspace == own]
        if not records:
            raise NotFound(f"No request {request_id[:128]!r} is recorded.", param="request_id")
        return EventsPage(data=[shapes.record(each) for each in records], next_page=None)

    @get("/tracks/{track:str}", summary="One track: token_usage, metrics, usage, documents")
    async def track(
        self,
        services: Given,
        request: Asking,
        track: FromPath[str],
        workspace: Workspace = None,
        wait: Wait = 0,
        after: After = None,
        from_: From = None,
        to: To = None,
        tz: Zone = "UTC",
    ) -> TrackResponse:
        """All of it, or what ended from `from` until before `to`."""
        from_us, to_us = ends(from_, to, tz)
        named = one_workspace(request.auth, workspace)
        if wait:
            services.shares.hold("wait")
        settled = await while_here(request, services.delivery.settled(track, wait, named)) if wait else True
        complete, lag_s = await up_to_date(services, split(after), request)
        owner = await _owner(services, named, track)
        return shapes.track(
            await services.history.track(owner, track, from_us, to_us) if owner is not None else [],
            name=track,
            workspace=owner,
            in_flight=services.delivery.in_flight(owner, track),
            complete=complete and settled,
            lag_seconds=lag_s,
        )

    @post("/tracks/{track:str}/close", status_code=200, summary="End a track for the billing webhook")
    async def close(
        self,
        services: Given,
        request: Asking,
        track: FromPath[str],
        workspace: Workspace = None,
    ) -> TrackClosed:
        await services.delivery.drain(DRAIN_S)
        owner = await _owner(services, one_workspace(request.auth, workspace), track)
        if owner is None:
            raise NotFound(f"No call of a track {track[:128]!r} is recorded.", param="track")
        if services.close_track is None:
            return TrackClosed(track, owner, "off")
        return TrackClosed(track, owner, "queued" if await services.close_track(owner, track) else "nothing")


def bounded(groups: list[Group]) -> list[Group]:
    """The groups of an answer. Raises BadRequest where there are more than one may hold: it is made in memory."""
    if len(groups) > MOST_ROWS:
        raise BadRequest(
            f"{len(groups):,} rows, at most {MOST_ROWS:,}: take a shorter range, fewer names to group by, or a filter.",
            param="group_by",
        )
    return groups


async def up_to_date(
    services: Services, after: Sequence[str] = (), request: Asking | None = None
) -> tuple[bool, float]:
    """Wait, bounded, until what had ended is in history; whether it is, and how many seconds behind it is.

    `after`: requests that have to be there too, of those the caller of `request` may know of. Raises RateLimited where
    too many of his questions wait for such.
    """
    if len(after) > MAX_AFTER:
        raise BadRequest(f"At most {MAX_AFTER} 'after' values.", param="after")
    drained = await services.delivery.drain(DRAIN_S)
    if not after or request is None:
        return drained.complete, drained.lag_seconds
    own = request.auth.workspace
    missing = set(after) - seen(await services.history.arrived(after), own)
    if missing:
        services.shares.hold("wait")
        if await while_here(request, services.arrivals.wait(missing, own, AFTER_S)):
            missing.clear()
    return drained.complete and not missing, drained.lag_seconds


async def while_here(request: Asking, wait: Coroutine[Any, Any, bool]) -> bool:
    """What a wait comes to, which ends when its client has left: it would only keep others out. Raises ClientLeft."""
    waiting, left = asyncio.ensure_future(wait), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((waiting, left), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientLeft("The client left.")
        return waiting.result()
    finally:
        waiting.cancel()
        left.cancel()


class ClientLeft(BadRequest):
    """Answered to nobody."""


async def _left(request: Asking) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _owner(services: Services, workspace: str | None, track: str) -> str | None:
    """Whose track it is. Raises BadRequest where several workspaces use the name and none was said."""
    if workspace is not None:
        return workspace
    found = await services.history.usage(Filters(track=track), ("workspace",))
    names = [name for each in found if (name := each.key["workspace"]) is not None]
    if len(names) > 1:
        shown = ", ".join(names[:10])
        raise BadRequest(f"Several workspaces have this track ({shown}): say ?workspace=.", param="workspace")
    return names[0] if names else None
