"""Reading back from a real node: exact, isolated, waiting for what is named; errors say what happened."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from rag.lightrag_house import Node
from rag.lightrag_provider import LightRAGProvider
from taximeter_rag import Reader, ReadError, install, metered
from upstream import Provider, response


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


async def test_figures_are_there_as_soon_as_the_answer_is(tmp_path: Path, stack: contextlib.ExitStack) -> None:
    async with LightRAGProvider() as provider, Node(tmp_path, provider) as node:
        hooks, reader = install(node.url), Reader(node.control_url)
        stack.enter_context(reader)
        stack.callback(hooks.uninstall)
        async with openai.AsyncOpenAI(base_url=f"{node.url}/v1", api_key="sk") as sdk:
            for number in range(10):
                async with metered(workspace="acme", track=f"t{number}", document="d") as scope:
                    message = {"role": "user", "content": f"about qryalpha{number}mark"}
                    await sdk.chat.completions.create(model="gpt-4o-mini", messages=[message])  # type: ignore[list-item]
                    figures = await reader.aread(scope, wait_s=5)
                billed = provider.sums()[f"qryalpha{number}mark"]
                assert figures["complete"]
                assert figures["metrics"]["prompt_tokens"] == billed["llm_input_tokens"]
                assert figures["documents"]["d"]["llm_output_tokens"] == billed["llm_output_tokens"]
                assert len(scope.calls) == 1
        assert await reader.aclose_track("t1", "acme") is True
        assert await reader.aclose_track("never-used") is False
        nothing = await reader.atrack("never-used", "acme")
        assert nothing["token_usage"]["llm_model"] is None
        assert nothing["usage"]["requests"] == 0


async def test_it_asks_for_the_calls_it_saw_and_outlives_a_closed_connection(stack: contextlib.ExitStack) -> None:
    async with Provider() as provider, metered(workspace="acme", track="t-1") as scope:
        reader = stack.enter_context(Reader(provider.url, "secret"))
        for _ in range(3):
            provider.script(response(b'{"track": "t"}'))
        scope.calls.extend(f"id-{number}" for number in range(3))
        await reader.aread(scope, wait_s=2)
        assert provider.requests[0].target == (
            "/usage/tracks/t-1?workspace=acme&wait=2&after=id-0&after=id-1&after=id-2"
        )
        assert provider.requests[0].header("authorization") == "Bearer secret"
        provider.drop_connections()
        assert await asyncio.gather(*(reader.atrack("t") for _ in range(2))) == [{"track": "t"}] * 2


async def test_errors_say_who_answered_what(stack: contextlib.ExitStack) -> None:
    async with Provider() as provider:
        reader = stack.enter_context(Reader(provider.url))
        provider.script(response(b'{"error": {"message": "no such key"}}', 401))
        with pytest.raises(ReadError, match="answers 401: no such key") as refused:
            await reader.atrack("t")
        assert refused.value.status == 401
        provider.script(response(b"[]"))
        with pytest.raises(ReadError, match="does not answer like Taximeter"):
            await reader.atrack("t")
    with pytest.raises(ReadError, match="does not answer"), Reader(provider.url) as reader:
        await reader.atrack("t")
    with pytest.raises(ValueError, match="control port's URL"):
        Reader("nowhere")
    with pytest.raises(ReadError, match="no track"), metered(workspace="acme") as scope, Reader() as reader:
        await reader.aread(scope)
