"""What leaves for an upstream: the right one, the right path, and no header or credential that is not its business."""

from __future__ import annotations

import pytest

from taximeter import config
from taximeter.core.errors import BadRequest, ConfigError, NotFound, UpstreamError
from taximeter.core.tags import TAG_HEADERS
from taximeter.gateway.upstream import credentials
from taximeter.gateway.upstream.dial import unreachable
from taximeter.gateway.upstream.endpoint import host_header
from taximeter.gateway.upstream.upstreams import Upstream, Upstreams
from upstream import Provider, response

CLIENT_CREDENTIALS = [
    (b"authorization", b"Bearer sk-client"),
    (b"x-api-key", b"client"),
    (b"api-key", b"client"),
    (b"x-goog-api-key", b"client"),
]


async def seen_by(provider: Provider, headers, *, method=b"POST", path=b"/v1/x", body=b"{}", drop=(), **settings):
    """What the provider saw of one request."""
    settings.setdefault("base_url", provider.base_url)
    upstream = Upstream(config.UpstreamSettings(**settings), frozenset(drop), {"KEY": "sk-operator"})
    provider.script(response(b"" if method == b"HEAD" else b"fine"))
    try:
        answer = await upstream.send(method, path, headers, body)
        await answer.read()
    finally:
        await upstream.close()
    return provider.requests[-1]


async def test_the_head_is_rebuilt(provider) -> None:
    seen = await seen_by(
        provider,
        [
            (b"host", b"proxy.example:8000"),
            (b"content-type", b"application/json"),
            (b"content-length", b"999"),
            (b"transfer-encoding", b"chunked"),
            (b"accept-encoding", b"gzip, br"),
            (b"connection", b"keep-alive, X-Hop"),
            (b"x-hop", b"1"),
            (b"keep-alive", b"timeout=5"),
            (b"proxy-authorization", b"Basic x"),
            (b"te", b"trailers"),
            (b"trailer", b"x-sum"),
            (b"upgrade", b"h2c"),
            (b"expect", b"100-continue"),
            (b"openai-organization", b"org"),
            (b"x-twice", b"1"),
            (b"x-twice", b"2"),
            (b"x-latin", b"caf\xe9"),
        ],
    )
    assert seen.headers == [
        ("host", f"127.0.0.1:{provider.port}"),
        ("accept-encoding", "identity"),
        ("content-type", "application/json"),
        ("openai-organization", "org"),
        ("x-twice", "1"),
        ("x-twice", "2"),
        ("x-latin", "caf\xe9"),
        ("content-length", "2"),
    ]
    assert seen.raw_head.startswith(b"POST /v1/x HTTP/1.1\r\n")


async def test_tags_and_whatever_is_to_be_dropped_never_leave(provider) -> None:
    drop = {*TAG_HEADERS, b"x-team"}
    seen = await seen_by(provider, [(name, b"v") for name in drop] + [(b"x-kept", b"v")], drop=drop)
    assert seen.x_headers == {"x-kept": "v"}
    assert seen.header("lightrag-workspace") is None


@pytest.mark.parametrize("forward", [False, True])
async def test_the_operators_credential_replaces_the_clients(provider, forward) -> None:
    seen = await seen_by(provider, CLIENT_CREDENTIALS, api_key_env="KEY", forward_credentials=forward)
    assert seen.header("authorization") == "Bearer sk-operator"
    assert seen.x_headers == {} and seen.header("api-key") is None


async def test_the_clients_credential_goes_through_only_where_it_is_forwarded(provider) -> None:
    seen = await seen_by(provider, CLIENT_CREDENTIALS, forward_credentials=True)
    assert [
        (n.encode(), v.encode()) for n, v in seen.headers if n.encode() in credentials.HEADERS
    ] == CLIENT_CREDENTIALS
    seen = await seen_by(provider, CLIENT_CREDENTIALS)
    assert not {name.encode() for name, _ in seen.headers} & credentials.HEADERS


@pytest.mark.parametrize("value", [b"Bearer tm-secret", b"bearer  tm-secret", b"tm-secret"])
async def test_a_proxy_key_is_never_forwarded(provider, value) -> None:
    headers = [(name, value) for name in credentials.HEADERS] + [(b"authorization", b"Bearer sk-mine")]
    seen = await seen_by(provider, headers, forward_credentials=True)
    assert b"tm-" not in seen.raw_head
    assert seen.header("authorization") == "Bearer sk-mine"


@pytest.mark.parametrize(
    "provider_name, target, header",
    [
        ("openai", b"/v1/chat/completions", (b"authorization", b"Bearer k")),
        ("mistral", b"/v1/embeddings", (b"authorization", b"Bearer k")),
        ("cohere", b"/v2/rerank", (b"authorization", b"Bearer k")),
        ("anthropic", b"/v1/messages", (b"x-api-key", b"k")),
        ("anthropic", b"/v1/messages/count_tokens", (b"x-api-key", b"k")),
        ("anthropic", b"/v1/chat/completions", (b"authorization", b"Bearer k")),
        ("azure", b"/openai/deployments/x/chat/completions", (b"api-key", b"k")),
        ("google", b"/v1beta/models/gemini-2.5-flash:generateContent", (b"x-goog-api-key", b"k")),
        ("gemini", b"/v1beta/models/gemini-2.5-flash:generateContent", (b"x-goog-api-key", b"k")),
        ("google", b"/v1beta/openai/chat/completions", (b"authorization", b"Bearer k")),
    ],
)
def test_each_provider_gets_its_credential_in_its_own_header(provider_name, target, header) -> None:
    assert credentials.header_for(provider_name, target, b"k") == header


@pytest.mark.parametrize(
    "query, provider_name, forward, kept",
    [
        (b"alt=sse&key=AIza", "google", False, b"alt=sse"),
        (b"key=AIza", "google", False, b""),
        (b"k%65y=AIza&alt=sse", "google", False, b"alt=sse"),
        (b"key=AIza&alt=sse", "google", True, b"key=AIza&alt=sse"),
        (b"key=tm-secret&alt=sse", "google", True, b"alt=sse"),
        (b"key=%74m-secret", "openai", True, b""),
        (b"key=object&monkey=1&after=", "openai", False, b"key=object&monkey=1&after="),
        (b"flag&a=%20b", "google", False, b"flag&a=%20b"),
    ],
)
def test_a_key_in_the_query_is_a_credential_too(query, provider_name, forward, kept) -> None:
    assert credentials.Screen().query(query, provider_name, forward=forward) == kept


async def test_paths_go_under_their_base_with_their_query(provider) -> None:
    base = f"{provider.url}/api/v3/"
    native = f"{provider.url}/native"
    for path, target in [
        (b"/v1/chat/completions?a=b%20c&a=", "/api/v3/chat/completions?a=b%20c&a="),
        (b"/v1", "/api/v3"),
        (b"/v1?x", "/api/v3?x"),
        (b"/v1beta/models/x:generateContent", "/native/v1beta/models/x:generateContent"),
        (b"/v2/rerank", "/native/v2/rerank"),
        (b"/v1/a%2Fb//c", "/api/v3/a%2Fb//c"),
    ]:
        assert (await seen_by(provider, [], path=path, base_url=base, native_url=native)).target == target


async def test_native_paths_stand_beside_v1_unless_told_otherwise(provider) -> None:
    assert (await seen_by(provider, [], path=b"/v2/rerank")).target == "/v2/rerank"
    async with Provider() as other:
        upstream = Upstream(config.UpstreamSettings(base_url=provider.base_url, native_url=other.url), frozenset(), {})
        other.script(response(b"other"))
        answer = await upstream.send(b"POST", b"/v2/rerank", [], b"{}")
        assert await answer.read() == b"other"
        assert other.requests[0].target == "/v2/rerank"
        await upstream.close()


@pytest.mark.parametrize(
    "method, body, length", [(b"GET", b"", None), (b"DELETE", b"", None), (b"POST", b"", "0"), (b"PUT", b"", "0")]
)
async def test_a_length_is_sent_where_there_may_be_a_body(provider, method, body, length) -> None:
    seen = await seen_by(provider, [], method=method, body=body)
    assert (seen.method, seen.header("content-length")) == (method.decode(), length)


@pytest.mark.parametrize(
    "method, path, headers",
    [
        (b"GET", b"/v1/x y", []),
        (b"GET", b"/v1/x?a\r\nx: y", []),
        (b"GET", b"/v1/x?a#b", []),
        (b"GET", b"/v1/x", [(b"x", b"a\r\ny: b")]),
        (b"GET", b"/v1/x", [(b"x", b"a\nb")]),
        (b"GET", b"/v1/x", [(b"x", b"a\rb")]),
    ],
)
async def test_what_could_smuggle_a_request_is_refused_before_anything_is_sent(provider, method, path, headers) -> None:
    with pytest.raises(BadRequest):
        await seen_by(provider, headers, method=method, path=path)
    assert provider.connections == 0


def upstreams(*settings: config.UpstreamSettings) -> Upstreams:
    return Upstreams(settings, environ={})


def test_the_named_upstream_else_the_first_that_matches_else_the_first() -> None:
    some = upstreams(
        config.UpstreamSettings(name="a", models=["gpt-*", "o?"]),
        config.UpstreamSettings(name="b", models=["claude-*"]),
        config.UpstreamSettings(name="c", models=[]),
        config.UpstreamSettings(name="d", models=["*:free", "claude-3"]),
    )
    asked = [
        ("b", "gpt-4o"),
        (None, "gpt-4o"),
        (None, "o4"),
        (None, "claude-3"),
        (None, "x:free"),
        (None, "Gpt"),
        (None, None),
    ]
    assert [some.choose(*each).name for each in asked] == ["b", "a", "a", "b", "d", "a", "a"]
    assert [some.choose(*each).name for each in asked] == ["b", "a", "a", "b", "d", "a", "a"]
    with pytest.raises(NotFound, match="'z'"):
        some.choose("z", "gpt-4o")


def test_names_of_models_are_remembered_only_so_far() -> None:
    some = upstreams(config.UpstreamSettings(name="a"))
    for number in range(5000):
        some.choose(None, f"m{number}")
    assert len(some._by_model) == 4096


@pytest.mark.parametrize(
    "settings, why",
    [
        ({"base_url": "api.openai.com/v1"}, "must be http"),
        ({"base_url": "ftp://x/"}, "must be http"),
        ({"base_url": "https:///v1"}, "must be http"),
        ({"base_url": "http://x:99999/"}, "not a URL"),
        ({"base_url": "http://[x/"}, "not a URL"),
        ({"base_url": "https://user:pass@x/v1"}, "no user"),
        ({"base_url": "https://x/v1?a=b"}, "no user, query"),
        ({"base_url": "https://x/a b"}, "percent-encode"),
        ({"native_url": "nowhere"}, "must be http"),
        ({"api_key_env": "UNSET"}, "UNSET"),
        ({"api_key_env": "EMPTY"}, "EMPTY"),
        ({"api_key_env": "BROKEN"}, "BROKEN"),
    ],
)
def test_an_upstream_that_cannot_work_is_refused_with_its_name(settings, why) -> None:
    environ = {"EMPTY": " ", "BROKEN": "sk-\r\nx: y"}
    with pytest.raises(ConfigError, match=why) as caught:
        Upstream(config.UpstreamSettings(name="mine", **settings), frozenset(), environ)
    assert "'mine'" in str(caught.value)
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize(
    "origin, host",
    [
        (("https", "api.openai.com", 443), b"api.openai.com"),
        (("https", "api.openai.com", 8443), b"api.openai.com:8443"),
        (("http", "::1", 80), b"[::1]"),
        (("http", "::1", 8080), b"[::1]:8080"),
        (("http", "x", 443), b"x:443"),
    ],
)
def test_the_host_header(origin, host) -> None:
    assert host_header(origin) == host


def every_subclass(kind: type[BaseException]) -> set[type[BaseException]]:
    found = {kind}
    for one in kind.__subclasses__():
        found |= every_subclass(one)
    return found


RAISED_BY_SOCKETS = sorted(
    (kind for kind in every_subclass(OSError) if kind.__module__ in ("builtins", "socket", "ssl")),
    key=lambda kind: kind.__qualname__,
)


@pytest.mark.parametrize("kind", [*RAISED_BY_SOCKETS, UnicodeError])
def test_no_error_of_a_connection_attempt_is_unmapped(kind) -> None:
    mapped = unreachable("mine", kind.__new__(kind))
    assert isinstance(mapped, UpstreamError) and "'mine'" in mapped.message
