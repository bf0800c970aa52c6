"""`/webhook`: what the billing webhook has not delivered yet, and sending again what it gave up."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Controller, get, post
from litestar.params import JSONBody, QueryParameter

from taximeter.control.answers.letters import LetterList, info
from taximeter.control.api.parameters import Given, only_known_parameters
from taximeter.control.door.access import admin_only
from taximeter.control.services.audit import named
from taximeter.control.services.interfaces import Letters
from taximeter.control.services.services import Services
from taximeter.core.errors import NotFound


class ResendRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which letters to send again."""

    keys: Annotated[list[str], msgspec.Meta(max_length=500)] | None = None
    """Idempotency keys; null: every dead letter."""


class Resent(msgspec.Struct):
    """How many dead letters are on their way again."""

    resent: int


class LetterAdmin(Controller):
    """The outbox of the billing webhook."""

    path = "/webhook"
    tags = ("webhook",)
    guards = (admin_only, only_known_parameters)

    @get("/", summary="Letters not accepted yet, oldest first")
    async def listing(
        self,
        services: Given,
        dead: Annotated[bool | None, QueryParameter(description="true: given up; false: still tried.")] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=10_000, description="Most letters shown.")] = 1_000,
    ) -> LetterList:
        return LetterList([info(letter) for letter in await _of(services).letters(dead=dead, limit=limit)])

    @post("/resend", status_code=200, summary="Send dead letters again, under their own keys")
    async def resend(self, services: Given, data: JSONBody[ResendRequest]) -> Resent:
        with services.audit.act("webhook.resend", named(data.keys)) as change:
            change.after = resent = Resent(await _of(services).resend(data.keys))
        return resent


def _of(services: Services) -> Letters:
    if services.letters is None:
        raise NotFound("No webhook is configured (webhook.url).")
    return services.letters
