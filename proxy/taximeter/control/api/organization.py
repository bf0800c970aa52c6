"""OpenAI's organization usage and costs API, in OpenAI's own shape: project = workspace, user = end user.

The official SDK reads it with `OpenAI(base_url="http://host:8001/v1", admin_api_key=…).admin.organization.usage`.
What Taximeter does not meter (images, sessions, stores …) answers pages of empty buckets: nothing is known, not zero.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
from litestar import Controller, get
from litestar.params import FromPath, FromQuery, QueryParameter

from taximeter.control.answers import buckets
from taximeter.control.answers.buckets import COST_WIDTHS, US, USAGE_WIDTHS, Page
from taximeter.control.answers.queries import Query, Read
from taximeter.control.answers.responses import details_of
from taximeter.control.api.parameters import Given, Many, only_known_parameters, split
from taximeter.control.door.access import anyone_known, own
from taximeter.control.services.querying import DRAIN_S, ApiRequest, run
from taximeter.control.services.services import Services
from taximeter.core import views
from taximeter.core.errors import BadRequest, NotFound
from taximeter.sinks.query import Filters, Group

NAMES = {
    "project_id": "workspace",
    "user_id": "end_user",
    "api_key_id": "key_id",
    "model": "model",
    "service_tier": "service_tier",
    "workspace": "workspace",
    "track": "track",
    "task": "task",
    "provider": "provider",
    "operation": "operation",
}
"""group_by of this API -> history's name; from `workspace` on they are extensions of ours."""
Row = dict[str, Any]
_COMMON = ("project_id", "user_id", "api_key_id", "model")
_OURS = ("workspace", "track", "task", "provider", "operation")


class Kind(msgspec.Struct, frozen=True):
    """One usage endpoint: what it counts and what it can be grouped by."""

    object: str
    operation: str | None
    """None: not metered."""
    group_by: tuple[str, ...]
    sums: Callable[[Group], Row] = lambda group: {}


def _completions(group: Group) -> Row:
    """Sums of text, audio and image parts. Providers tell audio and image input with cached parts included."""
    totals, details = group.totals, group.details
    uncached = totals.llm_input_tokens - totals.llm_cached_input_tokens - totals.llm_cache_write_input_tokens
    return {
        "input_tokens": totals.llm_input_tokens,
        "input_cached_tokens": totals.llm_cached_input_tokens,
        "input_cache_write_tokens": totals.llm_cache_write_input_tokens,
        "input_uncached_tokens": max(0, uncached),
        "input_audio_tokens": details.audio_input_tokens,
        "input_image_tokens": details.image_input_tokens,
        "output_tokens": totals.llm_output_tokens,
        "output_audio_tokens": details.audio_output_tokens,
        "num_model_requests": totals.llm_requests,
    }


def _embeddings(group: Group) -> Row:
    return {"input_tokens": group.totals.embedding_tokens, "num_model_requests": group.totals.embedding_requests}


def _rerank(group: Group) -> Row:
    totals = group.totals
    return {
        "input_tokens": totals.rerank_tokens,
        "search_units": totals.search_units,
        "num_model_requests": totals.rerank_requests,
    }


KINDS = {
    "completions": Kind("completions", "llm", (*_COMMON, "batch", "service_tier", "api_source"), _completions),
    "embeddings": Kind("embeddings", "embedding", _COMMON, _embeddings),
    "rerank": Kind("rerank", "rerank", _COMMON, _rerank),
    "moderations": Kind("moderations", None, _COMMON),
    "images": Kind("images", None, (*_COMMON, "size", "source")),
    "audio_speeches": Kind("audio_speeches", None, _COMMON),
    "audio_transcriptions": Kind("audio_transcriptions", None, _COMMON),
    "decisions": Kind("decisions", None, (*_COMMON, "batch", "service_tier", "api_source")),
    "vector_stores": Kind("vector_stores", None, ("project_id",)),
    "code_interpreter_sessions": Kind("code_interpreter_sessions", None, ("project_id",)),
    "file_search_calls": Kind("file_searches", None, ("project_id", "user_id", "api_key_id", "vector_store_id")),
    "web_search_calls": Kind("web_searches", None, (*_COMMON, "context_level", "api_source")),
}
COSTS = Kind("costs", None, ("project_id", "user_id", "line_item", "api_key_id", "api_source"))

StartTime = Annotated[int, QueryParameter(description="First second, Unix time.")]
EndTime = Annotated[int | None, QueryParameter(description="First second no longer included; now when not given.")]
Limit = Annotated[int | None, QueryParameter(description="Buckets a page.")]
Cursor = Annotated[str | None, QueryParameter(description="The answer before's `next_page`.")]
GroupBy = Annotated[Many, QueryParameter(description="Fields to group by.")]


class Organization(Controller):
    """`client.admin.organization.usage` of OpenAI's SDK."""

    path = "/v1/organization"
    tags = ("organization",)
    guards = (anyone_known, only_known_parameters)

    @get("/usage/{kind:str}", summary="Usage in time buckets")
    async def usage(
        self,
        services: Given,
        request: ApiRequest,
        kind: FromPath[str],
        start_time: StartTime,
        end_time: EndTime = None,
        bucket_width: Annotated[str, QueryParameter(description="1m, 1h or 1d.")] = "1d",
        project_ids: FromQuery[Many] = None,
        user_ids: FromQuery[Many] = None,
        api_key_ids: FromQuery[Many] = None,
        models: FromQuery[Many] = None,
        vector_store_ids: FromQuery[Many] = None,
        sizes: FromQuery[Many] = None,
        sources: FromQuery[Many] = None,
        context_levels: FromQuery[Many] = None,
        batch: Annotated[bool | None, QueryParameter(description="Batch jobs only, or none of them.")] = None,
        group_by: GroupBy = None,
        limit: Limit = None,
        page: Cursor = None,
    ) -> Row:
        what = KINDS.get(kind)
        if what is None:
            raise NotFound(f"No usage {kind[:80]!r}. There are: {', '.join(KINDS)}.", param="kind")
        if what.operation is not None and any((vector_store_ids, sizes, sources, context_levels)):
            raise BadRequest(f"{kind} cannot be filtered so; allowed: project_ids, user_ids, api_key_ids, models.")
        if batch is not None and "batch" not in what.group_by:
            raise BadRequest(f"{kind} has no filter 'batch'.", param="batch")
        names = _grouping(what, split(group_by))
        asked = buckets.page(start_time, _end(end_time), USAGE_WIDTHS, bucket_width, limit, page)
        filters = Filters(
            from_us=asked.from_s * US,
            to_us=asked.to_s * US,
            workspace=own(request.auth, split(project_ids)) or None,
            end_user=split(user_ids) or None,
            key_id=split(api_key_ids) or None,
            model=split(models) or None,
            operation=what.operation,
        )
        if what.operation is None:
            return _envelope(asked, [], names, lambda group: {})
        return await _answer(services, _buckets(filters, asked, names, batch, lambda group: _result(what, group)))

    @get("/costs", summary="Costs in time buckets")
    async def costs(
        self,
        services: Given,
        request: ApiRequest,
        start_time: StartTime,
        end_time: EndTime = None,
        bucket_width: Annotated[str, QueryParameter(description="1d.")] = "1d",
        project_ids: FromQuery[Many] = None,
        api_key_ids: FromQuery[Many] = None,
        line_items: Annotated[Many, QueryParameter(description="Here a line item is a model.")] = None,
        group_by: GroupBy = None,
        limit: Limit = None,
        page: Cursor = None,
    ) -> Row:
        names = _grouping(COSTS, split(group_by))
        asked = buckets.page(start_time, _end(end_time), COST_WIDTHS, bucket_width, limit, page)
        filters = Filters(
            from_us=asked.from_s * US,
            to_us=asked.to_s * US,
            workspace=own(request.auth, split(project_ids)) or None,
            key_id=split(api_key_ids) or None,
            model=split(line_items) or None,
        )
        return await _answer(services, _buckets(filters, asked, names, None, lambda group: _cost(group, names)))


def _end(end_time: int | None) -> int:
    """Now, rounded up: what has just ended is in."""
    return int(time.time()) + 1 if end_time is None else end_time


def _grouping(kind: Kind, asked: list[str]) -> tuple[str, ...]:
    allowed = (*kind.group_by, *_OURS)
    for name in asked:
        if name not in allowed:
            raise BadRequest(f"Cannot group by {name[:80]!r}. Allowed: {', '.join(allowed)}.", param="group_by")
    return tuple(asked)


async def _answer(services: Services, query: Query[Row]) -> Row:
    await services.delivery.drain(DRAIN_S)
    return await run(services.history, query)


def _buckets(
    filters: Filters, asked: Page, names: Sequence[str], batch: bool | None, shape: Callable[[Group], Row]
) -> Query[Row]:
    """One page. Batch jobs are those of the service tier `batch`."""
    by = {_history_name(name) for name in names} - {""}
    if batch is not None:
        by.add("service_tier")
    (found,) = yield (Read(filters, sorted(by), asked.width.window, "UTC"),)
    if batch is not None:
        found = [group for group in found if (group.key["service_tier"] == "batch") is batch]
    return _envelope(asked, found, names, shape)


def _history_name(name: str) -> str:
    """The name history knows a group_by field by; "" where it is the same for all calls."""
    if name in ("batch", "line_item"):
        return {"batch": "service_tier", "line_item": "model"}[name]
    return NAMES.get(name, "")


def _envelope(asked: Page, found: list[Group], names: Sequence[str], shape: Callable[[Group], Row]) -> Row:
    """The page: every bucket of it, with one result for each combination of the grouped fields' values."""
    alike: dict[int, dict[tuple[Any, ...], list[Group]]] = {}
    for group in found:
        values = tuple(_value(name, group) for name in names)
        alike.setdefault((group.start_us or 0) // US, {}).setdefault(values, []).append(group)
    return {
        "object": "page",
        "data": [
            {
                "object": "bucket",
                "start_time": start,
                "end_time": end,
                "results": [
                    shape(_merged(groups)) | dict(zip(names, values, strict=True))
                    for values, groups in alike.get(start, {}).items()
                ],
            }
            for start, end in asked.buckets()
        ],
        "has_more": asked.next_page is not None,
        "next_page": asked.next_page,
    }


def _merged(groups: Sequence[Group]) -> Group:
    """Groups that differ only in what is not shown, as one."""
    return msgspec.structs.replace(
        groups[0],
        totals=views.summed(group.totals for group in groups),
        details=details_of(group.details for group in groups),
    )


def _result(kind: Kind, group: Group) -> Row:
    return {"object": f"organization.usage.{kind.object}.result", **kind.sums(group), **dict.fromkeys(kind.group_by)}


def _cost(group: Group, names: Sequence[str]) -> Row:
    cost = views.cost_usd(group.totals)
    itemised = "line_item" in names and group.totals.total_tokens > 0
    return {
        "object": "organization.costs.result",
        "amount": None if cost is None else {"value": cost, "currency": "usd"},
        "quantity": group.totals.total_tokens if itemised else None,
        "quantity_unit": "tokens" if itemised else None,
        **dict.fromkeys(COSTS.group_by),
    }


def _value(name: str, group: Group) -> Any:
    if name == "batch":
        return group.key["service_tier"] == "batch"
    if name == "api_source":
        return "unlabeled"  # OpenAI's word for calls that no agent framework of theirs made
    known_as = _history_name(name)
    return group.key[known_as] if known_as else None
