"""`/usage/groups.*`: the groups of `/usage`, however many there are, sent as they are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from litestar import Controller, get
from litestar.params import QueryParameter
from litestar.response import Stream

from taximeter.control.answers.grouped import GroupsFile, Kind
from taximeter.control.api.parameters import (
    Asked,
    Given,
    Many,
    UsageParameters,
    groups,
    only_known_parameters,
    window_of,
)
from taximeter.control.door.access import anyone_known
from taximeter.control.services.querying import DRAIN_S
from taximeter.control.services.services import Services
from taximeter.core.errors import BadRequest

GroupBy = Annotated[Many, QueryParameter(description="Names to group by, at least one.")]
Windows = Annotated[str | None, QueryParameter(description="A row each: minute, hour, day, month.")]


class ManyGroups(Controller):
    """What is too much for one answer."""

    path = "/usage"
    tags = ("usage",)
    guards = (anyone_known, only_known_parameters)

    @get("/groups.json", summary="Any number of groups, the totals behind them", media_type="application/json")
    async def json(self, services: Given, asked: Asked, group_by: GroupBy = None, window: Windows = None) -> Stream:
        return await _sent(services, asked, group_by, window, "json")

    @get("/groups.csv", summary="Any number of groups, as CSV", media_type="text/csv")
    async def csv(self, services: Given, asked: Asked, group_by: GroupBy = None, window: Windows = None) -> Stream:
        return await _sent(services, asked, group_by, window, "csv")

    @get("/groups.jsonl", summary="Any number of groups, as JSON Lines", media_type="application/x-ndjson")
    async def jsonl(self, services: Given, asked: Asked, group_by: GroupBy = None, window: Windows = None) -> Stream:
        return await _sent(services, asked, group_by, window, "jsonl")


async def _sent(services: Services, asked: UsageParameters, group_by: Many, window: str | None, kind: Kind) -> Stream:
    names, width = groups(group_by), window_of(window)
    if not names:
        raise BadRequest("Say by which names: group_by=end_user, for one. Sums of all are at /usage.", param="group_by")
    services.shares.hold("export")
    drained = await services.delivery.drain(DRAIN_S)
    file = GroupsFile(kind, asked.filters, names, windowed=width is not None)
    lists = services.history.parts(asked.filters, names, width, asked.tz)
    # The first one before the head: what cannot be asked or read is an error, and no answer that breaks off.
    first = await anext(lists, None)

    async def body() -> AsyncIterator[bytes]:
        yield file.begin(complete=drained.complete, lag_seconds=drained.lag_seconds)
        async with aclosing(lists):  # type: ignore[type-var]
            some = first
            while some is not None:
                yield await asyncio.to_thread(file.part, some)
                some = await anext(lists, None)
        if end := file.end():
            yield end

    return Stream(body(), headers={"content-disposition": f'attachment; filename="groups.{kind}"'})
