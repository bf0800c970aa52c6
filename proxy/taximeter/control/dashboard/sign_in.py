"""Signing in and out, and the pages' own files: what a browser may have before anyone knows who it is."""

from __future__ import annotations

from typing import Annotated

from litestar import Controller, Response, get, post
from litestar.datastructures import Cookie
from litestar.params import FromPath, QueryParameter

from taximeter.control.api.parameters import Given
from taximeter.control.dashboard.contexts import LoginPage
from taximeter.control.dashboard.rendering import STATIC, static
from taximeter.control.dashboard.showing import ERRORS, show
from taximeter.control.door.gate import asked_by
from taximeter.control.door.sessions import COOKIE, LASTS_S
from taximeter.control.services.querying import ApiRequest
from taximeter.core.errors import NotFound

_YEAR = "public, max-age=31536000, immutable"  # their links carry the version
MOST_TOKEN = 1_024


class SignIn(Controller):
    """Open to everyone."""

    path = "/dashboard"
    include_in_schema = False
    exception_handlers = ERRORS

    @get("/login", media_type="text/html")
    async def form(
        self, request: ApiRequest, next_: Annotated[str, QueryParameter(name="next")] = "/"
    ) -> Response[str]:
        return show(request, LoginPage(next=_own_path(next_), problem=""))

    @post("/login", status_code=200, media_type="text/html")
    async def enter(self, services: Given, request: ApiRequest) -> Response[str]:
        """Set a session's cookie for a good token; the token itself stays here."""
        given = await request.form()
        token = str(given.get("token", "")).strip().encode()
        where = _own_path(str(given.get("next", "/")))
        asking = asked_by(request.scope, dict(request.scope["headers"]))
        caller = services.door.sign_in(asking, token[:MOST_TOKEN])
        if not caller.known:
            page = show(request, LoginPage(next=where, problem=caller.problem), 429 if caller.wait_s else 401)
            if caller.wait_s:
                page.set_header("retry-after", str(caller.wait_s))
            return page
        cookie = Cookie(
            COOKIE,
            value=services.sessions.open(token),
            max_age=LASTS_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https",
        )
        return Response("", status_code=303, headers={"location": where}, cookies=[cookie])

    @post("/logout", status_code=303)
    async def leave(self, services: Given, request: ApiRequest) -> Response[str]:
        if services.sessions.close(request.headers.get("cookie", "").encode("latin-1")):
            services.door.signed_out(asked_by(request.scope, dict(request.scope["headers"])))
        gone = Cookie(COOKIE, value="", max_age=0, httponly=True, samesite="strict")
        return Response("", status_code=303, headers={"location": "/dashboard/login"}, cookies=[gone])

    @get("/static/{name:str}")
    async def file(self, name: FromPath[str]) -> Response[bytes]:
        if name not in STATIC and name != "charts.css":
            raise NotFound(f"No file {name[:80]!r}.")
        return Response(static(name), media_type=STATIC.get(name, "text/css"), headers={"cache-control": _YEAR})


def _own_path(where: str) -> str:
    """A path on this port; anything else could lead to another's page."""
    plain = where.startswith("/") and not where.startswith(("//", "/\\")) and "\\" not in where
    return where if plain and where.isprintable() else "/"
