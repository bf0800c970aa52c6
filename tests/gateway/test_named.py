"""Every place where a provider might take the model from; and names that are one thing here and another there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core.errors import BadRequest, Forbidden
from taximeter.gateway.bounds.models import NAMING, canonical, check_choice, check_name, named

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
        {"speech_models": ["o3"]},
        {"azure_deployment": "o3"},
        {"model_group": "o3"},
        {"override_model": "o3"},
        {"context_window_fallback_dict": {"a": "o3"}},
        {"input": {"openai_input": {"model": "o3", "messages": []}}},
        {"parameters": {"type": "object", "properties": {}, "model": "o3"}},
        {"config": '{"targets": [{"override_params": {"model": "o3"}}]}'},
        {"extra_body": ' {"model": "o3"}'},
        {"agent_id": "o3"},
        {"preset": "o3"},
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
        {"input": '{"model": "T-1000"}', "prompt": "{not JSON", "stop": ["[", "{"], "user": "[1"},
        {"num_models": 3, "mock_testing_fallbacks": True, "model_kwargs": {"temperature": 1}},
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
    assert names({}, b"/openai%2fdeployments%2fo3%2fchat/completions") == {"o3"}
    assert names({}, b"/v1beta/tunedModels/o3:generateContent") == {"o3"}
    assert names({}, b"/models/o3") == names({}, b"/pipeline/feature-extraction/o3") == {"o3"}
    assert names({}, b"/v1/inference/meta/o3") == {"meta/o3"}
    assert names({}, b"/inference/chat/completions") == names({}, b"/v1/inference/embeddings") == set()
    assert names({}, b"/v1/models/o3") == names({}, b"/openai/models/o3") == set()  # what GET asks about
    assert names({}, b"/model/nova%3A0/converse", path_model="nova:0") == {"nova:0"}
    assert names({}, query=b"api-version=1&Model=a&model=o3;engine=b") == {"a", "o3", "b"}
    assert names({}, headers=[(b"x-amzn-sagemaker-target-model", b"o3"), (b"x-other", b"b")]) == {"o3"}
    assert names({}, headers=[(b"x-litellm-fallbacks", b"o3"), (b"x-deployment-id", b"b")]) == {"o3", "b"}
    assert names({}, query=b"speech_model=o3") == {"o3"}
    with pytest.raises(BadRequest):
        check_choice([(b"helicone-fallbacks", b"[]")])


@pytest.mark.parametrize("path", [b"/api/copy", b"/api//Create", b"/v1/load_lora_adapter", b"/flows/F/aliases/A"])
def test_what_a_name_means_is_not_changed(path):
    with pytest.raises(Forbidden):
        check_choice([], path)


@pytest.mark.parametrize(
    "path", [b"/v1\\models\\o3:generateContent", b"/openai%5cdeployments\\o3\\chat/completions", b"/model\\o3/invoke"]
)
def test_a_name_between_backslashes_is_seen(path):
    assert names({}, path) == {"o3"}


def test_json_in_a_text_that_reads_in_two_ways_is_refused():
    with pytest.raises(BadRequest, match="more than one 'model'"):
        names({"config": '{"model": "o3", "model": "a"}'})


def test_json_in_texts_is_bounded():
    with pytest.raises(BadRequest, match="JSON in strings"):
        names({str(number): "[" + "1," * 20_000 + "1]" for number in range(30)})


@pytest.mark.parametrize(
    "name",
    ["gpt-4o\0", "gpt-4o\n", " gpt-4o", "gpt-4o ", "", "gpt-4o\u200b", "gpt-4o\u202e", "gpt-4o\ufffd", "ｇpt-4o",
     "gpt-4o?a", "gpt-4o#", "gpt-4o%2e", "gpt-4o/../o3", "..", "gpt-4o\\o3", "gpt-4o|o3", "gpt-4o;o3",
     "gpt-4o&model=o3", "gpt-4o@preset/big",
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
