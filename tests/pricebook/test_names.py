"""Spellings of providers, tiers and models."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.pricebook.names import provider_name, served_model, spellings, tier_name


@pytest.mark.parametrize(
    ("spelled", "listed"),
    [
        ("openai", "openai"),
        ("OpenAI", "openai"),
        ("xai", "x-ai"),
        ("Vertex_AI", "google"),
        ("gemini", "google"),
        ("bedrock", "aws"),
        ("voyage", "voyageai"),
        ("azure_openai", "azure"),
        ("my-gateway", "my-gateway"),
    ],
)
def test_a_provider_is_known_by_its_usual_names(spelled: str, listed: str) -> None:
    assert provider_name(spelled) == listed


@pytest.mark.parametrize(
    ("provider", "reported", "tier"),
    [
        ("openai", None, ""),
        ("openai", "default", ""),
        ("openai", "auto", ""),
        ("openai", "priority", "priority"),
        ("anthropic", "standard", ""),
        ("anthropic", "batch", "batch"),
        ("groq", "on_demand", ""),
        ("groq", "flex", ""),
        ("google", "ON_DEMAND", ""),
        ("google", "ON_DEMAND_FLEX", "flex"),
        ("google", "PROVISIONED_THROUGHPUT", "provisioned-throughput"),
        ("google", "SERVICE_TIER_STANDARD", ""),
        ("google", "unspecified", ""),
        ("google", "SERVICE_TIER_PRIORITY", "priority"),
    ],
)
def test_a_reported_service_tier_is_the_list_price_or_a_tier_of_its_own(
    provider: str, reported: str | None, tier: str
) -> None:
    assert tier_name(provider, reported) == tier


@pytest.mark.parametrize(
    ("provider", "asked", "answered", "model"),
    [
        ("openai", "gpt-4o", "gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
        ("openai", "gpt-4o", None, "gpt-4o"),
        ("azure", "my-deployment", "gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
        ("azure", "gpt-4", None, None),
        ("azure", "gpt-4", "", None),
        ("aws", "global.anthropic.claude-sonnet-5-v1:0", "claude-sonnet-5", "global.anthropic.claude-sonnet-5-v1:0"),
        ("aws", None, "claude-sonnet-5", "claude-sonnet-5"),
        ("openai", None, None, None),
    ],
)
def test_the_model_that_is_billed(provider: str, asked: str | None, answered: str | None, model: str | None) -> None:
    assert served_model(provider, asked, answered) == model


@pytest.mark.parametrize(
    ("provider", "model", "listed"),
    [
        ("google", "models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("google", "projects/p/locations/l/publishers/google/models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("google", "google/gemini-2.5-flash", "gemini-2.5-flash"),
        ("openai", "openai/GPT-4o", "gpt-4o"),
        ("anthropic", "anthropic/claude-sonnet-4-5", "claude-sonnet-4-5"),
        ("openai", "davinci:2023-07-21-v2", "davinci"),
        ("openrouter", "openai/gpt-5.2-20251211", "openai/gpt-5.2-2025-12-11"),
        ("aws", "arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-lite-v1:0", "us.amazon.nova-lite-v1:0"),
    ],
)
def test_prefixes_and_build_tags_are_left_off(provider: str, model: str, listed: str) -> None:
    assert listed in spellings(provider, model)


def test_another_vendors_prefix_stays() -> None:
    assert list(spellings("openrouter", "openai/gpt-4o")) == ["openai/gpt-4o"]
    assert list(spellings("together", "meta-llama/Llama-3")) == ["meta-llama/llama-3"]


@settings(deadline=None)
@given(st.text(), st.text())
def test_any_name_has_spellings_none_twice_its_own_first(provider: str, model: str) -> None:
    found = list(spellings(provider, model))
    assert found[0] == model.strip().lower()
    assert len(found) == len(set(found))
