"""Asking for usage by splicing: every other byte stays, and only a decoder's view of the one member changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taximeter.flavors import find
from taximeter.flavors.chat import CHAT
from taximeter.flavors.text.splice import with_number

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("stream_options"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["stream_options", "include_usage", "stream", "model", "a", "é"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
options = st.none() | st.fixed_dictionaries({}, optional={"include_usage": st.booleans() | st.none(), "x": json_values})


@given(
    rest=st.dictionaries(st.sampled_from(["metadata", "tools", "messages", "ключ"]), json_values, max_size=3),
    asked=options,
    has=st.booleans(),
    indent=st.none() | st.integers(0, 2),
    first=st.booleans(),
)
def test_only_include_usage_changes(
    rest: dict[str, Any], asked: dict[str, Any] | None, has: bool, indent: int | None, first: bool
) -> None:
    own: dict[str, Any] = {"stream": True, **({"stream_options": asked} if has else {})}
    request = {**own, **rest} if first else {**rest, **own}
    body = json.dumps(request, indent=indent, ensure_ascii=first).encode()
    prepared = CHAT.prepare(body, b"/v1/chat/completions", inject=True)
    sent = json.loads(prepared.body)
    already = has and asked is not None and asked.get("include_usage") is True
    assert prepared.injected is not already
    assert sent.pop("stream_options") == {**((asked or {}) if has else {}), "include_usage": True}
    request.pop("stream_options", None)
    assert sent == request
    if already:
        assert prepared.body is body
    else:
        assert len(prepared.body) <= len(body) + len(b'"stream_options":{"include_usage":true},')


@pytest.mark.parametrize(
    ("body", "want"),
    [
        (b'{"stream":true}', b'{"stream_options":{"include_usage":true},"stream":true}'),
        (
            b'{"stream":true,"stream_options":{ "include_obfuscation" : false }}',
            b'{"stream":true,"stream_options":{ "include_usage":true,"include_obfuscation" : false }}',
        ),
        (
            b'{"stream":true,"stream_options":{"include_usage" : false}}',
            b'{"stream":true,"stream_options":{"include_usage" : true}}',
        ),
        (b'{"stream":true,"stream_options":null}', b'{"stream":true,"stream_options":{"include_usage":true}}'),
    ],
)
def test_the_bytes_stay_as_the_client_wrote_them(body: bytes, want: bytes) -> None:
    assert CHAT.prepare(body, b"/v1/chat/completions", inject=True).body == want


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"not json",
        b'{"stream":false}',
        b'{"stream":"true"}',
        b'{"stream":1}',
        b'{"stream":true,"stream_options":"x"}',
        b'{"stream":true,"stream_options":[]}',
        b'{"stream":true,"str\\u0065am_options":{"include_usage":false}}',
        b'{"stream":true,"a":' + b"[" * 100_000,
        b'\xff{"stream":true}',
        b'{"model":"\xff","stream":false}',
    ],
)
def test_what_cannot_or_need_not_be_changed_stays(body: bytes) -> None:
    prepared = CHAT.prepare(body, b"/v1/chat/completions", inject=True)
    assert prepared.body is body
    assert not prepared.injected


@pytest.mark.parametrize("path", [b"/v1/responses", b"/v1/messages", b"/v1/embeddings", b"/v1/rerank", b"/api/chat"])
def test_nothing_is_injected_where_the_api_knows_no_such_option(path: bytes) -> None:
    body = b'{"stream":true,"model":"m"}'
    prepared = find(b"POST", path).prepare(body, path, inject=True)
    assert prepared.body is body
    assert prepared.model == "m"


def test_without_inject_nothing_is_spliced() -> None:
    body = b'{"stream":true}'
    assert CHAT.prepare(body, b"/v1/chat/completions", inject=False).body is body


def test_metadata_and_user_are_told_for_tags() -> None:
    body = b'{"model":"m","metadata":{"workspace":"acme"},"user":"u1"}'
    prepared = CHAT.prepare(body, b"/v1/chat/completions", inject=True)
    assert prepared.metadata == {"workspace": "acme", "end_user": "u1"}
    assert CHAT.prepare(b'{"metadata":[1],"user":7}', b"/", inject=True).metadata == {}


@pytest.mark.parametrize(
    ("path", "body", "inputs"),
    [
        (b"/v1/embeddings", b'{"input":"one"}', 1),
        (b"/v1/embeddings", b'{"input":["a","b"]}', 2),
        (b"/v1/embeddings", b'{"input":[1,2,3]}', 1),
        (b"/v1/embeddings", b'{"input":[[1],[2,3]]}', 2),
        (b"/v1/embeddings", b'{"input":{}}', None),
        (b"/v2/embed", b'{"texts":["a","b"]}', 2),
        (b"/api/embed", b'{"input":["a"]}', 1),
        (b"/v1beta/models/e:batchEmbedContents", b'{"requests":[{},{}]}', 2),
        (b"/v1/publishers/google/models/e:predict", b'{"instances":[{},{}]}', 2),
    ],
)
def test_embedding_inputs_are_told(path: bytes, body: bytes, inputs: int | None) -> None:
    assert find(b"POST", path).prepare(body, path, inject=True).embedding_inputs == inputs


@pytest.mark.parametrize(
    "body", [b'{"query":"q","documents":["a",{"text":"b"}]}', b'{"query":"q","texts":["a","b"]}',
             b'{"input":{"query":"q","documents":["a","b"]}}'],
)  # fmt: skip
def test_rerank_documents_are_told(body: bytes) -> None:
    assert find(b"POST", b"/v1/rerank").prepare(body, b"/v1/rerank", inject=True).rerank_documents == 2
    texts = find(b"POST", b"/v1/rerank").input(body).texts
    assert texts == ["q", "a", "q", "b"]


paths = st.lists(st.sampled_from(["a", "max_tokens", "é"]), min_size=1, max_size=3).map(tuple)


@given(
    request=st.dictionaries(st.sampled_from(["a", "max_tokens", "é", "b"]), json_values, max_size=3),
    path=paths,
    number=st.integers(0, 2**53),
    indent=st.none() | st.integers(0, 2),
    ascii_only=st.booleans(),
)
@example(request={"a": "x"}, path=("a", "b"), number=1, indent=None, ascii_only=True)
@example(request={"a": {"b": "x"}}, path=("a", "b", "c"), number=1, indent=None, ascii_only=True)
@example(request={"a": {"b": None}}, path=("a", "b", "c"), number=1, indent=None, ascii_only=True)
@example(request={"a": 7}, path=("a",), number=7, indent=None, ascii_only=True)
def test_only_the_number_changes(
    request: dict[str, Any], path: tuple[str, ...], number: int, indent: int | None, ascii_only: bool
) -> None:
    body = json.dumps(request, indent=indent, ensure_ascii=ascii_only).encode()
    changed = with_number(body, path, number)
    if changed is None:  # what stands on the way is no object, or is spelled in a way that is not looked for
        inner: Any = request
        for name in path[:-1]:
            inner = inner.get(name) if isinstance(inner, dict) else inner
        assert "é" in path or not (inner is None or isinstance(inner, dict))
        return
    wanted = json.loads(body)
    inner = wanted
    for name in path[:-1]:
        if inner.get(name) is None:
            inner[name] = {}
        inner = inner[name]
    nothing = path[-1] not in inner and path[0] not in request
    inner[path[-1]] = number
    assert json.loads(changed) == wanted
    if not nothing:
        return
    same = next((n for n, (old, new) in enumerate(zip(body, changed, strict=False)) if old != new), len(body))
    assert changed.endswith(body[same:])  # nothing was taken out, and what was put in is in one place


def test_no_number_in_what_is_no_object() -> None:
    assert with_number(b"[1]", ("a",), 1) is with_number(b"", ("a",), 1) is None
