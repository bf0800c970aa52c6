"""The official ollama client reads through the proxy what it reads directly."""

import ollama
import pytest

from providers import ollama_like

MESSAGES = [{"role": "user", "content": "How much does a call cost?"}]
BILLED = {
    "input_tokens": 17,
    "output_tokens": 50,
    "input_source": "reported",
    "output_source": "reported",
    "outcome": "ok",
}


@pytest.fixture
async def clients(serve, provider):
    """(a client of the provider, the same through the proxy, the proxy)"""
    provider.answering = ollama_like.answer
    async with serve(provider, upstream={"name": "ollama", "provider": "ollama"}) as running:
        direct, through = ollama.AsyncClient(provider.url), ollama.AsyncClient(running.url + "/w/acme")
        async with direct._client, through._client:
            yield direct, through, running


async def whole(answer):
    return [part async for part in await answer]


async def test_chat(clients, both, billed):
    _, _, running = clients
    await both(clients, lambda client: client.chat(model="llama3", messages=MESSAGES))
    record = await running.record()
    assert billed(record, BILLED) == BILLED
    assert ("stream" in record, record["workspace"], record["response_model"]) == (False, "acme", "llama3")


async def test_chat_stream(clients, both, billed):
    _, _, running = clients
    parts = await both(clients, lambda client: whole(client.chat(model="llama3", messages=MESSAGES, stream=True)))
    assert parts[-1]["eval_count"] == 50
    record = await running.record()
    assert billed(record, BILLED) == BILLED
    assert record["stream"]


async def test_generate(clients, both, billed):
    _, _, running = clients
    await both(clients, lambda client: client.generate(model="llama3", prompt="How?"))
    await both(clients, lambda client: whole(client.generate(model="llama3", prompt="How?", stream=True)))
    for number in (0, 1):
        assert billed(await running.record(number), BILLED) == BILLED


async def test_a_prompt_from_the_cache_is_counted_here(clients, both):
    _, _, running = clients
    await both(clients, lambda client: client.chat(model="llama3-cached", messages=MESSAGES))
    record = await running.record()
    assert (record["output_tokens"], record["output_source"]) == (50, "reported")
    assert record["input_tokens"] > 0
    assert record["input_source"] == "counted"


async def test_embed(clients, both, billed):
    _, _, running = clients
    await both(clients, lambda client: client.embed(model="nomic", input=["one", "two"]))
    want = {"input_tokens": 8, "embedding_inputs": 2, "input_source": "reported", "operation": "embedding"}
    assert billed(await running.record(), want) == want


async def test_legacy_embeddings_report_nothing_and_are_counted(clients, both):
    _, _, running = clients
    await both(clients, lambda client: client.embeddings(model="nomic", prompt="one two three"))
    record = await running.record()
    assert (record["input_tokens"], record["input_source"]) == (3, "counted")


async def test_errors_are_the_providers_own(clients):
    direct, through, running = clients
    caught = []
    for client in (direct, through):
        with pytest.raises(ollama.ResponseError) as error:
            await client.chat(model="no-such-model", messages=MESSAGES)
        caught.append((error.value.status_code, error.value.error))
    assert caught[0] == caught[1]
    record = await running.record()
    assert (record["outcome"], record["status"]) == ("upstream_error", 404)
