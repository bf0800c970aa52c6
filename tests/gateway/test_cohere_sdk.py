"""The official cohere SDK, v1 and v2, reads through the proxy what it reads directly; the record is what is billed."""

import cohere
import pytest

from providers import cohere_like
from providers.cohere_like import EMBED_TOKENS, SEARCH_UNITS

BILLED = {"input_tokens": 24, "output_tokens": 63, "output_source": "reported", "outcome": "ok", "api": "chat"}
MESSAGES = [{"role": "user", "content": "How much does a call cost?"}]
DOCUMENTS = ["a call costs what it uses", "nothing"]


@pytest.fixture(params=[cohere.AsyncClient, cohere.AsyncClientV2], ids=["v1", "v2"])
async def clients(request, serve, provider):
    """(a client of the provider, the same through the proxy, the proxy)"""
    provider.answering = cohere_like.answer
    async with (
        serve(provider, upstream={"name": "cohere", "provider": "cohere"}) as running,
        request.param(api_key="own", base_url=provider.url, max_retries=0) as direct,
        request.param(api_key="own", base_url=running.url + "/w/acme", max_retries=0) as through,
    ):
        yield direct, through, running


def question(client):
    """The two versions ask for the same by different names."""
    return {"messages": MESSAGES} if isinstance(client, cohere.AsyncClientV2) else {"message": MESSAGES[0]["content"]}


async def test_chat(clients, both, billed):
    _, _, running = clients
    await both(clients, lambda client: client.chat(model="command-a", **question(client)))
    assert billed(await running.record(), BILLED) == BILLED


async def test_chat_stream(clients, both, billed):
    _, _, running = clients

    async def read(client):
        return [event async for event in client.chat_stream(model="command-a", **question(client))]

    events = await both(clients, read)
    assert len(events) > 4
    record = await running.record()
    assert billed(record, BILLED) == BILLED
    assert record["stream"]


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")  # of the SDK's v1 client
async def test_embed(clients, both, billed):
    _, _, running = clients
    asked = {"model": "embed-v4.0", "texts": ["one two", "three"], "input_type": "search_document"}
    await both(clients, lambda client: client.embed(**asked, embedding_types=["float"]))
    want = {"input_tokens": EMBED_TOKENS, "input_source": "reported", "embedding_inputs": 2, "api": "embeddings"}
    assert billed(await running.record(), want) == want


async def test_rerank(clients, both, billed):
    _, _, running = clients
    await both(clients, lambda client: client.rerank(model="rerank-v3.5", query="cost", documents=DOCUMENTS))
    record = await running.record()
    want = {"search_units": SEARCH_UNITS, "rerank_documents": 2, "operation": "rerank", "outcome": "ok"}
    assert billed(record, want) == want


async def test_errors_are_the_providers_own(clients):
    direct, through, running = clients
    caught = []
    for client in (direct, through):
        with pytest.raises(cohere.NotFoundError) as error:
            await client.chat(model="no-such-model", **question(client))
        caught.append((error.value.status_code, str(error.value.body)))
    assert caught[0] == caught[1]
    record = await running.record()
    assert (record["outcome"], record["status"]) == ("upstream_error", 404)
