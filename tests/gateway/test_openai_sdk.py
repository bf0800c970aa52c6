"""The official openai SDK reads through the proxy exactly what it reads directly; the record says what was billed."""

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "How much does a call cost?"}]


@pytest.fixture
async def clients(serve, provider):
    """(a client of the provider, the same through the proxy, the proxy)"""
    async with serve(provider) as running:
        direct = openai.AsyncOpenAI(base_url=provider.base_url, api_key="sk-own", max_retries=0)
        through = openai.AsyncOpenAI(base_url=running.url + "/w/acme/v1", api_key="sk-own", max_retries=0)
        async with direct, through:
            yield direct, through, running


def plain(answer):
    """An answer without what differs from call to call."""
    data = answer.model_dump(warnings=False)  # base64 embeddings are strings where the SDK declares floats
    for name in ("id", "created_at"):
        data.pop(name, None)
    for item in data.get("output") or []:
        item.pop("id", None)
    return data


async def test_chat(clients):
    direct, through, running = clients
    one = await direct.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    two = await through.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    (record,) = running.records
    assert plain(one) == plain(two)
    assert (record["input_tokens"], record["output_tokens"]) == (two.usage.prompt_tokens, two.usage.completion_tokens)
    assert record["response_model"] == two.model


@pytest.mark.parametrize("options", [None, {"include_usage": True}, {"include_usage": False}])
async def test_streamed_chat(clients, provider, options):
    direct, through, running = clients
    asked = {"model": "gpt-4o-mini", "messages": MESSAGES, "stream": True}
    if options is not None:
        asked["stream_options"] = options

    async def read(client):
        return [plain(part) async for part in await client.chat.completions.create(**asked)]

    assert await read(direct) == await read(through)
    record = await running.record()
    bill = provider.ledger[-1].usage
    assert (record["input_tokens"], record["output_tokens"]) == (bill["prompt_tokens"], bill["completion_tokens"])
    assert record["output_source"] == "reported"


@pytest.mark.parametrize("encoding", ["base64", "float", None])
async def test_embeddings(clients, encoding):
    direct, through, running = clients
    asked = {"model": "text-embedding-3-small", "input": ["one two", "three"]}
    if encoding is not None:
        asked["encoding_format"] = encoding
    one = await direct.embeddings.create(**asked)
    two = await through.embeddings.create(**asked)
    (record,) = running.records
    assert plain(one) == plain(two)
    assert (record["input_tokens"], record["embedding_inputs"]) == (two.usage.prompt_tokens, 2)


async def test_responses(clients):
    direct, through, running = clients
    one = await direct.responses.create(model="gpt-4.1", input="one two three")
    two = await through.responses.create(model="gpt-4.1", input="one two three")
    (record,) = running.records
    assert one.output_text == two.output_text
    assert plain(one) == plain(two)
    assert (record["input_tokens"], record["output_tokens"]) == (two.usage.input_tokens, two.usage.output_tokens)


async def test_streamed_responses(clients, provider):
    direct, through, running = clients

    async def read(client):
        events = await client.responses.create(model="gpt-4.1", input="one two three", stream=True)
        return [(event.type, getattr(event, "delta", None)) async for event in events]

    assert await read(direct) == await read(through)
    record = await running.record()
    bill = provider.ledger[-1].usage
    assert (record["input_tokens"], record["output_tokens"]) == (bill["input_tokens"], bill["output_tokens"])


async def test_completions(clients):
    direct, through, running = clients
    one = await direct.completions.create(model="gpt-3.5-turbo-instruct", prompt="one two")
    two = await through.completions.create(model="gpt-3.5-turbo-instruct", prompt="one two")
    (record,) = running.records
    assert plain(one) == plain(two)
    assert (record["input_tokens"], record["output_tokens"]) == (two.usage.prompt_tokens, two.usage.completion_tokens)


async def test_errors_are_the_providers_own(clients):
    direct, through, running = clients
    caught = []
    for client in (direct, through):
        with pytest.raises(openai.NotFoundError) as error:
            await client.chat.completions.create(model="no-such-model", messages=MESSAGES)
        caught.append((error.value.status_code, error.value.body, error.value.message))
    (record,) = running.records
    assert caught[0] == caught[1]
    assert (record["outcome"], record["status"]) == ("upstream_error", 404)


async def test_our_own_refusal_is_an_error_the_sdk_understands(serve, provider):
    async with (
        serve(provider, auth={"mode": "keys"}) as running,
        openai.AsyncOpenAI(base_url=running.url + "/v1", api_key="tm-unknown", max_retries=0) as client,
    ):
        with pytest.raises(openai.AuthenticationError) as error:
            await client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    assert error.value.code == "invalid_api_key"
    assert "not known here" in error.value.message
    assert not provider.requests


async def test_models_are_listed_through_the_proxy(clients):
    direct, through, _ = clients
    assert [m.id async for m in direct.models.list()] == [m.id async for m in through.models.list()]
