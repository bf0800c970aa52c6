"""The scripted provider itself: the official SDK can read it, and it misbehaves when told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from present import present
from upstream import LAST_CHUNK, RESET, STALL, Provider, chunk, response, stream_head


async def client_of(provider: Provider) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=provider.base_url, api_key="sk-test", max_retries=0)


async def test_the_sdk_reads_every_default_answer_and_the_ledger_agrees() -> None:
    async with Provider(chunks=6) as provider, await client_of(provider) as client:
        said: list[ChatCompletionMessageParam] = [{"role": "user", "content": "how far is it"}]
        unary = await client.chat.completions.create(model="gpt-4o-mini", messages=said)
        assert unary.choices[0].message.content == "echo: how far is it w0"
        stream = await client.chat.completions.create(
            model="o4-mini", messages=said, stream=True, stream_options={"include_usage": True}
        )
        events = [event async for event in stream]
        assert "".join(e.choices[0].delta.content or "" for e in events if e.choices) == "echo: how far is it w0"
        embedded = await client.embeddings.create(model="text-embedding-3-small", input=["a b", "c"], dimensions=3)
        floats = await client.embeddings.create(
            model="text-embedding-3-small", input=["a b", "c"], dimensions=3, encoding_format="float"
        )
        assert [item.embedding for item in embedded.data] == [item.embedding for item in floats.data]
        answer = await client.responses.create(model="gpt-4.1", input="tell me")
        assert answer.output_text == "echo: tell me w0 w1 w2"
        typed = [event async for event in await client.responses.create(model="gpt-4.1", input="tell me", stream=True)]
        assert typed[-1].type == "response.completed"
        assert typed[-1].response.usage == answer.usage
        legacy = await client.completions.create(model="gpt-3.5-turbo-instruct", prompt="tell", stream=True)
        assert "".join([c.choices[0].text async for c in legacy]) == "echo: tell w0 w1 w2 w3 "
        ranked = await client.post(
            "/rerank", body={"model": "rerank-v3.5", "query": "q", "documents": ["a", "b"]}, cast_to=dict[str, Any]
        )
        assert ranked["meta"]["billed_units"] == {"search_units": 1}
        assert (await client.models.list()).data[0].id == "gpt-4o-mini"
        with pytest.raises(openai.NotFoundError, match="no-such-model"):
            await client.chat.completions.create(model="no-such-model", messages=said)

        billed = [entry.usage for entry in provider.ledger]
        assert billed[0] == present(unary.usage).model_dump(exclude_unset=True)
        assert billed[1] == present(events[-1].usage).model_dump(exclude_unset=True)
        assert billed[2] == embedded.usage.model_dump(exclude_unset=True)
        assert billed[4] == present(answer.usage).model_dump(exclude_unset=True)
        assert len(billed) == 8 and all(entry.complete for entry in provider.ledger)


async def test_a_script_waits_for_the_test_and_then_resets() -> None:
    async with Provider() as provider:
        go_on = asyncio.Event()
        provider.script(stream_head(), chunk(b"one"), go_on, chunk(b"two"), RESET)
        reader, writer = await asyncio.open_connection(provider.host, provider.port)
        writer.write(b"GET /x HTTP/1.1\r\nhost: h\r\nX-Leak: 1\r\n\r\n")
        await reader.readuntil(chunk(b"one"))
        go_on.set()
        assert await reader.readexactly(8) == chunk(b"two")
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
        assert provider.requests[0].x_headers == {"x-leak": "1"}


async def test_a_client_that_leaves_is_seen() -> None:
    async with Provider() as provider:
        provider.script(STALL)
        _, writer = await asyncio.open_connection(provider.host, provider.port)
        writer.write(b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}")
        await provider.until(lambda: provider.requests and provider.requests[0].complete)
        writer.close()
        await provider.until(lambda: provider.requests[0].client_left)


def test_answers_are_framed_as_asked() -> None:
    assert response(b"hi") == b"HTTP/1.1 200 Scripted\r\ncontent-length: 2\r\n\r\nhi"
    assert response(b"hi", framing="chunked").endswith(b"\r\n\r\n2\r\nhi\r\n" + LAST_CHUNK)
    assert response(b"hi", 404, [("a", "b")], framing="close") == b"HTTP/1.1 404 Scripted\r\na: b\r\n\r\nhi"


async def test_as_a_process_it_prints_its_port_and_appends_what_it_billed(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    script = Path(__file__).with_name("upstream.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, script, "--ledger", ledger, "--chunks", "3", stdout=asyncio.subprocess.PIPE
    )
    try:
        port = int(await present(process.stdout).readline())
        client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="sk-test")
        async with client:
            answer = await client.completions.create(model="m", prompt="p")
        line = json.loads(ledger.read_bytes())
        assert line["usage"] == present(answer.usage).model_dump(exclude_unset=True)
        assert line["path"] == "/v1/completions"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
