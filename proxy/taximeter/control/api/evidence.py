"""`/evidence`: the roots, receipts, and exports that can be checked by themselves (docs/evidence.md)."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from typing import Annotated, BinaryIO, cast

from litestar import Controller, get
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from taximeter.control.answers.evidence import RootsPage, write_evidence
from taximeter.control.api.parameters import From, Given, Many, To, Zone, only_known_parameters, split
from taximeter.control.door.access import admin_only, anyone_known
from taximeter.control.services.interfaces import EvidenceReader
from taximeter.control.services.querying import DRAIN_S, ApiRequest
from taximeter.control.services.services import Services
from taximeter.core.errors import NotFound
from taximeter.core.times import range_us
from taximeter.evidence.receipts import Receipt, receipt
from taximeter.sinks.query import Filters

Workspaces = Annotated[Many, QueryParameter(description="Of others, records' hashes only.")]
Workspace = Annotated[
    str | None, QueryParameter(description="For the admin: whose call, where those of several have this id.")
]

_SPOOL_BYTES, _CHUNK_BYTES = 8 * 1024 * 1024, 64 * 1024
"""An export up to the first stays in memory while it is made."""


class Evidence(Controller):
    """What proves that history is what was delivered."""

    path = "/evidence"
    tags = ("evidence",)
    guards = (anyone_known, only_known_parameters)

    @get("/roots", summary="Every root, the first first", guards=[admin_only])
    async def roots(self, services: Given) -> RootsPage:
        return RootsPage.of(await _history(services).evidence(lambda source: source.roots()))

    @get("/receipts/{request_id:str}", summary="One request's records, proven to be under signed roots")
    async def one(
        self, services: Given, request: ApiRequest, request_id: FromPath[str], workspace: Workspace = None
    ) -> Receipt:
        await services.delivery.drain(DRAIN_S)
        own = request.auth.workspace or workspace
        async with services.shares.turn():
            return await _history(services).evidence(
                lambda source: receipt(source, request_id, source.places(request_id, own))
            )

    @get(
        "/export",
        summary="A period's records with what is needed to check them",
        guards=[admin_only],
        media_type="application/x-ndjson",
    )
    async def export(
        self, services: Given, workspace: Workspaces = None, from_: From = None, to: To = None, tz: Zone = "UTC"
    ) -> Stream:
        from_us, to_us = range_us(from_, to, tz)
        filters = Filters(from_us=from_us, to_us=to_us, workspace=split(workspace) or None)
        await services.delivery.drain(DRAIN_S)
        count, body = await _made(_history(services), filters)
        headers = {"content-disposition": 'attachment; filename="usage.evidence"', "x-taximeter-records": str(count)}
        return Stream(body, media_type="application/x-ndjson", headers=headers)


def _history(services: Services) -> EvidenceReader:
    if services.evidence is None:
        raise NotFound("This control plane keeps no evidence.")
    return services.evidence


async def _made(history: EvidenceReader, filters: Filters) -> tuple[int, AsyncIterator[bytes]]:
    """The whole file is made before its first byte leaves, so that a failure is an error and not half a file."""
    file = cast(BinaryIO, tempfile.SpooledTemporaryFile(_SPOOL_BYTES))  # noqa: SIM115 - closed by `chunks`
    writing = asyncio.ensure_future(history.evidence(lambda source: write_evidence(source, filters, file)))
    try:
        try:
            count = await asyncio.shield(writing)
        finally:
            await asyncio.wait([writing])  # a thread, which nothing stops: the file is its own until it is through
        file.seek(0)
    except BaseException:
        file.close()
        raise

    async def chunks() -> AsyncIterator[bytes]:
        with file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                yield chunk

    return count, chunks()
