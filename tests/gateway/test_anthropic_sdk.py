"""The official anthropic SDK reads through the proxy what it reads directly; cache tokens are in the record's input."""

import anthropic
import pytest

from providers import anthropic_like
from providers.anthropic_like import USAGE

ASKED = {"max_tokens": 64, "messages": [{"role": "user", "content": "How much does a call cost?"}]}
TOOLS = [{"name": "price_of", "input_schema": {"type": "object", "properties": {"model": {"type": "string"}}}}]
BILLED = {
    "input_tokens": 21 + 120 + 1031,
    "cached_input_tokens": 1031,
    "cache_write_input_tokens": 120,
    "cache_write_input_tokens_5m": 20,
    "cache_write_input_tokens_1h": 100,
    "output_tokens": 58,
    "output_source": "reported",
    "outcome": "ok",
    "api": "messages",
}


@pytest.fixture
async def clients(serve, provider):
    """(a client of the provider, the same through the proxy, the proxy)"""
    provider.answering = anthropic_like.answer
    async with serve(provider, upstream={"name": "anthropic", "provider": "anthropic"}) as running:
        direct = anthropic.AsyncAnthropic(base_url=provider.url, api_key="sk-ant-own", max_retries=0)
        through = anthropic.AsyncAnthropic(base_url=running.url + "/w/acme", api_key="sk-ant-own", max_retries=0)
        async with direct, through:
            yield direct, through, running


async def test_message(clients, both, billed):
    _, _, running = clients
    answer = await both(clients, lambda client: client.messages.create(model="claude-opus", **ASKED))
    assert answer["usage"]["cache_creation"]["ephemeral_1h_input_tokens"] == 100
    assert billed(await running.record(), BILLED) == BILLED


async def test_tool_use(clients, both, billed):
    _, _, running = clients
    answer = await both(clients, lambda client: client.messages.create(model="claude-tools", tools=TOOLS, **ASKED))
    assert answer["content"][0]["input"] == {"model": "opus"}
    assert billed(await running.record(), BILLED) == BILLED


@pytest.mark.parametrize("model", ["claude-opus", "claude-tools"])
async def test_streamed_events(clients, both, billed, model):
    _, _, running = clients

    async def read(client):
        return [event async for event in await client.messages.create(model=model, stream=True, **ASKED)]

    events = await both(clients, read)
    assert events[-2]["usage"]["output_tokens"] == USAGE["output_tokens"]
    record = await running.record()
    assert billed(record, BILLED) == BILLED
    assert record["stream"]
    assert record["workspace"] == "acme"


async def test_the_sdks_own_accumulated_message(clients, both, billed):
    _, _, running = clients

    async def read(client):
        async with client.messages.stream(model="claude-tools", tools=TOOLS, **ASKED) as stream:
            return await stream.get_final_message()

    message = await both(clients, read)
    assert message["content"][0]["input"] == {"model": "opus"}
    assert billed(await running.record(), BILLED) == BILLED


async def test_claude_on_vertex(serve, provider, both, billed):
    provider.answering = anthropic_like.answer

    def client(url):
        return anthropic.AsyncAnthropicVertex(
            base_url=url + "/vertex/v1", region="us-east5", project_id="p", access_token="t", max_retries=0
        )

    async with (
        serve(provider, upstream={"name": "vertex", "provider": "vertex", "native_url": provider.url}) as running,
        client(provider.url) as direct,
        client(running.url) as through,
    ):
        clients = direct, through, running
        model = "claude-3-7-sonnet@20250219"
        await both(clients, lambda client: client.messages.create(model=model, **ASKED))
        assert billed(await running.record(0), BILLED) == BILLED

        async def read(client):
            return [event async for event in await client.messages.create(model=model, stream=True, **ASKED)]

        await both(clients, read)
        record = await running.record(1)
        assert billed(record, BILLED) == BILLED
        assert (record["request_model"], record["stream"]) == (model, True)


async def test_token_counting_uses_nothing(clients, both):
    _, _, running = clients
    asked = {"model": "claude-opus", "messages": ASKED["messages"]}
    assert await both(clients, lambda client: client.messages.count_tokens(**asked)) == {"input_tokens": 2095}
    record = await running.record()
    assert (record.get("input_tokens"), record.get("operation", "other")) == (None, "other")


async def test_an_error_is_the_providers_own(clients):
    direct, through, running = clients
    caught = []
    for client in (direct, through):
        with pytest.raises(anthropic.NotFoundError) as error:
            await client.messages.create(model="claude-missing", **ASKED)
        caught.append((error.value.status_code, error.value.body, error.value.request_id))
    assert caught[0] == caught[1]
    record = await running.record()
    assert (record["outcome"], record["status"], record.get("input_tokens")) == ("upstream_error", 404, None)


async def test_an_error_in_mid_stream_still_leaves_what_is_known(clients):
    direct, through, running = clients
    caught = []
    for client in (direct, through):
        texts = []
        with pytest.raises(anthropic.APIStatusError) as error:
            async for event in await client.messages.create(model="claude-overloaded", stream=True, **ASKED):
                texts.append(event.model_dump())  # noqa: PERF401  the loop raises, and what came before it counts
        caught.append((texts, error.value.body))
    assert caught[0] == caught[1]
    record = await running.record()
    assert record["outcome"] == "upstream_error"
    assert (record["input_tokens"], record["input_source"]) == (1172, "reported")
    assert record["output_source"] == "counted"  # the first figure is not the last one
