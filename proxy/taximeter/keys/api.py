"""`/keys`: list, create, revoke proxy keys. The secret leaves once, in the response to its making."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from litestar import Controller, delete, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from taximeter.control.api.parameters import Given, only_known_parameters
from taximeter.control.door.access import admin_only
from taximeter.keys.store import CreatedKey, KeyInfo, created, info


class NewKey(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a new key is for."""

    workspace: str
    name: Annotated[str, msgspec.Meta(max_length=200)] = ""
    models: Annotated[list[Annotated[str, msgspec.Meta(max_length=200)]], msgspec.Meta(max_length=100)] = []


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
        return KeyList([info(key) for key in keys if workspace in (None, key.workspace)])

    @post("/", summary="Create a key")
    async def create(self, services: Given, data: JSONBody[NewKey]) -> CreatedKey:
        key, secret = await asyncio.to_thread(services.keys.create, data.workspace, name=data.name, models=data.models)
        return created(key, secret)

    @delete("/{key_id:str}", status_code=200, summary="Revoke a key")
    async def revoke(self, services: Given, key_id: FromPath[str]) -> KeyInfo:
        return info(await asyncio.to_thread(services.keys.revoke, key_id))
