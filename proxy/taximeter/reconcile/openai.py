"""OpenAI's organization usage and costs, and whatever answers in their shape, such as another Taximeter."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from taximeter.reconcile import openai_pages
from taximeter.reconcile.asking import Asker, NotThere, Params
from taximeter.reconcile.rule import told_day
from taximeter.reconcile.told import By, Row, Span

BASE_URL = "https://api.openai.com/v1"
_GROUPS: dict[By, tuple[str, ...]] = {
    "": (),
    "upstream": ("project_id", "api_key_id"),
    "key": ("api_key_id",),
    "workspace": ("project_id",),
}
USAGE_DAYS, COST_DAYS = 31, 180
"""Buckets a page, at most."""


def headers(credential: str) -> dict[str, str]:
    return {"authorization": f"Bearer {credential}"}


async def rows(asker: Asker, span: Span, by: By) -> list[Row]:
    """Usage and costs of these days. Raises PullFailed."""
    found: list[Row] = []
    for kind in openai_pages.OPERATIONS:
        asked = _params(span, ("model", *_GROUPS[by]), USAGE_DAYS)
        found += await _pages(asker, f"/organization/usage/{kind}", asked)
    costs = await _pages(asker, "/organization/costs", _params(span, ("line_item", *_GROUPS[by]), COST_DAYS))
    models = {row.model for row in found}
    for row in costs:
        row.model = openai_pages.model_of(row.model, models)
    return found + costs


async def trial(asker: Asker, span: Span) -> None:
    """The smallest question that needs the same right. Raises PullFailed."""
    await asker.get("/organization/costs", _params(span, (), 1), openai_pages.decode)


def _params(span: Span, groups: Sequence[str], most: int) -> Params:
    return [
        ("start_time", str(span.from_s)),
        ("end_time", str(span.to_s)),
        ("bucket_width", "1d"),
        ("limit", str(most)),
        *(("group_by[]", name) for name in groups),
    ]


async def _pages(asker: Asker, path: str, params: Params) -> list[Row]:
    found = []
    async for page in asker.pages(path, params, openai_pages.decode):
        for bucket in page.data:
            for result in bucket.results:
                named = result.model or result.line_item or ""
                figures = openai_pages.figures_of(result)
                day = told_day(bucket.start_time)
                found.append(Row(day, named, figures, result.api_key_id or "", result.project_id or ""))
    return found


class _Key(msgspec.Struct):
    redacted_value: str = ""
    has_more: bool = False
    next_page: str | None = None


_decode_key = msgspec.json.Decoder(_Key).decode


async def hint(asker: Asker, key_id: str, project_id: str) -> str:
    """The end of a key, as the API shows it (`sk-abc...wxyz`); "": it does not know the key any more."""
    try:
        path = f"/organization/projects/{quote(project_id, safe='')}/api_keys/{quote(key_id, safe='')}"
        return (await asker.get(path, (), _decode_key)).redacted_value
    except NotThere:
        return ""
