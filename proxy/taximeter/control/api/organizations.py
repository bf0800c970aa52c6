"""Anthropic's usage and cost reports, in Anthropic's own shape: account = end user; calls of every provider.

The older Admin API (https://platform.claude.com/docs/en/api/admin/usage_report, …/cost_report), which reads a page
of time buckets. What sums do not tell apart is null, never 0: see docs/exports.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from litestar import Controller, get
from litestar.params import FromQuery, QueryParameter

from taximeter.control.answers import buckets
from taximeter.control.answers.buckets import US, USAGE_WIDTHS, Page, Width
from taximeter.control.answers.queries import Query, Read
from taximeter.control.api.parameters import Given, Many, only_known_parameters, split
from taximeter.control.door.access import anyone_known, own
from taximeter.control.services.querying import DRAIN_S, ApiRequest, run
from taximeter.control.services.services import Services
from taximeter.core import views
from taximeter.core.errors import BadRequest
from taximeter.core.times import moment_us, shown, zone
from taximeter.sinks.query import Filters, Group

Row = dict[str, Any]
NAMES = {
    "api_key_id": "key_id",
    "workspace_id": "workspace",
    "model": "model",
    "service_tier": "service_tier",
    "account_id": "end_user",
}
"""group_by of the usage report -> history's name."""
COST_NAMES = {"workspace_id": ("workspace",), "description": ("model", "service_tier")}
UTC_ZONE = zone("UTC")
COST_WIDTHS = {"1d": Width("day", 86_400, 7, 31)}

StartingAt = Annotated[str, QueryParameter(description="RFC 3339; snapped to the start of its bucket.")]
EndingAt = Annotated[str | None, QueryParameter(description="RFC 3339; buckets that end by then. Now if not given.")]
Limit = Annotated[int | None, QueryParameter(description="Buckets a page.")]
Cursor = Annotated[str | None, QueryParameter(description="The answer before's `next_page`.")]
GroupBy = Annotated[Many, QueryParameter(description="Fields to group by.")]


class Organizations(Controller):
    """What `/v1/organizations` of Anthropic tells of usage and costs."""

    path = "/v1/organizations"
    tags = ("organizations",)
    guards = (anyone_known, only_known_parameters)

    @get("/usage_report/messages", summary="Usage in time buckets, as Anthropic reports it")
    async def usage(
        self,
        services: Given,
        request: ApiRequest,
        starting_at: StartingAt,
        ending_at: EndingAt = None,
        bucket_width: Annotated[str, QueryParameter(description="1m, 1h or 1d.")] = "1d",
        api_key_ids: FromQuery[Many] = None,
        workspace_ids: FromQuery[Many] = None,
        account_ids: FromQuery[Many] = None,
        models: FromQuery[Many] = None,
        service_tiers: FromQuery[Many] = None,
        group_by: GroupBy = None,
        limit: Limit = None,
        page: Cursor = None,
    ) -> Row:
        names = _known(split(group_by), NAMES)
        asked = _page(starting_at, ending_at, USAGE_WIDTHS, bucket_width, limit, page)
        filters = Filters(
            from_us=asked.from_s * US,
            to_us=asked.to_s * US,
            workspace=own(request.auth, split(workspace_ids)) or None,
            end_user=split(account_ids) or None,
            key_id=split(api_key_ids) or None,
            model=split(models) or None,
            service_tier=split(service_tiers) or None,
            operation="llm",
        )
        by = [NAMES[name] for name in names]
        return await _answer(services, _buckets(filters, asked, by, lambda group: _usage(group, names)))

    @get("/cost_report", summary="Costs in time buckets, as Anthropic reports them")
    async def costs(
        self,
        services: Given,
        request: ApiRequest,
        starting_at: StartingAt,
        ending_at: EndingAt = None,
        bucket_width: Annotated[str, QueryParameter(description="1d.")] = "1d",
        group_by: GroupBy = None,
        limit: Limit = None,
        page: Cursor = None,
    ) -> Row:
        names = _known(split(group_by), COST_NAMES)
        asked = _page(starting_at, ending_at, COST_WIDTHS, bucket_width, limit, page)
        workspace = own(request.auth, []) or None
        filters = Filters(from_us=asked.from_s * US, to_us=asked.to_s * US, workspace=workspace)
        by = [known for name in names for known in COST_NAMES[name]]
        return await _answer(services, _buckets(filters, asked, by, lambda group: _cost(group, names)))


def _known(asked: list[str], names: dict[str, Any]) -> list[str]:
    for name in asked:
        if name not in names:
            raise BadRequest(f"Cannot group by {name[:80]!r}. Allowed: {', '.join(names)}.", param="group_by")
    return asked


def _page(
    starting_at: str, ending_at: str | None, widths: dict[str, Width], width: str, limit: int | None, cursor: str | None
) -> Page:
    """Whole buckets only. Raises BadRequest; where no bucket ends in the range, the page is one without any."""
    seconds = widths[width].seconds if width in widths else 1
    start_s = moment_us(starting_at, UTC_ZONE, "starting_at") // US // seconds * seconds
    if ending_at is None:  # with the bucket that is not over
        end_s = -(-(int(time.time()) + 1) // seconds) * seconds
    else:
        end_s = moment_us(ending_at, UTC_ZONE, "ending_at") // US // seconds * seconds
    if width in widths and end_s <= start_s and cursor is None:
        return Page(start_s, start_s, widths[width], None)
    return buckets.page(start_s, end_s, widths, width, limit, cursor)


async def _answer(services: Services, query: Query[Row]) -> Row:
    await services.delivery.drain(DRAIN_S)
    return await run(services.history, query)


def _buckets(filters: Filters, asked: Page, by: Sequence[str], shape: Callable[[Group], Row]) -> Query[Row]:
    found: list[Group] = []
    if asked.from_s < asked.to_s:
        (found,) = yield (Read(filters, list(by), asked.width.window, "UTC"),)
    at: dict[int, list[Group]] = {}
    for group in found:
        at.setdefault((group.start_us or 0) // US, []).append(group)
    return {
        "data": [
            {
                "starting_at": shown(start * US),
                "ending_at": shown(end * US),
                "results": [shape(each) for each in at.get(start, [])],
            }
            for start, end in asked.buckets()
        ],
        "has_more": asked.next_page is not None,
        "next_page": asked.next_page,
    }


def _usage(group: Group, names: Sequence[str]) -> Row:
    totals = group.totals
    written = totals.llm_cache_write_input_tokens
    uncached = totals.llm_input_tokens - totals.llm_cached_input_tokens - written
    return {
        "uncached_input_tokens": max(0, uncached),
        "cache_creation": dict.fromkeys(
            ("ephemeral_1h_input_tokens", "ephemeral_5m_input_tokens"), None if written else 0
        ),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": totals.llm_cached_input_tokens,
        "output_tokens": totals.llm_output_tokens,
        "server_tool_use": {"web_search_requests": None},
        **dict.fromkeys(("context_window", "inference_geo", "service_account_id")),
        **{name: group.key[known] if name in names else None for name, known in NAMES.items()},
    }


def _cost(group: Group, names: Sequence[str]) -> Row:
    cost = views.cost_usd(group.totals)
    described = "description" in names
    return {
        "amount": None if cost is None else f"{cost.scaleb(2):f}",
        "currency": "USD",
        "workspace_id": group.key["workspace"] if "workspace_id" in names else None,
        "description": f"{group.key['model'] or 'unknown'} usage" if described else None,
        "model": group.key["model"] if described else None,
        "service_tier": group.key["service_tier"] if described else None,
        **dict.fromkeys(("cost_type", "token_type", "context_window", "inference_geo")),
    }
