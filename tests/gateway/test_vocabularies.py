"""Which tokenizer a model's name tells."""

from __future__ import annotations

import pytest
import tiktoken.model
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.gateway.metering.vocabularies import VOCABULARIES, tokenizer_problem, vocabulary_of

OURS = {"o200k_base", "cl100k_base", "o200k_harmony"}
TIKTOKEN = {model: name for model, name in tiktoken.model.MODEL_TO_ENCODING.items() if name in OURS}
TIKTOKEN |= {prefix + "x": name for prefix, name in tiktoken.model.MODEL_PREFIX_TO_ENCODING.items() if name in OURS}
AMBIGUOUS = {"gpt-5x", "ft:gpt-4ox", "ft:gpt-4x", "ft:gpt-3.5-turbox"}  # prefixes without a separator


@pytest.mark.parametrize("model", sorted(TIKTOKEN.keys() - AMBIGUOUS))
def test_openai_models_as_tiktoken_maps_them(model: str) -> None:
    assert vocabulary_of(model) == TIKTOKEN[model]


def test_no_model_that_tiktoken_maps_elsewhere_is_claimed() -> None:
    others = {model for model, name in tiktoken.model.MODEL_TO_ENCODING.items() if name not in OURS}
    assert {model for model in others if vocabulary_of(model)} == set()


@pytest.mark.parametrize(
    ("model", "vocabulary"),
    [
        ("gpt-5.2-2025-12-11", "o200k_base"),
        ("ft:gpt-4o-mini-2024-07-18:org::id", "o200k_base"),
        ("ft:gpt-3.5-turbo-0125:org::id", "cl100k_base"),
        ("openai/gpt-4o", "o200k_base"),
        ("gpt-4.1-nano", "o200k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("openai.gpt-oss-120b-1:0", "o200k_harmony"),
        ("gpt-oss:20b", "o200k_harmony"),
        ("meta-llama/Meta-Llama-3.1-70B-Instruct-Turbo", "llama3"),
        ("us.meta.llama3-1-70b-instruct-v1:0", "llama3"),
        ("accounts/fireworks/models/llama-v3p1-8b-instruct", "llama3"),
        ("llama3.2:3b", "llama3"),
        ("/models/Llama-3.2-3B-Instruct-Q4_K_M.gguf", "llama3"),
        ("llama2:13b", "llama2"),
        ("Qwen/Qwen2.5-72B-Instruct-Turbo", "qwen2"),
        ("qwen3:4b", "qwen3"),
        ("Qwen3-VL-2B-Instruct-Q8_0.gguf", "qwen3"),
        ("Qwen/Qwen3-Embedding-8B", "qwen3"),
        ("deepseek-ai/DeepSeek-R1", "deepseek_v3"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "llama3"),
        ("deepseek-r1-distill-qwen-32b", "qwen2"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mistral_v1"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral_v2"),
        ("open-mistral-nemo", "mistral_tekken"),
        ("gemma-2-9b-it", "gemma2"),
        ("gemma3:4b", "gemma3"),
        ("models/gemini-2.5-flash", "gemma3"),
        ("zai-glm-4.7", "glm4"),
        ("moonshotai/kimi-k2-instruct-0905", "kimi_k2"),
        ("phi4", "phi4"),
    ],
)
def test_models_as_providers_and_local_servers_spell_them(model: str, vocabulary: str) -> None:
    assert vocabulary_of(model) == vocabulary


@pytest.mark.parametrize(
    "model",
    [
        None,
        "",
        "claude-sonnet-4-5",
        "grok-4",
        "command-r",
        "llama-4-scout",
        "Qwen/Qwen3.5-9B",
        "qwen3.6:latest",
        "qwen3-5-9b",
        "phi-4-mini-instruct",
        "gemini-3.5-flash",
        "glm-5.3",
        "text-davinci-003",
        "my-own-model",
        "gpt-4o" + "x" * 300,
    ],
)
def test_a_model_whose_tokenizer_is_not_known_has_none(model: str | None) -> None:
    assert vocabulary_of(model) is None


@settings(deadline=None)
@given(st.text())
def test_any_name_is_a_known_vocabulary_or_none(model: str) -> None:
    assert vocabulary_of(model) in {None, *VOCABULARIES}


def test_what_a_configured_tokenizer_may_be() -> None:
    assert tokenizer_problem("qwen3") == ""
    assert tokenizer_problem("/models/bge-m3/tokenizer.json") == ""
    assert "'qwen-3' is not known" in tokenizer_problem("qwen-3")
    assert "mistral_tekken" in tokenizer_problem("qwen-3")
