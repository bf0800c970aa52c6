"""Answers that are longer than memory or never end: `/usage/export.*` and `/usage/live`."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Annotated, Any, BinaryIO, cast

from litestar import Controller, get
from litestar.params import QueryParameter
from litestar.response import ServerSentEvent, ServerSentEventMessage, Stream

from taximeter.control.answers import responses, rows
from taximeter.control.answers.responses import encode
from taximeter.control.api.parameters import Asked, Given, Many, only_known_parameters, with_ends
from taximeter.control.door.access import anyone_known
from taximeter.control.services.live import Live
from taximeter.control.services.querying import DRAIN_S
from taximeter.control.services.services import Services
from taximeter.core.record import Record
from taximeter.sinks.query import Filters

HEARTBEAT_S = 15.0
"""A comment line after this much silence keeps proxies from closing the stream and finds watchers that left."""
RECORDS_HEADER = "x-taximeter-records"
"""How many records an export will hold (about: calls may end meanwhile), for progress bars."""
_SPOOL_BYTES = 8 * 1024 * 1024
"""A Parquet file up to this size stays in memory while it is made; its footer comes last, so it cannot be streamed."""
_CHUNK_BYTES = 64 * 1024

Outcomes = Annotated[Many, QueryParameter(description="How the attempts ended.")]
ErrorCodes = Annotated[Many, QueryParameter(description="Our own codes of what was refused or failed.")]


class Streams(Controller):
    """Downloads and the live view."""

    path = "/usage"
    tags = ("usage",)
    guards = (anyone_known, only_known_parameters)

    @get("/export.csv", summary="Records, oldest first, as CSV", media_type="text/csv")
    async def csv(
        self, services: Given, asked: Asked, outcome: Outcomes = None, error_code: ErrorCodes = None
    ) -> Stream:
        return await _download(services, with_ends(asked.filters, outcome, error_code), "csv")

    @get("/export.jsonl", summary="Records, oldest first, as JSON Lines", media_type="application/x-ndjson")
    async def jsonl(
        self, services: Given, asked: Asked, outcome: Outcomes = None, error_code: ErrorCodes = None
    ) -> Stream:
        return await _download(services, with_ends(asked.filters, outcome, error_code), "jsonl")

    @get("/export.parquet", summary="Records, oldest first, as Parquet", media_type="application/vnd.apache.parquet")
    async def parquet(
        self, services: Given, asked: Asked, outcome: Outcomes = None, error_code: ErrorCodes = None
    ) -> Stream:
        return await _download(services, with_ends(asked.filters, outcome, error_code), "parquet")

    @get("/live", summary="Records as their calls end (server-sent events)", media_type="text/event-stream")
    async def live(
        self, services: Given, asked: Asked, outcome: Outcomes = None, error_code: ErrorCodes = None
    ) -> ServerSentEvent:
        services.shares.hold("live")
        return ServerSentEvent(_events(services.live, with_ends(asked.filters, outcome, error_code)))


async def _download(services: Services, filters: Filters, kind: str) -> Stream:
    services.shares.hold("export")
    await services.delivery.drain(DRAIN_S)
    makers = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}
    body = await makers[kind](services, filters)
    return Stream(
        body,
        headers={
            "content-disposition": f'attachment; filename="usage.{kind}"',
            RECORDS_HEADER: str(await services.history.count(filters)),
        },
    )


async def _csv(services: Services, filters: Filters) -> AsyncIterator[bytes]:
    async def lines() -> AsyncIterator[bytes]:
        yield rows.csv_header()
        async for records in services.history.export(filters):
            yield rows.csv_lines(records)

    return lines()


async def _jsonl(services: Services, filters: Filters) -> AsyncIterator[bytes]:
    async def lines() -> AsyncIterator[bytes]:
        async for records in services.history.export(filters):
            yield rows.jsonl_lines(records)

    return lines()


async def _parquet(services: Services, filters: Filters) -> AsyncIterator[bytes]:
    """The whole file is made before its first byte leaves, so that a failure is an error and not half a file."""
    file = cast(BinaryIO, tempfile.SpooledTemporaryFile(_SPOOL_BYTES))  # noqa: SIM115 - closed by `chunks`
    try:
        with closing(rows.ParquetWriter(file)) as writer:  # also where it was cut: it cannot do without its file
            async for records in services.history.export(filters):
                await _to_its_end(writer.write, records)
        file.seek(0)
    except BaseException:
        file.close()
        raise

    async def chunks() -> AsyncIterator[bytes]:
        with file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                yield chunk

    return chunks()


async def _to_its_end(act: Callable[[list[Record]], None], records: list[Record]) -> None:
    """In a thread, which nothing stops: a cancelled caller goes on only when it is through."""
    acting = asyncio.ensure_future(asyncio.to_thread(act, records))
    try:
        await asyncio.shield(acting)
    finally:
        await asyncio.wait([acting])


async def _events(live: Live, filters: Filters) -> AsyncIterator[ServerSentEventMessage]:
    with live.watch(filters) as watch:
        yield ServerSentEventMessage(None, comment="watching")
        while True:
            try:
                record = await watch.next(HEARTBEAT_S)
            except TimeoutError:
                yield ServerSentEventMessage(None, comment="still here")
                continue
            if watch.missed:
                missed, watch.missed = watch.missed, 0
                yield ServerSentEventMessage(event="missed", data=encode({"records": missed}).decode())
            if record is None:
                return
            shown: dict[str, Any] = responses.record(record)
            yield ServerSentEventMessage(event="record", id=record.event_id, data=encode(shown).decode())
