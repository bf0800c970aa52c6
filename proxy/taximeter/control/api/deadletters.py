"""`/deadletters`: records that a sink could not take, and having them taken again."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from litestar import Controller, get, post
from litestar.params import JSONBody, QueryParameter

from taximeter.control.answers.deadletters import DeadLetterList, info
from taximeter.control.api.parameters import Given, only_known_parameters
from taximeter.control.door.access import admin_only
from taximeter.control.services.audit import named
from taximeter.control.services.interfaces import DeadLetters
from taximeter.control.services.services import Services
from taximeter.core.errors import NotFound
from taximeter.delivery.health import Replayed


class ReplayRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which records to have taken."""

    keys: Annotated[list[str], msgspec.Meta(max_length=500)] | None = None
    """Keys of dead letters; null: all there are."""


class DeadLetterAdmin(Controller):
    """What was set aside on this node."""

    path = "/deadletters"
    tags = ("node",)
    guards = (admin_only, only_known_parameters)

    @get("/", summary="Records that a sink could not take, oldest first")
    async def listing(
        self,
        services: Given,
        sink: Annotated[str | None, QueryParameter(description="Only this sink's: history, redis, webhook.")] = None,
    ) -> DeadLetterList:
        letters = await asyncio.to_thread(_of(services).aside.letters, sink)
        return DeadLetterList([info(letter) for letter in letters])

    @post("/replay", status_code=200, summary="Offer them to their sinks again, each once")
    async def replay(self, services: Given, data: JSONBody[ReplayRequest]) -> Replayed:
        with services.audit.act("deadletters.replay", named(data.keys)) as change:
            change.after = replayed = await _of(services).replay(data.keys)
        return replayed


def _of(services: Services) -> DeadLetters:
    if services.deadletters is None:
        raise NotFound("This control plane delivers nothing.")
    return services.deadletters
