"""The official mistralai SDK reads through the proxy what it reads directly."""

import pytest
from mistralai.client import Mistral
from mistralai.client.errors import SDKError

from providers import mistral_like
from providers.mistral_like import OCR_USAGE
from providers.scripts import whole

MESSAGES = [{"role": "user", "content": "How much does a call cost?"}]
TOOLS = [{"type": "function", "function": {"name": "price_of", "parameters": {"type": "object", "properties": {}}}}]
BILLED = {
    "input_tokens": 25,
    "cached_input_tokens": 16,
    "output_tokens": 31,
    "output_source": "reported",
    "outcome": "ok",
}


@pytest.fixture
async def clients(serve, provider):
    """(a client of the provider, the same through the proxy, the proxy)"""
    provider.answering = mistral_like.answer
    async with (
        serve(provider, upstream={"name": "mistral", "provider": "mistral"}) as running,
        Mistral(api_key="own", server_url=provider.url) as direct,
        Mistral(api_key="own", server_url=running.url + "/w/acme") as through,
    ):
        yield direct, through, running


@pytest.mark.parametrize("tools", [None, TOOLS])
async def test_chat(clients, both, billed, tools):
    _, _, running = clients
    asked = {"model": "mistral-large-latest", "messages": MESSAGES, "tools": tools}
    await both(clients, lambda client: client.chat.complete_async(**asked))
    assert billed(await running.record(), BILLED) == BILLED


async def stream(answer):
    return [event async for event in await answer]


async def test_chat_stream(clients, both, billed, provider):
    """The SDK asks for no usage and Mistral sends it all the same: nothing is injected that could be missed later."""
    _, _, running = clients
    asked = {"model": "mistral-large-latest", "messages": MESSAGES}
    events = await both(clients, lambda client: stream(client.chat.stream_async(**asked)), same_request=False)
    assert events[-1]["data"]["usage"]["total_tokens"] == 56
    record = await running.record()
    assert billed(record, BILLED) == BILLED
    assert record["stream"]


async def test_a_server_that_refuses_stream_options_by_schema_is_asked_again_without(clients, provider):
    """Mistral checks bodies against a schema: a member it does not know is a 422, not a 400."""
    _, through, running = clients

    def strict(request):
        if b"stream_options" not in request.body:
            return mistral_like.answer(request)
        wrong = {"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}
        return whole({"detail": [wrong]}, 422)

    provider.answering = strict
    asked = {"model": "mistral-large-latest", "messages": MESSAGES}
    for _ in "ab":
        assert (await stream(through.chat.stream_async(**asked)))[-1].data.usage.total_tokens == 56
    assert [b"stream_options" in request.body for request in provider.requests] == [True, False, False]
    refused, *answered = [await running.record(number) for number in range(3)]
    assert (refused["outcome"], refused["status"]) == ("upstream_error", 422)
    for record in answered:
        assert {name: record[name] for name in BILLED} == BILLED


async def test_fill_in_the_middle(clients, both, billed):
    _, _, running = clients
    asked = {"model": "codestral-latest", "prompt": "def f(", "suffix": "return a"}
    await both(clients, lambda client: client.fim.complete_async(**asked))
    assert billed(await running.record(), {**BILLED, "api": "completions"}) == {**BILLED, "api": "completions"}


async def test_agents(clients, both, billed):
    _, _, running = clients
    await both(clients, lambda client: client.agents.complete_async(agent_id="ag_1", messages=MESSAGES))
    assert billed(await running.record(), BILLED) == BILLED


@pytest.mark.parametrize("streamed", [False, True])
async def test_conversations_count_what_connectors_brought_in(clients, both, billed, streamed):
    _, _, running = clients
    asked = {"model": "mistral-medium-latest", "inputs": "How much does a call cost?"}

    async def read(client):
        conversations = client.beta.conversations
        if streamed:
            return await stream(conversations.start_stream_async(**asked))
        return await conversations.start_async(**asked)

    await both(clients, read)
    want = {"input_tokens": 25 + 24, "output_tokens": 31, "total_tokens": 80, "operation": "llm"}
    record = await running.record()
    assert billed(record, want) == want
    assert record.get("stream", False) is streamed


async def test_embeddings(clients, both, billed):
    _, _, running = clients
    await both(clients, lambda client: client.embeddings.create_async(model="mistral-embed", inputs=["one", "two"]))
    want = {"input_tokens": 12, "embedding_inputs": 2, "operation": "embedding", "input_source": "reported"}
    assert billed(await running.record(), want) == want


async def test_ocr_is_billed_by_pages_which_stay_as_they_came(clients, both):
    _, _, running = clients
    document = {"type": "document_url", "document_url": "https://example.org/bill.pdf"}
    await both(clients, lambda client: client.ocr.process_async(model="mistral-ocr-latest", document=document))
    record = await running.record()
    assert record["usage"] == OCR_USAGE
    assert (record.get("input_tokens"), record.get("output_tokens"), record.get("operation", "other")) == (
        None,
        None,
        "other",
    )


async def test_errors_are_the_providers_own(clients):
    direct, through, running = clients
    caught = []
    for client in (direct, through):
        with pytest.raises(SDKError) as error:
            await client.chat.complete_async(model="no-such-model", messages=MESSAGES)
        caught.append((error.value.status_code, error.value.body))
    assert caught[0] == caught[1]
    record = await running.record()
    assert (record["outcome"], record["status"]) == ("upstream_error", 400)
