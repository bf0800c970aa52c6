"""The official google-genai SDK reads through the proxy what it reads directly; thoughts and tool prompts count."""

import pytest
from google import genai
from google.genai import errors, types

from providers import gemini_like

BILLED = {
    "input_tokens": 46,
    "cached_input_tokens": 16,
    "image_input_tokens": 10,
    "output_tokens": 32,
    "reasoning_output_tokens": 25,
    "total_tokens": 78,
    "output_source": "reported",
    "outcome": "ok",
    "api": "generate",
    "response_model": "gemini-3-pro",
}


def client(url, **more):
    options = types.HttpOptions(base_url=url, retry_options=types.HttpRetryOptions(attempts=1))
    return genai.Client(http_options=options, **{"api_key": "own-key", **more}).aio


@pytest.fixture
async def clients(serve, provider):
    """(a client of the provider, the same through the proxy, the proxy)"""
    provider.answering = gemini_like.answer
    async with serve(provider, upstream={"name": "google", "provider": "google"}) as running:
        direct, through = client(provider.url), client(running.url + "/w/acme/t/track-1")
        yield direct, through, running
        for one in (direct, through):
            await one.aclose()


async def test_generate_content(clients, both, billed):
    _, _, running = clients
    answer = await both(clients, lambda client: client.models.generate_content(model="gemini-3-pro", contents="How?"))
    assert answer["usage_metadata"]["thoughts_token_count"] == 25
    record = await running.record()
    assert billed(record, BILLED) == BILLED
    assert (record["workspace"], record["track"], record["request_model"]) == ("acme", "track-1", "gemini-3-pro")


async def test_generate_content_stream(clients, both, billed):
    _, _, running = clients

    async def read(client):
        chunks = await client.models.generate_content_stream(model="gemini-3-pro", contents="How?")
        return [chunk async for chunk in chunks]

    chunks = await both(clients, read)
    assert chunks[-1]["usage_metadata"]["total_token_count"] == 78
    record = await running.record()
    assert billed(record, BILLED) == BILLED
    assert record["stream"]


async def test_a_blocked_prompt_has_written_nothing(clients, both):
    _, _, running = clients
    await both(clients, lambda client: client.models.generate_content(model="gemini-blocked", contents="How?"))
    record = await running.record()
    assert (record["input_tokens"], record["output_tokens"], record["total_tokens"]) == (40, 0, 40)


async def test_embeddings(clients, both, billed):
    _, _, running = clients
    texts = ["one two", "three"]
    answer = await both(
        clients, lambda client: client.models.embed_content(model="gemini-embedding-001", contents=texts)
    )
    assert len(answer["embeddings"]) == 2
    record = await running.record()
    want = {"api": "embeddings", "operation": "embedding", "embedding_inputs": 2}
    assert billed(record, want) == want
    assert (record["input_tokens"], record["input_source"]) == (3, "counted")  # Google reports none here


async def test_vertex_embeddings_report_each_input(serve, provider, both):
    from google.oauth2.credentials import Credentials

    provider.answering = gemini_like.answer
    own = {"api_key": None, "vertexai": True, "project": "p", "location": "us-central1"}
    async with serve(provider, upstream={"name": "vertex", "provider": "vertex"}) as running:
        direct = client(provider.url, credentials=Credentials("t"), **own)
        through = client(running.url, credentials=Credentials("t"), **own)
        texts = ["one two", "three"]
        clients = direct, through, running
        await both(clients, lambda client: client.models.embed_content(model="text-embedding-005", contents=texts))
        record = await running.record()
        for one in (direct, through):
            await one.aclose()
    assert (record["input_tokens"], record["input_source"], record["embedding_inputs"]) == (8, "reported", 2)


async def test_token_counting_uses_nothing(clients, both):
    _, _, running = clients
    await both(clients, lambda client: client.models.count_tokens(model="gemini-3-pro", contents="How?"))
    record = await running.record()
    assert (record.get("input_tokens"), record.get("operation", "other")) == (None, "other")


async def test_errors_are_the_providers_own(clients):
    direct, through, running = clients
    caught = []
    for one in (direct, through):
        with pytest.raises(errors.ClientError) as error:
            await one.models.generate_content(model="gemini-missing", contents="How?")
        caught.append((error.value.code, error.value.status, error.value.message))
    assert caught[0] == caught[1]
    record = await running.record()
    assert (record["outcome"], record["status"]) == ("upstream_error", 404)
