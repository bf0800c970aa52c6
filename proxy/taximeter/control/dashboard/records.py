"""Single records: a list with every filter, in pages both ways; one request; and the search that leads to either."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from typing import Annotated
from urllib.parse import urlencode

import msgspec
from litestar import Controller, Response, get
from litestar.di import Provide
from litestar.params import FromPath, QueryParameter
from msgspec.structs import replace

from taximeter.budgets.rule import CHARGED
from taximeter.control.answers import responses
from taximeter.control.api.parameters import Given, Many, only_known_parameters, split, with_ends, written
from taximeter.control.dashboard import figures
from taximeter.control.dashboard.contexts import RecordsPage, RequestPage, SearchPage
from taximeter.control.dashboard.pages import Viewed, page_view
from taximeter.control.dashboard.pickers import pickers
from taximeter.control.dashboard.showing import ERRORS, show
from taximeter.control.dashboard.sorting import sorting
from taximeter.control.dashboard.view import ENDS, NAMES, View, path
from taximeter.control.door.access import anyone_known
from taximeter.control.services.querying import ApiRequest, up_to_date
from taximeter.control.services.services import Services
from taximeter.core.errors import NotFound
from taximeter.core.record import Record
from taximeter.core.times import shown
from taximeter.core.views import cost_usd
from taximeter.sinks.history.read.names import FOUND
from taximeter.sinks.query import SORTS, TAGS, Filters, Match, Sort

EXPORTS = {"CSV": "csv", "JSON Lines": "jsonl"}
RECORDS = 100
MOST_LINES = 50
"""Lines of a batch shown with its request."""
MOST_READ = 200_000
"""Records that are read for a page at most, to sort them by another figure than time or to sum them where no roll-up
knows the filter."""
MOST_SEARCHED = 200
"""Characters."""
_LINKED = frozenset((*NAMES, *ENDS))
"""A record's fields that are filters too."""


class RecordPages(Controller):
    """Single records, for people."""

    tags = ("dashboard",)
    guards = (anyone_known, only_known_parameters)
    dependencies = {"view": Provide(page_view)}  # noqa: RUF012 - Litestar reads it as a class attribute
    exception_handlers = ERRORS

    @get("/dashboard/records", summary="Single records", media_type="text/html")
    async def records(
        self,
        services: Given,
        request: ApiRequest,
        view: Viewed,
        outcome: Annotated[Many, QueryParameter(description="How the attempts ended.")] = None,
        error_code: Annotated[Many, QueryParameter(description="Our own codes of what was refused or failed.")] = None,
        sort: Annotated[str | None, QueryParameter(description="-ended, cost, -tokens, …")] = None,
        page: Annotated[str | None, QueryParameter(description="Cursor of another page.")] = None,
    ) -> Response[str]:
        ends = {name: split(values) for name, values in (("outcome", outcome), ("error_code", error_code)) if values}
        asked = with_ends(view.filters, outcome, error_code)
        view = replace(view, filters=asked, params=view.params | ends)
        order = sorting(sort, SORTS, "-ended")
        complete, lag_s = await up_to_date(services)
        few = await _few(services, view)
        by = next(name for name in SORTS if name == (order.by if few else "ended"))
        listing, offered = await asyncio.gather(
            services.history.listing(asked, RECORDS, page, Sort(by, order.descending)),
            services.history.names(request.auth.workspace),
        )
        totals = None
        if few or not any(getattr(asked, name) for name in ENDS):
            totals = figures.summed(await services.history.usage(asked)).totals
        whole = view.url(
            "", period=None, by=None, sort=None, refresh=None, from_=shown(view.from_us), to=shown(view.to_us)
        )
        context = RecordsPage(
            view=view,
            listing=listing,
            sort=order,
            sorted=by == order.by,
            paged=page is not None,
            totals=totals,
            cost=None if totals is None else cost_usd(totals),
            most_read=MOST_READ,
            pickers=pickers(view, offered),
            exports={name: f"/usage/export.{kind}{whole}" for name, kind in EXPORTS.items()},
            complete=complete,
            lag_seconds=lag_s,
        )
        return show(request, context)

    @get("/dashboard/requests/{request_id:str}", summary="One request, every attempt", media_type="text/html")
    async def request(self, services: Given, request: ApiRequest, request_id: FromPath[str]) -> Response[str]:
        await up_to_date(services)
        records, more = await services.history.request(request_id, MOST_LINES)
        records = [each for each in records if request.auth.workspace in (None, each.workspace)]
        if not records:
            raise NotFound(f"No request {request_id[:128]!r} is recorded.", param="request_id")
        attempts, unknown = [], []
        for record in records:
            fields = responses.record(record)
            usage = fields.pop("usage")
            fields["tags"] = fields["tags"] or None
            known = [(name, _plain(value), _of(record, name)) for name, value in fields.items() if value is not None]
            attempts.append((record, known, _pretty(usage)))
            unknown.append([name for name, value in fields.items() if value is None and name not in CHARGED])
        return show(
            request, RequestPage(request_id=request_id, attempts=attempts, unknown=unknown, more=more is not None)
        )


class Finding(Controller):
    """What the forms above records ask: answered with a link to what was meant."""

    tags = ("dashboard",)
    guards = (anyone_known,)
    exception_handlers = ERRORS
    include_in_schema = False

    @get("/dashboard/filter", media_type="text/html")
    async def chosen(self, request: ApiRequest) -> Response[str]:
        """The records' address with what was filled in; an empty field is no filter."""
        given = [(name, value.strip()) for name, value in request.query_params.multi_items() if value.strip()]
        query = urlencode([(name, _typed(value)) for name, value in given])
        return Response("", status_code=303, headers={"location": f"/dashboard/records?{query}"})

    @get("/dashboard/search", media_type="text/html")
    async def search(
        self, services: Given, request: ApiRequest, q: Annotated[str, QueryParameter(max_length=MOST_SEARCHED)] = ""
    ) -> Response[str]:
        """A request, or the one name that was meant; else the names to choose from."""
        text, mine = q.strip(), request.auth.workspace
        await up_to_date(services)
        found: list[tuple[Match, str]] = []
        if text:
            if any(mine in (None, each.workspace) for each in await services.history.record(text)):
                return Response("", status_code=303, headers={"location": path("requests", text)})
            found = [(match, _leads_to(match)) for match in await services.history.search(text, mine)]
        if len(found) == 1:
            return Response("", status_code=303, headers={"location": found[0][1]})
        kinds = Counter(match.name for match, _ in found)
        most = FOUND if any(number >= FOUND for number in kinds.values()) else 0
        return show(request, SearchPage(text=text, found=found, most=most), 200 if found or not text else 404)


async def _few(services: Services, view: View) -> bool:
    """Whether so few records are asked for that each may be read: of a tag, or as the roll-ups tell."""
    if any(getattr(view.filters, name) is not None for name in TAGS):
        return True
    known = {name: getattr(view.filters, name) for name in NAMES if name not in TAGS}
    counted = Filters(from_us=view.from_us, to_us=view.to_us, **known)
    return await services.history.count(counted) <= MOST_READ


def _typed(value: str) -> str:
    """What is typed into a field, as a filter has it: "(none)" stands for calls that carry none."""
    return ",".join("" if part.strip() == "(none)" else part for part in value.split(","))


def _leads_to(match: Match) -> str:
    if match.name == "track" and match.workspace:
        return path("workspaces", match.workspace, "tracks", match.value)
    if match.name == "workspace":
        return path("workspaces", match.value)
    owner = {} if match.workspace is None else {"workspace": match.workspace}
    return f"/dashboard/records?{urlencode({'period': '365d', match.name: written(match.value), **owner})}"


def _of(record: Record, name: str) -> str:
    """The link to the records that share a field's value; "" where it is no filter."""
    if name == "track" and record.track is not None:
        return path("workspaces", record.workspace, "tracks", record.track)
    if name == "workspace":
        return path("workspaces", record.workspace)
    if name not in _LINKED:
        return ""
    query = {"period": "365d", "workspace": record.workspace, name: written(getattr(record, name) or "")}
    return f"/dashboard/records?{urlencode(query)}"


def _plain(value: object) -> str:
    """A record's value as the API writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:f}" if isinstance(value, Decimal) else str(value)  # 0.00000084, not 8.4E-7


def _pretty(usage: msgspec.Raw) -> str:
    """A provider's usage object, indented; "" where there was none."""
    raw = bytes(usage)
    return "" if raw == b"null" else msgspec.json.format(raw, indent=2).decode()


PAGES = (RecordPages, Finding)
