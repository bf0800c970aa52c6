"""What can be asked over HTTP: the query parameters of the usage API, read once and checked.

A parameter that takes several values can be repeated, written with commas, or as `name[]=` (OpenAI's SDK does). A comma
that is part of a value has a backslash before it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args

import msgspec
from litestar import Request
from litestar.di import NamedDependency
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.params import QueryParameter
from litestar.types import ASGIApp, Receive, Scope, Send

from taximeter.control.door.access import Caller, Connection, own
from taximeter.control.services.services import Services
from taximeter.core.errors import BadRequest, NotFound
from taximeter.core.record import Outcome
from taximeter.core.times import range_us
from taximeter.sinks.query import Filters, Window, checked

Many = list[str] | None

_brackets = re.compile(rb"(^|&)([^=&]+?)(?:\[\]|%5[Bb]%5[Dd])(?==|&|$)").sub
_typed = re.compile(r"\{(\w+):\w+\}").sub
_part = re.compile(r"(?:\\[\\,\s]|[^,])*").match
_special = re.compile(r"[\\,]").sub
_outer = re.compile(r"^\s|\s\Z").sub
_plain = re.compile(r"\\([\\,\s])").sub
_strip = re.compile(r"^\s+|(?<!\\)\s+\Z").sub


class Brackets(ASGIMiddleware):
    """`group_by[]=model` means `group_by=model`."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        query = scope["query_string"]
        if b"[" in query or b"%5" in query:
            scope["query_string"] = _brackets(rb"\1\2", query)
        await next_app(scope, receive, send)


def only_known_parameters(connection: Connection, _: BaseRouteHandler) -> None:
    """Guard: refuse a parameter the schema does not name, so that a misspelt filter never widens an answer."""
    asked = set(connection.query_params)
    if not asked:
        return
    allowed = _parameters(connection)
    unknown = sorted(asked - allowed)
    if unknown:
        names = ", ".join(sorted(allowed)) or "none"
        raise BadRequest(f"Unknown parameter {unknown[0][:80]!r}. Allowed: {names}.", param=unknown[0][:80])


def _parameters(connection: Connection) -> set[str]:
    """The query parameters the OpenAPI schema (built once by Litestar) gives this route and method."""
    paths = connection.app.openapi_schema.paths or {}
    item = paths.get(_typed(r"{\1}", connection.scope["path_template"]))
    operation = getattr(item, str(connection.scope.get("method")).lower(), None) if item is not None else None
    parameters = operation.parameters if operation is not None else None
    return {each.name for each in parameters or () if getattr(each, "param_in", "") == "query"}


MOST_VALUES = 200
"""Of one parameter. The head could hold 30,000, which is more than a statement of SQLite takes."""


def split(values: Many) -> list[str]:
    """Repeated and comma-separated values as one list without repeats. Raises BadRequest on more than MOST_VALUES."""
    found = list(dict.fromkeys(part for value in values or () for part in _split(value)))
    if len(found) > MOST_VALUES:
        raise BadRequest(f"{len(found):,} values in one parameter, at most {MOST_VALUES} are taken.")
    return found


def _split(value: str) -> list[str]:
    if "\\" not in value:
        return [part.strip() for part in value.split(",")]
    parts, at = [], 0
    while at <= len(value):  # a part, then its comma
        found = _part(value, at)
        part = found[0] if found else ""
        parts.append(_plain(r"\1", _strip("", part)))
        at += len(part) + 1
    return parts


def written(value: str) -> str:
    """A value so that `split` reads it as this one: commas, backslashes, outer spaces with a backslash before them."""
    escaped = _special(r"\\\g<0>", value)
    return _outer(r"\\\g<0>", escaped)


class UsageParameters(msgspec.Struct, frozen=True, kw_only=True):
    """The filters of a query, with the workspaces this caller may see."""

    filters: Filters
    tz: str


Asked = NamedDependency[UsageParameters]
"""The common filters, in a handler's signature."""
Given = NamedDependency[Services]
"""What the application was built from, in a handler's signature."""


From = Annotated[str | None, QueryParameter(name="from", description="First moment: RFC 3339 or a date.")]
To = Annotated[str | None, QueryParameter(description="First moment no longer in: RFC 3339 or a date.")]
Zone = Annotated[str, QueryParameter(description="IANA time zone of dates and windows.")]


def _several(text: str) -> Any:
    return QueryParameter(description=f"{text} Several: repeat it or separate by commas; empty: calls that carry none.")


async def usage_parameters(
    request: Request[Any, Caller, Any],
    workspace: Annotated[Many, _several("Workspace.")] = None,
    from_: From = None,
    to: To = None,
    tz: Zone = "UTC",
    track: Annotated[Many, _several("Track.")] = None,
    document: Annotated[Many, _several("Document.")] = None,
    task: Annotated[Many, _several("Task.")] = None,
    model: Annotated[Many, _several("Served model.")] = None,
    provider: Annotated[Many, _several("Provider.")] = None,
    operation: Annotated[Many, _several("llm, embedding, rerank or other.")] = None,
    key_id: Annotated[Many, _several("Id of the proxy key.")] = None,
    end_user: Annotated[Many, _several("End user.")] = None,
    service_tier: Annotated[Many, _several("Service tier.")] = None,
) -> UsageParameters:
    """The common filters, as a dependency of the routes that answer about usage."""
    from_us, to_us = range_us(from_, to, tz)
    for name in split(operation):
        if name not in ("llm", "embedding", "rerank", "other"):
            raise BadRequest(f"No operation {name[:80]!r}. Allowed: llm, embedding, rerank, other.", param="operation")
    return UsageParameters(
        filters=Filters(
            from_us=from_us,
            to_us=to_us,
            workspace=own(request.auth, split(workspace)) or None,
            track=split(track) or None,
            document=split(document) or None,
            task=split(task) or None,
            model=split(model) or None,
            provider=split(provider) or None,
            operation=split(operation) or None,
            key_id=split(key_id) or None,
            end_user=split(end_user) or None,
            service_tier=split(service_tier) or None,
        ),
        tz=tz,
    )


def with_ends(filters: Filters, outcome: Many, error_code: Many) -> Filters:
    """The filters, and how the attempts ended. Raises BadRequest on an outcome there is not."""
    for name in split(outcome):
        if name not in tuple(Outcome):
            raise BadRequest(f"No outcome {name[:80]!r}. Allowed: {', '.join(Outcome)}.", param="outcome")
    return msgspec.structs.replace(filters, outcome=split(outcome) or None, error_code=split(error_code) or None)


def groups(group_by: Many) -> tuple[str, ...]:
    """The names to group by. Raises BadRequest naming what is allowed."""
    return checked(split(group_by))


def one_workspace(caller: Caller, asked: str | None) -> str | None:
    """The workspace a query about one thing is about; None: not said. Raises NotFound for another's."""
    if caller.workspace is not None and asked not in (None, caller.workspace):
        raise NotFound(f"No workspace {str(asked)[:128]!r}.", param="workspace")
    return caller.workspace or asked


def window_of(name: str | None) -> Window | None:
    """The width of the windows. Raises BadRequest naming what is allowed."""
    allowed: tuple[Window, ...] = get_args(Window)
    for each in allowed:
        if each == name:
            return each
    if name is None:
        return None
    raise BadRequest(f"No window {name[:80]!r}. Allowed: {', '.join(allowed)}.", param="window")
