"""How providers and models are spelled: which provider's prices apply, under which names a model may be listed. Pure.

Spellings only: nothing here guesses that one model costs what another does.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator

PROVIDERS = {
    "amazon": "aws",
    "amazon-bedrock": "aws",
    "aws-bedrock": "aws",
    "bedrock": "aws",
    "azure-openai": "azure",
    "azure-ai": "azure",
    "azureopenai": "azure",
    "claude": "anthropic",
    "copilot": "github-copilot",
    "dashscope": "alibaba",
    "fireworks-ai": "fireworks",
    "gemini": "google",
    "google-ai": "google",
    "google-ai-studio": "google",
    "google-gemini": "google",
    "google-vertex": "google",
    "vertex": "google",
    "vertex-ai": "google",
    "vertexai": "google",
    "grok": "x-ai",
    "xai": "x-ai",
    "jina-ai": "jina",
    "jinaai": "jina",
    "kimi": "moonshotai",
    "moonshot": "moonshotai",
    "mistral-ai": "mistral",
    "mistralai": "mistral",
    "open-router": "openrouter",
    "together-ai": "together",
    "togetherai": "together",
    "voyage": "voyageai",
    "voyage-ai": "voyageai",
    "z-ai": "zai",
    "zhipu": "zhipuai",
}
"""Other names of a provider -> the name it is listed under. A name neither here nor listed has no list prices."""

BILLED_AS_REQUESTED = frozenset({"aws", "databricks"})
"""Providers whose bill follows the name asked for: at Bedrock it tells the region's price (`us.…`, `global.…`) where
the answer names the bare model; at Databricks it is the endpoint that is listed."""

HIDES_MODEL = frozenset({"azure"})
"""Providers where the name asked for is a deployment's and may say anything: only the served model is looked up."""

STANDARD_TIERS = frozenset({"", "auto", "default", "on-demand", "standard", "unspecified"})
"""Reported service tiers that mean the list price."""

TIERS = {"on-demand-flex": "flex", "on-demand-priority": "priority"}
"""Reported service tiers (Vertex `trafficType`) -> the tier prices are listed under."""

LIST_PRICE_TIERS = frozenset({("groq", "flex")})
"""(provider, tier) billed at the list price. Groq: "Pricing matches the on-demand tier",
https://console.groq.com/docs/flex-processing."""

_ROUTER = "model-router"
_COMPACT_DATE = re.compile(r"-(20\d\d)(\d\d)(\d\d)(?=-|:|$)")
_BUILD = re.compile(r":20\d\d-?\d\d-?\d\d(-v\d+)?$")


def provider_name(name: str) -> str:
    """The name a provider's prices are listed under; any spelling, any case."""
    name = name.strip().lower().replace("_", "-").replace(" ", "-")
    return PROVIDERS.get(name, name)


def billed_as(provider: str, reported: str | None, speed: str | None, asked: str | None) -> str:
    """The tier to price by all that changes a price as one: service tier, speed, a router in front of the model."""
    tier = tier_name(provider, reported)
    parts = [tier] if tier else []
    if speed and speed.lower() not in STANDARD_TIERS:
        parts.append(speed.lower())
    if provider in HIDES_MODEL and asked and asked.lower().startswith(_ROUTER):
        parts.append(_ROUTER)  # https://azure.microsoft.com/pricing/details/azure-openai/: a fee beside the model's
    return "+".join(parts)


def tier_name(provider: str, reported: str | None) -> str:
    """The service tier to price: "" is the list price. `provider` is a listed name."""
    if not reported:
        return ""
    tier = reported.strip().lower().replace("_", "-").removeprefix("service-tier-")  # as Google's enums are written
    tier = TIERS.get(tier, tier)
    return "" if tier in STANDARD_TIERS or (provider, tier) in LIST_PRICE_TIERS else tier


def served_model(provider: str, asked: str | None, answered: str | None) -> str | None:
    """The model whose price applies, by what the client asked for and what the answer named."""
    if provider in BILLED_AS_REQUESTED:
        return asked or answered or None
    if provider in HIDES_MODEL:
        return answered or None
    return answered or asked or None


def spellings(provider: str, model: str) -> Iterator[str]:
    """Names under which a model may be listed, in order: as it came, then without prefixes and build tags.

    `models/gemini-…`, `publishers/google/models/…`, `openai/gpt-…` at openai, `arn:aws:bedrock:…/us.anthropic.…`,
    `davinci:2023-07-21-v2`, `…-20251211` for `…-2025-12-11`.
    """
    name = model.strip().lower()
    seen = set()
    forms = [name, name.rpartition("/models/")[2].removeprefix("models/")]
    if name.startswith("arn:"):
        forms.append(name.rpartition("/")[2])
    vendor, slash, rest = forms[1].partition("/")
    if slash and provider_name(vendor) == provider:
        forms.append(rest)
    forms += [_BUILD.sub("", form) for form in forms]
    forms += [_COMPACT_DATE.sub(_dashed, form) for form in forms]
    for form in forms:
        if form not in seen:
            seen.add(form)
            yield form


def _dashed(found: re.Match[str]) -> str:
    """OpenRouter and LiteLLM write a snapshot's date without dashes."""
    year, month, day = map(int, found.groups())
    try:
        return f"-{datetime.date(year, month, day).isoformat()}"
    except ValueError:
        return found[0]
