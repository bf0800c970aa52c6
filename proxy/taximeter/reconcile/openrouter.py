"""OpenRouter's activity by day and model, and what single generations cost.

Sources: https://openrouter.ai/docs/api/api-reference/analytics/get-user-activity (a management key; the last 30 whole
days) and https://openrouter.ai/docs/api-reference/get-a-generation (any key). `usage` is what was spent of OpenRouter's
credits; what a key of one's own was billed elsewhere (`byok_usage_inference`) is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from hashlib import sha256

import msgspec

from taximeter.reconcile.asking import Asker, NotThere, Params
from taximeter.reconcile.openai_pages import nusd
from taximeter.reconcile.rule import days
from taximeter.reconcile.told import Row, Span

BASE_URL = "https://openrouter.ai/api/v1"


class Activity(msgspec.Struct):
    date: str
    model: str
    usage: Decimal
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None


class Activities(msgspec.Struct):
    data: list[Activity]
    has_more: bool = False
    next_page: str | None = None


class Generation(msgspec.Struct):
    """Tokens as the provider behind OpenRouter counted them."""

    id: str
    model: str
    total_cost: Decimal
    native_tokens_prompt: int | None = None
    native_tokens_completion: int | None = None
    native_tokens_cached: int | None = None


class Generated(msgspec.Struct):
    data: Generation
    has_more: bool = False
    next_page: str | None = None


_activities = msgspec.json.Decoder(Activities).decode
_generated = msgspec.json.Decoder(Generated).decode


def headers(credential: str) -> dict[str, str]:
    return {"authorization": f"Bearer {credential}"}


async def rows(asker: Asker, span: Span, credentials: Mapping[str, str]) -> list[Row]:
    """The activity of these days. `credentials`: upstream -> the key that it is called with, to tell these apart; none:
    of the whole account. Raises PullFailed."""
    if not credentials:
        return await _activity(asker, span, (), "")
    found = []
    for name, credential in credentials.items():
        fingerprint = sha256(credential.encode()).hexdigest()
        found += await _activity(asker, span, [("api_key_hash", fingerprint)], name)
    return found


async def _activity(asker: Asker, span: Span, params: Params, key: str) -> list[Row]:
    wanted = set(days(*span))
    found = []
    async for page in asker.pages("/activity", params, _activities):
        for each in page.data:
            if each.date[:10] in wanted:
                figures = {
                    "input_tokens": each.prompt_tokens,
                    "cached_input_tokens": each.cached_tokens,
                    "output_tokens": each.completion_tokens,
                    "requests": each.requests,
                    "cost_nusd": nusd(each.usage, "usd"),
                }
                found.append(Row(each.date[:10], each.model, figures, key))
    return found


async def trial(asker: Asker, span: Span) -> None:
    """Raises PullFailed."""
    await asker.get("/activity", (), _activities)


class _Key(msgspec.Struct):
    has_more: bool = False
    next_page: str | None = None


_decode_key = msgspec.json.Decoder(_Key).decode


async def key_trial(asker: Asker) -> None:
    """Whether the key is one. Raises PullFailed."""
    await asker.get("/key", (), _decode_key)


async def generation(asker: Asker, id: str) -> dict[str, int | None] | None:
    """What one generation used and cost; None: it is not known there. Raises PullFailed."""
    try:
        found = (await asker.get("/generation", [("id", id)], _generated)).data
    except NotThere:
        return None
    return {
        "input_tokens": found.native_tokens_prompt,
        "cached_input_tokens": found.native_tokens_cached,
        "output_tokens": found.native_tokens_completion,
        "requests": 1,
        "cost_nusd": nusd(found.total_cost, "usd"),
    }
