"""The node's own state: `/livez`, `/readyz`, `/healthz`, `/metrics`, `/prices`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, cast

from litestar import Request, Response, get
from litestar.params import QueryParameter
from msgspec.structs import asdict

from taximeter import __version__
from taximeter.control.answers.encoding import Json
from taximeter.control.answers.responses import encode
from taximeter.control.api.parameters import Given, only_known_parameters
from taximeter.control.door.access import Caller, admin_only, anyone_known
from taximeter.core.globs import glob


@get("/healthz", tags=["node"], summary="For people and scripts: alive, and to an admin the state of the node")
async def healthz(services: Given, request: Request[Any, Caller, Any]) -> dict[str, Any]:
    """`{"status": "ok"}`; an admin sees version, node, Redis, workers and the sinks' lag as well."""
    if not request.auth.admin:
        return {"status": "ok"}
    return {"status": "ok", "version": __version__, **services.node.health()}


@get("/livez", tags=["node"], summary="For a liveness probe: this process answers")
async def livez() -> dict[str, str]:
    """`{"status": "ok"}` to everyone. Nothing is looked at: what restarting would not mend is no reason to restart."""
    return {"status": "ok"}


@get("/readyz", tags=["node"], summary="For a readiness probe: 200 while calls are relayed and written down, else 503")
async def readyz(services: Given, request: Request[Any, Caller, Any]) -> Json[dict[str, Any]]:
    """`{"ready": true}`, or 503. An admin sees the `problems` that keep it from being ready, and `warnings`: what else
    is wrong, such as a sink that does not answer, which is made up for later."""
    found = services.node.readiness()
    shown = asdict(found) if request.auth.admin else {}
    return Json({"ready": not found.problems, **shown}, status_code=503 if found.problems else 200)


@get("/metrics", tags=["node"], summary="Prometheus or OpenMetrics exposition", media_type="text/plain")
async def metrics(services: Given, request: Request[Any, Caller, Any]) -> Response[bytes]:
    """Metrics of this node; to an admin, or to anyone with `control.open_metrics`."""
    if not services.settings.control.open_metrics:
        admin_only(request, request.route_handler)
    body, content_type = services.metrics(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})  # as media_type it would get a second charset


@get("/prices", tags=["prices"], guards=[anyone_known, only_known_parameters], summary="The price list in force")
async def prices(
    services: Given,
    provider: Annotated[str | None, QueryParameter(description="Only this provider's.")] = None,
    model: Annotated[
        str | None, QueryParameter(max_length=200, description="Only models of this name; `*` is any text (gpt-4o*).")
    ] = None,
) -> Response[dict[str, list[dict[str, Any]]]]:
    """Every dated price this node would use now, the strongest source first."""
    rows, all_of_them = _shown(services.prices)
    if provider is None and model is None:
        return Response(cast(Any, all_of_them), media_type="application/json")
    named = glob("*" if model is None else model)
    return Response({"data": [row for row in rows if provider in (None, row["provider"]) and named(str(row["model"]))]})


@lru_cache(maxsize=1)
def _shown(prices: Callable[[], list[dict[str, Any]]]) -> tuple[list[dict[str, Any]], bytes]:
    """The price list and its JSON, made once: prices are read at start, and 2,700 take 10 ms."""
    rows = prices()
    return rows, encode({"data": rows})


HANDLERS = (livez, healthz, readyz, metrics, prices)
