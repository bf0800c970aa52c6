"""`POST /rebuild/redis`: the Redis counters written anew from history."""

from __future__ import annotations

import msgspec
from litestar import post
from litestar.params import JSONBody

from taximeter.control.api.parameters import Given, only_known_parameters
from taximeter.control.door.access import admin_only
from taximeter.core.errors import NotFound, NotReady, RequestError, TaximeterError
from taximeter.sinks.redis.client import ERRORS


class RebuildRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """RebuildRequest to rebuild."""

    workspace: str | None = None
    """Null: every one."""


class Rebuilt(msgspec.Struct):
    """How many workspaces' counters were written anew."""

    rebuilt: int


@post(
    "/rebuild/redis",
    status_code=200,
    tags=["node"],
    guards=[admin_only, only_known_parameters],
    summary="Write the Redis counters anew from history",
)
async def rebuild_redis(services: Given, data: JSONBody[RebuildRequest]) -> Rebuilt:
    """Calls go on meanwhile; none is missed or counted twice."""
    if services.rebuild is None:
        raise NotFound("This control plane keeps no Redis counters.")
    try:
        with services.audit.act("redis.rebuild", data.workspace or "") as change:
            change.after = rebuilt = Rebuilt(await services.rebuild(data.workspace))
        return rebuilt
    except RequestError:
        raise
    except (TaximeterError, *ERRORS) as error:
        raise NotReady(f"Not rebuilt: {error}") from error
