"""`/usage/export.focus.csv`: calls as charges of FOCUS (exports/focus.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Annotated

from litestar import Controller, get
from litestar.params import QueryParameter
from litestar.response import Stream
from msgspec.structs import replace

from taximeter.control.api.parameters import Asked, Given, Many, only_known_parameters, split
from taximeter.control.door.access import anyone_known
from taximeter.control.services.querying import DRAIN_S
from taximeter.control.services.services import Services
from taximeter.core.record import Record
from taximeter.exports import focus
from taximeter.exports.focus import Focus
from taximeter.exports.lines import csv_line
from taximeter.sinks.query import Filters

UNPRICED_HEADER = "x-taximeter-unpriced"
"""How many calls of the period may have been billed and have no cost: they are not among the charges."""


class FocusExport(Controller):
    """What finance reads."""

    path = "/usage"
    tags = ("usage",)
    guards = (anyone_known, only_known_parameters)

    @get("/export.focus.csv", summary="Charges in the format of FOCUS", media_type="text/csv")
    async def charges(
        self,
        services: Given,
        asked: Asked,
        version: Annotated[str, QueryParameter(description="Of FOCUS: 1.2 or 1.4.")] = "1.2",
        per: Annotated[Many, QueryParameter(description="What charges are told apart by: see docs/exports.md.")] = None,
        unpriced: Annotated[bool, QueryParameter(description="Instead: the calls that have no cost.")] = False,
    ) -> Stream:
        """Days and billing periods are those of UTC, whatever `tz` says of `from` and `to`."""
        named, splits = focus.chosen(version, split(per))
        making = Focus(services.card_of, splits=splits, version=named, unpriced=unpriced)
        services.shares.hold("export")
        await services.delivery.drain(DRAIN_S)
        totals = (await services.history.usage(asked.filters))[0].totals
        return Stream(
            _lines(services, asked.filters, making),
            headers={
                "content-disposition": 'attachment; filename="usage.focus.csv"',
                UNPRICED_HEADER: str(totals.unpriced_requests + totals.unknown_requests),
            },
        )


async def _lines(services: Services, filters: Filters, making: Focus) -> AsyncIterator[bytes]:
    names = making.columns
    yield csv_line(names)
    so_far: focus.Corrections = {}
    async for records in services.history.export(replace(filters, kind="correction")):
        focus.corrections(records, so_far)

    def made(rows: Iterable[focus.Row]) -> bytes:
        return b"".join(csv_line(row[name] for name in names) for row in rows)

    def added(records: list[Record]) -> bytes:
        return made(making.add(records, so_far))

    async for records in services.history.export(filters):
        if chunk := await asyncio.to_thread(added, records):
            yield chunk
    if chunk := await asyncio.to_thread(lambda: made(making.end())):
        yield chunk
