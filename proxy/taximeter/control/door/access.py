"""Who asks on the control port, and what they may see: the table of DESIGN §7, "Who".

`identify` is pure; the door (door.py) reads headers and the peer's address for it, the guards read its answer.
"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from taximeter.core.errors import Forbidden, NotFound, RateLimited, Unauthorized
from taximeter.keys.rule import PREFIX, Keys, matches

Connection = ASGIConnection[Any, Any, Any, Any]


class Caller(msgspec.Struct, frozen=True):
    """Who asks. Neither `admin` nor `workspace`: nobody known."""

    admin: bool = False
    workspace: str | None = None
    """Set for a workspace's key: all it may see."""
    key_id: str = ""
    """Of a workspace's key."""
    problem: str = ""
    """Why nobody is known, for the 401."""
    wait_s: int = 0
    """Above 0: the token was not looked at, and for so long none will be."""

    @property
    def known(self) -> bool:
        return self.admin or self.workspace is not None


ADMIN = Caller(admin=True)


def identify(token: bytes | None, *, local: bool, admin_token_sha256: str, keys: Keys) -> Caller:
    """The caller a bearer token and the way in stand for. `local`: the peer is on a trusted loopback (trust.py).

    While no admin token is configured, whoever is local is the admin; a token that cannot be a proxy key is then not
    looked at (OpenAI's SDK always sends one). A proxy key that is unknown or revoked is refused everywhere.
    """
    if token is not None:
        if matches(token, admin_token_sha256):
            return ADMIN
        if token.startswith(PREFIX.encode()):
            key = keys.find(token)
            if key is None:
                return Caller(problem=keys.why_not(token))
            return Caller(workspace=key.workspace, key_id=key.id)
        if admin_token_sha256 or not local:
            return Caller(problem="This token is not the admin token, nor a proxy key (tm-…).")
        return ADMIN
    if local and not admin_token_sha256:
        return ADMIN
    if admin_token_sha256:
        return Caller(problem="A token is required: send 'Authorization: Bearer <admin token or proxy key>'.")
    return Caller(
        problem="No admin token is configured, and this way in is not trusted without one: set auth.admin_token_sha256."
    )


def anyone_known(connection: Connection, _: BaseRouteHandler) -> None:
    """Guard: an admin or a workspace's key. A probe that answers everyone has none, so it answers wrong tokens too."""
    caller: Caller = connection.auth
    if caller.wait_s:
        raise RateLimited(caller.problem, retry_after_s=caller.wait_s)
    if not caller.known:
        raise Unauthorized(caller.problem)


def admin_only(connection: Connection, handler: BaseRouteHandler) -> None:
    """Guard: the admin alone; a workspace's key sees its own usage and nothing else."""
    anyone_known(connection, handler)
    if not connection.auth.admin:
        raise Forbidden("A workspace's key may read its own usage only.")


def own(caller: Caller, asked: list[str]) -> list[str]:
    """The workspaces a caller's query is about, from those it named. Raises NotFound for another's."""
    if caller.workspace is None:
        return asked
    for workspace in asked:
        if workspace != caller.workspace:
            raise NotFound(f"No workspace {workspace[:128]!r}.", param="workspace")
    return [caller.workspace]
