"""`/keys`: list, create, rotate, revoke proxy keys. A secret leaves once, in the response to its making."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from litestar import Controller, delete, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from taximeter.control.api.parameters import Given, only_known_parameters
from taximeter.control.door.access import admin_only
from taximeter.core.times import moment_us
from taximeter.keys.store import OVERLAP_S, UTC, CreatedKey, KeyInfo, created


class NewKey(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a new key is for."""

    workspace: str
    name: Annotated[str, msgspec.Meta(max_length=200)] = ""
    models: Annotated[list[Annotated[str, msgspec.Meta(max_length=200)]], msgspec.Meta(max_length=100)] = []

    expires_at: str | None = None
    """RFC 3339, or a date (UTC): from then on it opens nothing; null: never."""


class Rotation(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How a key gets another secret."""

    overlap_s: Annotated[float, msgspec.Meta(ge=0, le=366 * 86_400)] = OVERLAP_S
    """How long the secret it has now holds beside the new one."""
    expires_at: str | None = None
    """From then on the key opens nothing; null: it lasts as long again as it was made for."""


class KeyList(msgspec.Struct):
    data: list[KeyInfo]


class KeyAdmin(Controller):
    """Proxy keys, bound to a workspace each."""

    path = "/keys"
    tags = ("keys",)
    guards = (admin_only, only_known_parameters)

    @get("/", summary="List the keys")
    async def listing(
        self,
        services: Given,
        workspace: Annotated[str | None, QueryParameter(description="Only this workspace's.")] = None,
    ) -> KeyList:
        keys = await asyncio.to_thread(services.keys.listing)
        return KeyList([services.keys.info(key) for key in keys if workspace in (None, key.workspace)])

    @post("/", summary="Create a key")
    async def create(self, services: Given, data: JSONBody[NewKey]) -> CreatedKey:
        expires_at = _moment(data.expires_at) or 0
        key, secret = await asyncio.to_thread(
            services.keys.create, data.workspace, name=data.name, models=data.models, expires_at=expires_at
        )
        return created(services.keys.info(key), secret)

    @post("/{key_id:str}/rotate", status_code=200, summary="Give a key another secret")
    async def rotate(self, services: Given, key_id: FromPath[str], data: JSONBody[Rotation]) -> CreatedKey:
        """Its id, budgets and sums stay. The secret it has holds for `overlap_s` more."""
        expires_at = _moment(data.expires_at)
        key, secret = await asyncio.to_thread(
            services.keys.rotate, key_id, overlap_s=data.overlap_s, expires_at=expires_at
        )
        return created(services.keys.info(key), secret)

    @delete("/{key_id:str}", status_code=200, summary="Revoke a key")
    async def revoke(self, services: Given, key_id: FromPath[str]) -> KeyInfo:
        return services.keys.info(await asyncio.to_thread(services.keys.revoke, key_id))


def _moment(text: str | None) -> int | None:
    return None if text is None else moment_us(text, UTC, "expires_at")
