"""Calls that name no model go where their credential or path says, and no credential to another company; paths of a
provider's own API go under its native URL.
"""

import contextlib

import httpx2
import pytest

from taximeter.config import UpstreamSettings
from taximeter.gateway.upstream import shapes
from taximeter.gateway.upstream.targets import Base
from taximeter.gateway.upstream.upstreams import Upstreams
from upstream import Provider, Script, response
from waits import HANG_S


@pytest.fixture
async def client():
    async with httpx2.AsyncClient(timeout=HANG_S) as session:
        yield session


def upstreams(*providers):
    made = [UpstreamSettings(name=one, provider=one, base_url=f"http://{one}.test/v1") for one in providers]
    return Upstreams(made, environ={})


ALL = upstreams(
    "mistral", "openai", "azure", "anthropic", "google", "cohere", "bedrock", "vertex", "ollama", "groq", "openrouter"
)


@pytest.mark.parametrize(
    ("head", "path", "whose"),
    [
        ({}, b"/v1/models", "mistral"),  # the first
        ({b"authorization": b"Bearer abc"}, b"/v1/models", "mistral"),
        ({b"x-api-key": b"k"}, b"/v1/models", "anthropic"),
        ({b"x-api-key": b"tm-" + b"1" * 64, b"anthropic-version": b"2023-06-01"}, b"/v1/models", "anthropic"),
        ({b"authorization": b"Bearer sk-ant-x"}, b"/v1/models", "anthropic"),
        ({b"x-goog-api-key": b"k"}, b"/v1beta/models", "google"),
        ({b"x-goog-api-key": b"k"}, b"/v1/models", "google"),
        ({b"api-key": b"k"}, b"/openai/models?api-version=1", "azure"),
        ({b"authorization": b"Bearer sk-proj-x"}, b"/v1/models", "openai"),
        ({b"authorization": b"Bearer sk-or-v1-x"}, b"/v1/models", "openrouter"),
        ({b"authorization": b"Bearer gsk_x"}, b"/v1/models", "groq"),
        ({b"authorization": b"AWS4-HMAC-SHA256 Credential=a"}, b"/x", "bedrock"),
        ({}, b"/api/tags", "ollama"),
        ({}, b"/api/show", "ollama"),
        ({}, b"/v1beta/openai/models", "google"),
        ({}, b"/v1/projects/p/locations/l/models", "vertex"),
        ({}, b"/foundation-models", "bedrock"),
        ({}, b"/v1/messages/batches", "anthropic"),
        ({}, b"/v1/responses/r", "openai"),
        ({}, b"/v1/embed-jobs", "cohere"),
        ({}, b"/v1/modelsX", "mistral"),
    ],
)
def test_a_call_without_a_model_goes_to_whose_credential_or_path_it_has(head, path, whose):
    assert ALL.choose(None, None, head, path).name == whose
    assert ALL.choose("cohere", None, head, path).name == "cohere"


def test_it_goes_to_the_first_where_no_upstream_is_of_that_provider():
    two = upstreams("openai", "mistral")
    assert two.choose(None, None, {b"x-api-key": b"k"}, b"/v1/models").name == "openai"


FORWARDED = {"authorization": "Bearer abc", "x-api-key": "sk-ant-a", "api-key": "az", "x-goog-api-key": "AIza"}


@contextlib.asynccontextmanager
async def companies(serve, *names):
    """A gateway with an upstream for each provider, all of which forward credentials: (it, name -> provider)."""
    async with contextlib.AsyncExitStack() as stack:
        made = {name: await stack.enter_async_context(Provider()) for name in names}
        for each in made.values():
            each.handler = lambda _: Script((response(b"{}", headers=[("content-type", "application/json")]),))
        more = [
            {"name": name, "base_url": made[name].base_url, "provider": name, "forward_credentials": True}
            for name in names
        ]
        running = await stack.enter_async_context(serve(made[names[0]], upstream=more[0], upstreams=more[1:]))
        yield running, made


def credentials(request):
    return {name for name in FORWARDED if request.header(name) is not None}


async def test_a_list_of_models_is_asked_of_whose_sdk_asks_and_no_credential_goes_elsewhere(serve, client):
    async with companies(serve, "openai", "anthropic", "google", "vllm") as (running, made):
        for headers in ({"x-api-key": "sk-ant-a", "anthropic-version": "2023-06-01"}, {"x-goog-api-key": "AIza"}, {}):
            assert (await client.get(running.url + "/v1/models", headers=headers)).status_code == 200
        for name in made:
            await client.get(f"{running.url}/u/{name}/v1/models", headers=FORWARDED)
    seen = {name: [credentials(request) for request in provider.requests] for name, provider in made.items()}
    assert seen == {
        "openai": [set(), {"authorization", "api-key"}],
        "anthropic": [{"x-api-key"}, {"authorization", "x-api-key", "api-key"}],
        "google": [{"x-goog-api-key"}, {"authorization", "x-goog-api-key", "api-key"}],
        "vllm": [set(FORWARDED)],  # one's own gateway may want any
    }


@pytest.mark.parametrize(
    ("provider", "host", "withheld"),
    [
        ("openai", "api.openai.com", {b"x-api-key", b"api-key", b"x-goog-api-key"}),
        ("anthropic", "api.anthropic.com", {b"api-key", b"x-goog-api-key"}),
        ("google", "generativelanguage.googleapis.com", {b"api-key", b"x-api-key"}),
        ("azure", "r.openai.azure.com", {b"x-api-key", b"x-goog-api-key"}),
        ("openai", "gateway.internal", set()),
        ("vllm", "gpu-1", set()),
        ("deepseek", "api.deepseek.com", set()),
    ],
)
def test_a_providers_own_host_gets_its_own_headers_alone(provider, host, withheld):
    assert shapes.foreign(provider, host, [provider]) == withheld


GEMINI = "https://generativelanguage.googleapis.com/v1beta/openai"
VERTEX = "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/endpoints/openapi"


@pytest.mark.parametrize(
    ("base_url", "native_url", "path", "there"),
    [
        (f"{GEMINI}/", "", "/v1/chat/completions", "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions"),
        (GEMINI, "", "/v1/models", "https://generativelanguage.googleapis.com/v1beta/openai/models"),
        (GEMINI, "", "/v1/models/g:generateContent", "https://generativelanguage.googleapis.com/v1/models/g:generateContent"),
        (GEMINI, "", "/v1beta/models/g:embedContent", "https://generativelanguage.googleapis.com/v1beta/models/g:embedContent"),
        (GEMINI, "https://h.test/g", "/v1/models/g:countTokens", "https://h.test/g/v1/models/g:countTokens"),
        ("https://api.cohere.ai/compatibility/v1", "", "/v1/chat/completions", "https://api.cohere.ai/compatibility/v1/chat/completions"),
        ("https://api.cohere.ai/compatibility/v1", "", "/v1/embeddings", "https://api.cohere.ai/compatibility/v1/embeddings"),
        ("https://api.cohere.ai/compatibility/v1", "", "/v1/chat", "https://api.cohere.ai/v1/chat"),
        ("https://api.cohere.ai/compatibility/v1", "", "/v1/rerank", "https://api.cohere.ai/v1/rerank"),
        ("https://api.cohere.ai/compatibility/v1", "https://api.cohere.com", "/v2/chat", "https://api.cohere.com/v2/chat"),
        (VERTEX, "", "/v1/chat/completions", f"{VERTEX}/chat/completions"),
        (VERTEX, "", "/v1/projects/p/locations/l/publishers/google/models/g:generateContent",
         "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google/models/g:generateContent"),
        ("https://d.test/compatible-mode/v1", "", "/api/v1/services/rerank", "https://d.test/api/v1/services/rerank"),
        # as ever
        ("https://api.openai.com/v1", "", "/v1/chat/completions", "https://api.openai.com/v1/chat/completions"),
        ("http://gpu:8000/v1", "", "/rerank", "http://gpu:8000/rerank"),
        ("http://gpu:8000/v1", "", "/v1", "http://gpu:8000/v1"),
        ("http://gpu:8000", "", "/v1", "http://gpu:8000/"),
        ("http://gpu:8000/v1", "", "/v1/chat", "http://gpu:8000/v1/chat"),
        ("https://h.test/api/v3", "https://h.test/api", "/v1/x", "https://h.test/api/v3/x"),
        ("https://h.test/openai/v1", "https://h.test", "/v1/models/g:generateContent", "https://h.test/openai/v1/models/g:generateContent"),
        ("http://localhost:11434/v1", "http://localhost:11434/ollama", "/api/chat", "http://localhost:11434/ollama/api/chat"),
    ],
)  # fmt: skip
def test_a_path_of_a_providers_own_api_goes_under_its_native_url(base_url, native_url, path, there):
    base = Base.of_settings(UpstreamSettings(base_url=base_url, native_url=native_url))
    (scheme, host, port), target = base.of(path.encode())
    shown = f"{scheme}://{host}{'' if port in (80, 443) else f':{port}'}"
    assert shown + target.decode() == there
    assert base.ours((scheme, host, port), target) is not None


async def test_googles_and_openais_clients_share_an_upstream_by_its_openai_address(serve, provider, client):
    provider.handler = lambda _: Script((response(b"{}", headers=[("content-type", "application/json")]),))
    upstream = {"base_url": provider.url + "/v1beta/openai", "provider": "google"}
    async with serve(provider, upstream=upstream) as running:
        for path in ("/v1/models/gemini-2.5-pro:generateContent", "/v1/chat/completions"):
            await client.post(running.url + path + "?a=b", json={"model": "gemini-2.5-pro"})
    assert [request.target for request in provider.requests] == [
        "/v1/models/gemini-2.5-pro:generateContent?a=b", "/v1beta/openai/chat/completions?a=b",
    ]  # fmt: skip
