"""Who asks on the control port, and what they may see: the table of DESIGN §7, "Who".

`identify` is pure; the middleware around it reads headers and the peer's address, the guards read its answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from taximeter.control.sessions import Sessions
from taximeter.core.errors import BadRequest, Forbidden, NotFound, Unauthorized
from taximeter.core.hosts import Hosts, is_loopback
from taximeter.core.keys import PREFIX, Keys, bearer, matches

Connection = ASGIConnection[Any, Any, Any, Any]

_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip")
"""A request that carries one of these came through a reverse proxy: its peer address says nothing of its origin."""


_READING = ("GET", "HEAD")
"""A browser's session only reads: no other page, not even one of this machine, can change anything through it."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks. Neither `admin` nor `workspace`: nobody known."""

    admin: bool = False
    workspace: str | None = None
    """Set for a workspace's key: all it may see."""
    problem: str = ""
    """Why nobody is known, for the 401."""


ADMIN = Caller(admin=True)


def identify(token: bytes | None, *, local: bool, admin_token_sha256: str, keys: Keys) -> Caller:
    """The caller a bearer token and the way in stand for. `local`: the peer is on loopback, without a reverse proxy.

    While no admin token is configured, loopback is trusted; a token that cannot be a proxy key is then not looked
    at (OpenAI's SDK always sends one). A proxy key that is unknown or revoked is refused everywhere.
    """
    if token is not None:
        if matches(token, admin_token_sha256):
            return ADMIN
        if token.startswith(PREFIX.encode()):
            key = keys.find(token)
            if key is None:
                return Caller(problem="This proxy key is not known here, or it was revoked.")
            return Caller(workspace=key.workspace)
        if admin_token_sha256 or not local:
            return Caller(problem="This token is not the admin token, nor a proxy key (tm-…).")
        return ADMIN
    if local and not admin_token_sha256:
        return ADMIN
    if admin_token_sha256:
        return Caller(problem="A token is required: send 'Authorization: Bearer <admin token or proxy key>'.")
    return Caller(problem="No admin token is configured, so the control port answers on loopback only.")


class Gate(ASGIMiddleware):
    """Checks Host and Origin and finds out who asks (`request.auth`), before anything else of the control plane."""

    scopes = (ScopeType.HTTP,)

    def __init__(self, hosts: Hosts, keys: Callable[[], Keys], admin_token_sha256: str, sessions: Sessions) -> None:
        self._hosts = hosts
        self._keys = keys
        self._admin_token_sha256 = admin_token_sha256
        self._sessions = sessions

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        head: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in head and name in (b"host", b"origin", b"authorization"):
                raise BadRequest(f"The header {name.decode()} was sent twice.", param=name.decode())
            head[name] = value
        self._hosts.check(head.get(b"host"), head.get(b"origin"))
        client = scope["client"]
        local = client is not None and is_loopback(client[0]) and not any(name in head for name in _FORWARDED)
        token = bearer(head.get(b"authorization"))
        if token is None and scope.get("method") in _READING:
            token = self._sessions.token(head.get(b"cookie"))
        scope["auth"] = identify(token, local=local, admin_token_sha256=self._admin_token_sha256, keys=self._keys())
        await next_app(scope, receive, send)


def anyone_known(connection: Connection, _: BaseRouteHandler) -> None:
    """Guard: an admin or a workspace's key."""
    caller: Caller = connection.auth
    if not caller.admin and caller.workspace is None:
        raise Unauthorized(caller.problem)


def admin_only(connection: Connection, handler: BaseRouteHandler) -> None:
    """Guard: the admin alone; a workspace's key sees its own usage and nothing else."""
    anyone_known(connection, handler)
    if not connection.auth.admin:
        raise Forbidden("A workspace's key may read its own usage only.")


def own(caller: Caller, asked: list[str]) -> list[str]:
    """The workspaces a caller's question is about, from those it named. Raises NotFound for another's."""
    if caller.workspace is None:
        return asked
    for workspace in asked:
        if workspace != caller.workspace:
            raise NotFound(f"No workspace {workspace[:128]!r}.", param="workspace")
    return [caller.workspace]
