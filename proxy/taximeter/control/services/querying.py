"""Query history on behalf of a caller, in the loop, once what had ended is in it; every wait is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from litestar import Request

from taximeter.billing.rule import Plan
from taximeter.config.plans import plans
from taximeter.control.answers.queries import Query, Read, Returned, advance
from taximeter.control.door.access import Caller
from taximeter.control.services.arrivals import seen
from taximeter.control.services.interfaces import SumsReader
from taximeter.control.services.services import Services
from taximeter.core.errors import BadRequest
from taximeter.sinks.history.database import HistoryUnavailable
from taximeter.sinks.query import Group

DRAIN_S = 5.0
"""Longest a query waits for the journal to be delivered; beyond it the response says `complete: false`."""
AFTER_S = 10.0
"""Longest a query waits for requests of other nodes to arrive in the shared history."""
MAX_AFTER = 100
MOST_ROWS = 50_000
"""Of one response: about 20 MB, and half a second of work in a thread."""

T = TypeVar("T")
ApiRequest = Request[Any, Caller, Any]


class Dated(Protocol):
    """A response that says how much of what had ended is in it."""

    complete: bool
    lag_seconds: float


D = TypeVar("D", bound=Dated)


async def answer(
    services: Services, query: Query[D], after: Sequence[str] = (), request: ApiRequest | None = None
) -> D:
    """A query's response, once what had ended is in history (see `up_to_date`). Raises as that and `run` do."""
    complete, lag_s = await up_to_date(services, after, request)
    response = await run(services.history, query)
    response.complete, response.lag_seconds = complete, lag_s
    return response


async def run(history: SumsReader, query: Query[T]) -> T:
    """A query's response; what it calculates is done in a thread. Raises HistoryUnavailable, BadRequest."""
    found = None
    while not isinstance(step := await asyncio.to_thread(advance, query, found), Returned):
        sums = await asyncio.gather(*(history.usage(*each[:4]) for each in step))
        found = [_fitting(asked, each) for asked, each in zip(step, sums, strict=True)]
    response: T = step.response
    return response


def _fitting(asked: Read, groups: list[Group]) -> list[Group]:
    return [] if asked.if_few and len(groups) > MOST_ROWS else bounded(groups)


def bounded(groups: list[Group]) -> list[Group]:
    """The groups of a response. Raises BadRequest where there are more than one may hold: it is made in memory."""
    if len(groups) > MOST_ROWS:
        raise BadRequest(
            f"{len(groups):,} rows, at most {MOST_ROWS:,}: take a shorter range, fewer names to group by, or a filter; "
            "/usage/groups.json, .jsonl and .csv hold any number (`taximeter export --by`).",
            param="group_by",
        )
    return groups


def plans_for(services: Services, request: ApiRequest) -> list[Plan]:
    """The plans that charges are told by: to the admin; a workspace's key sees none."""
    return plans(services.settings) if request.auth.admin else []


async def up_to_date(
    services: Services, after: Sequence[str] = (), request: ApiRequest | None = None
) -> tuple[bool, float]:
    """Wait, bounded, until what had ended is in history; whether it is, and how many seconds behind it is.

    `after`: requests that have to be there too, of those the caller of `request` may know of. Raises RateLimited where
    too many of their queries wait for such.
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


async def if_readable(asked: Awaitable[T]) -> T | None:
    """What history answers; None while its database cannot be read: for pages that have more to show than that."""
    try:
        return await asked
    except HistoryUnavailable:
        return None


async def while_here(request: ApiRequest, wait: Coroutine[Any, Any, bool]) -> bool:
    """What a wait comes to, which ends when its client has left: it would only keep others out. Raises AskerLeft."""
    waiting, left = asyncio.ensure_future(wait), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((waiting, left), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise AskerLeft("The client left.")
        return waiting.result()
    finally:
        waiting.cancel()
        left.cancel()


class AskerLeft(BadRequest):
    """Answered to nobody."""


async def _left(request: ApiRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
