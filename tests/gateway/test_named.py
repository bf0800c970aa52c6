"""Every place where a provider might take the model from; and names that are one thing here and another there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core.errors import BadRequest, Forbidden
from taximeter.gateway.named import NAMING, canonical, check_choice, check_name, named

PATH = b"/v1/chat/completions"


def names(members, path=PATH, query=b"", headers=(), path_model=None):
    return set(named(members, path, query, list(headers), path_model))


@pytest.mark.parametrize(
    "body",
    [
        {"Model": "o3"},
        {"MODEL": "o3"},
        {"model\0": "o3"},
        {"ｍｏｄｅｌ": "o3"},
        {"modelſ": ["o3"]},
        {"models": ["o3"]},
        {"fallbacks": ["o3"]},
        {"fallbacks": [{"a": ["o3"]}, "a"]},
        {"fallbacks": [{"model": "o3"}]},
        {"fallback_models": "o3"},
        {"model": "a,o3"},
        {"model": ["a", "o3"]},
        {"model": {"id": "o3"}},
        {"engine": "o3"},
        {"deployment_id": "o3"},
        {"extra_body": {"model": "o3"}},
        {"extra_body": {"extra_body": [{"models": ["o3"]}]}},
        {"tools": [{"type": "image_generation", "model": "o3"}]},
        {"requests": [{"params": {"model": "o3", "messages": []}}]},
        {"requests": [{"model": "o3", "content": {}}]},
        {"session": {"input_audio_transcription": {"model": "o3"}}},
        {"provider": {"fallbacks": ["o3"]}},
    ],
)
def test_a_model_is_found_wherever_the_body_names_one(body):
    assert "o3" in names({"model": "a", **body})


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": [{"type": "tool_use", "input": {"model": "T-1000"}}]}]},
        {"input": [{"model": "T-1000"}], "metadata": {"model": "T-1000"}, "documents": [{"model": "T-1000"}]},
        {"tools": [{"type": "function", "function": {"parameters": {"properties": {"model": {"type": "string"}}}}}]},
        {"tools": [{"parameters": {"type": "object", "properties": {"model": {"enum": ["T-1000"]}}}}]},
        {"tools": [{"input_schema": {"properties": {"model": "T-1000"}}}]},
        {"response_format": {"json_schema": {"schema": {"properties": {"model": {"const": "T-1000"}}}}}},
    ],
)
def test_what_is_said_names_no_model(body):
    assert names({"model": "a", **body}) == {"a"}


@pytest.mark.parametrize("value", [1, True, {"bytes": 5, "name": "x"}, [[5]]])
def test_a_name_that_is_none_is_refused(value):
    with pytest.raises(BadRequest):
        names({"model": value})


def test_a_model_is_found_in_path_query_and_head():
    assert names({}, b"/openai/deployments/o3/chat/completions") == {"o3"}
    assert names({}, b"//openai//Deployments/o%33/chat/completions", path_model=None) == {"o3"}
    assert names({}, b"/v1/engines/o3/completions") == {"o3"}
    assert names({}, b"/v1/models/a/deployments/o3/chat/completions") == {"a", "o3"}
    assert names({}, b"/model/nova%3A0/converse", path_model="nova:0") == {"nova:0"}
    assert names({}, query=b"api-version=1&Model=a&model=o3;engine=b") == {"a", "o3", "b"}
    assert names({}, headers=[(b"x-amzn-sagemaker-target-model", b"o3"), (b"x-other", b"b")]) == {"o3"}
    with pytest.raises(BadRequest):
        check_choice([(b"helicone-fallbacks", b"[]")])


@pytest.mark.parametrize(
    "name",
    ["gpt-4o\0", "gpt-4o\n", " gpt-4o", "gpt-4o ", "", "gpt-4o\u200b", "gpt-4o\u202e", "gpt-4o\ufffd", "ｇpt-4o",
     "gpt-4o?a", "gpt-4o#", "gpt-4o%2e", "gpt-4o/../o3", "..", "gpt-4o\\o3", "gpt-4o|o3", "gpt-4o;o3",
     "x" * 300, "gpt-4o\ud800"],
)  # fmt: skip
def test_a_name_that_could_be_read_in_two_ways_is_no_name(name):
    with pytest.raises(Forbidden):
        check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o",
        "ft:gpt-4o:acme::id",
        "@cf/meta/llama-3",
        "models/gemini-2.5-pro",
        "anthropic.claude-v2:1",
        "qwen2.5:7b",
    ],
)
def test_real_names_are_names(name):
    check_name(name)


@given(st.sampled_from(sorted(NAMING)), st.data())
def test_any_spelling_of_a_naming_member_is_seen(member, data):
    spelled = "".join(
        data.draw(st.sampled_from([letter, letter.upper(), chr(ord(letter) + 0xFEE0)]))
        + data.draw(st.sampled_from(["", "", "_", "-", "\0"]))
        for letter in member
    )
    assert canonical(spelled) == member
    assert names({"x": 1, spelled: "o3"}) == {"o3"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "models", "x", "id"]), inner),
)


@given(st.dictionaries(st.sampled_from(["model", "fallbacks", "x"]), json_values))
def test_any_body_is_read_or_refused(body):
    try:
        found = names(body)
    except BadRequest:
        return
    assert all(isinstance(name, str) for name in found)
