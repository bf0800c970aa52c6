"""Anthropic's usage and cost: by the Usage and Cost Analytics API (beta of 2026-08-24), or by the older Admin API.

Sources: https://platform.claude.com/docs/en/manage-claude/usage-cost-analytics-api and …/usage-cost-api; the shapes are
those of its Python SDK 2.12 (`beta.organization.analytics`). Amounts are decimal strings in cents: of the first API
after discounts and before credits.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import quote

import msgspec

from taximeter.reconcile.asking import Asker, NotThere, Params
from taximeter.reconcile.openai_pages import nusd
from taximeter.reconcile.rule import told_day
from taximeter.reconcile.told import By, Row, Span

BASE_URL = "https://api.anthropic.com"
BETA = "analytics-usage-cost-2026-08-24"
ROWS, DAYS = 1_000, 31
"""Of a page, at most: rows of the one API, buckets of the other."""
NUSD_PER_CENT = 10**7
_GROUPS: dict[By, tuple[str, ...]] = {
    "": (),
    "upstream": ("api_key_id",),
    "key": ("api_key_id",),
    "workspace": ("workspace_id",),
}


class CacheCreation(msgspec.Struct):
    """null: not told how long."""

    ephemeral_5m_input_tokens: int | None = 0
    ephemeral_1h_input_tokens: int | None = 0


class Usage(msgspec.Struct):
    """Of either API; `requests` only of the first. Another Taximeter, which need not know for how long what was written
    is kept, says how much it was in `cache_creation_input_tokens`."""

    uncached_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    cache_creation: CacheCreation
    cache_creation_input_tokens: int | None = None
    requests: int | None = None


class Group(msgspec.Struct):
    model: str | None = None
    api_key_id: str | None = None
    workspace_id: str | None = None


class Cost(msgspec.Struct):
    amount: Decimal | None
    currency: str


class Item(msgspec.Struct):
    """A row of the Analytics API."""

    starting_at: datetime
    group: Group
    usage: Usage | None = None
    cost: Cost | None = None


class Items(msgspec.Struct):
    data: list[Item]
    has_more: bool = False
    next_page: str | None = None


class UsageResult(Usage, kw_only=True):
    """A row of the Admin API's usage report."""

    model: str | None = None
    api_key_id: str | None = None
    workspace_id: str | None = None


class CostResult(Cost, kw_only=True):
    """A row of its cost report."""

    model: str | None = None
    workspace_id: str | None = None
    description: str | None = None


class UsageBucket(msgspec.Struct):
    starting_at: datetime
    results: list[UsageResult]


class CostBucket(msgspec.Struct):
    starting_at: datetime
    results: list[CostResult]


class UsageReport(msgspec.Struct):
    data: list[UsageBucket]
    has_more: bool = False
    next_page: str | None = None


class CostReport(msgspec.Struct):
    data: list[CostBucket]
    has_more: bool = False
    next_page: str | None = None


_items = msgspec.json.Decoder(Items).decode
_usage_report = msgspec.json.Decoder(UsageReport).decode
_cost_report = msgspec.json.Decoder(CostReport).decode


def headers(credential: str) -> dict[str, str]:
    return {"x-api-key": credential, "anthropic-version": "2023-06-01", "anthropic-beta": BETA}


def admin_headers(credential: str) -> dict[str, str]:
    return {"x-api-key": credential, "anthropic-version": "2023-06-01"}


async def rows(asker: Asker, span: Span, by: By) -> list[Row]:
    """Usage and cost of these days, at most 31. Raises PullFailed."""
    found = []
    asked = _asked(span, ("model", *_GROUPS[by]))
    for path in ("/v1/organizations/analytics/usage", "/v1/organizations/analytics/cost"):
        async for page in asker.pages(path, asked, _items):
            found += [_row(item) for item in page.data]
    return found


async def admin_rows(asker: Asker, span: Span, by: By) -> list[Row]:
    """The same from the older API, which tells no cost by key: by keys there is none."""
    found = []
    asked = _admin_asked(span, ("model", *_GROUPS[by]))
    async for report in asker.pages("/v1/organizations/usage_report/messages", asked, _usage_report):
        for bucket in report.data:
            for used in bucket.results:
                row = Row(_day(bucket.starting_at), used.model or "", _figures(used))
                row.key_id, row.project_id = used.api_key_id or "", used.workspace_id or ""
                found.append(row)
    if by in ("upstream", "key"):
        return found
    asked = _admin_asked(span, ("description", *_GROUPS[by]))
    async for costs in asker.pages("/v1/organizations/cost_report", asked, _cost_report):
        for billed in costs.data:
            for each in billed.results:
                model = each.model or each.description or ""
                row = Row(_day(billed.starting_at), model, _cost(each), "", each.workspace_id or "")
                found.append(row)
    return found


async def trial(asker: Asker, span: Span) -> None:
    """The smallest question that needs the same right. Raises PullFailed."""
    await asker.get("/v1/organizations/analytics/cost", _asked(span, ()), _items)


async def admin_trial(asker: Asker, span: Span) -> None:
    """The same of the older API."""
    await asker.get("/v1/organizations/cost_report", _admin_asked(span, ()), _cost_report)


def _asked(span: Span, groups: Sequence[str]) -> Params:
    return [
        *_range(span),
        ("time_bucket_width", "1d"),
        ("order_by", "time"),
        ("limit", str(ROWS)),
        *(("group_by[]", name) for name in groups),
    ]


def _admin_asked(span: Span, groups: Sequence[str]) -> Params:
    return [*_range(span), ("bucket_width", "1d"), ("limit", str(DAYS)), *(("group_by[]", name) for name in groups)]


def _range(span: Span) -> Params:
    moments = zip(("starting_at", "ending_at"), span, strict=True)
    return [(name, datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")) for name, at_s in moments]


def _row(item: Item) -> Row:
    figures = _figures(item.usage) if item.usage is not None else {} if item.cost is None else _cost(item.cost)
    group = item.group
    return Row(_day(item.starting_at), group.model or "", figures, group.api_key_id or "", group.workspace_id or "")


def _figures(used: Usage) -> dict[str, int | None]:
    written = _written(used)
    read = used.uncached_input_tokens + used.cache_read_input_tokens
    return {
        "input_tokens": None if written is None else read + written,
        "cached_input_tokens": used.cache_read_input_tokens,
        "cache_write_input_tokens": written,
        "output_tokens": used.output_tokens,
        "requests": used.requests,
    }


def _written(used: Usage) -> int | None:
    if used.cache_creation_input_tokens is not None:
        return used.cache_creation_input_tokens
    parts = used.cache_creation.ephemeral_5m_input_tokens, used.cache_creation.ephemeral_1h_input_tokens
    return None if None in parts else sum(part or 0 for part in parts)


def _cost(billed: Cost) -> dict[str, int | None]:
    return {"cost_nusd": None if billed.amount is None else nusd(billed.amount, billed.currency, NUSD_PER_CENT)}


def _day(at: datetime) -> str:
    """One without a time zone is of UTC, whatever this machine's is. Raises PullFailed."""
    return told_day(int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()))


class _Key(msgspec.Struct):
    partial_key_hint: str | None = None
    has_more: bool = False
    next_page: str | None = None


_decode_key = msgspec.json.Decoder(_Key).decode


async def hint(asker: Asker, key_id: str, project_id: str) -> str:
    """The end of a key, as the API shows it (`sk-ant-api03-R2D...igAA`); "": it does not know the key any more."""
    try:
        return (
            await asker.get(f"/v1/organizations/api_keys/{quote(key_id, safe='')}", (), _decode_key)
        ).partial_key_hint or ""
    except NotThere:
        return ""
