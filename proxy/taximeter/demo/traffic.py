"""The traffic: what three customers of a RAG service would send, through the official OpenAI SDK."""

from __future__ import annotations

from typing import Any

import openai

WORKSPACES = ("acme", "globex", "initech")
CHUNKS = [
    "Taximeters were introduced in Berlin in 1891 by Friedrich Wilhelm Gustav Bruhn.",
    "A taximeter measures distance and waiting time and computes the fare from both.",
    "The word taxi is short for taximeter cabriolet.",
]
QUESTION = "Who made the first taximeter, and what does it measure?"


def key_of(workspace: str) -> str:
    """Each customer brings its own key of the provider: the provider's bill tells them apart by it."""
    return f"sk-demo-{workspace}"


async def send(base_url: str, workspace: str, rounds: int) -> int:
    """Upload documents and ask questions, `rounds` of each; answers how many calls were made.

    `base_url` is Taximeter's address without /v1. One customer is told apart by headers, the others by the path.
    """
    by_header = workspace == WORKSPACES[0]
    calls = 0
    for number in range(1, rounds + 1):
        for kind, talk in (("upload", _upload), ("question", _question)):
            track = f"{kind}-{number}"
            path = "" if by_header else f"/w/{workspace}/t/{track}"
            tags = {"X-Workspace": workspace, "X-Track-Id": track} if by_header else {}
            async with openai.AsyncOpenAI(
                api_key=key_of(workspace), base_url=f"{base_url}{path}/v1", default_headers=tags, max_retries=0
            ) as client:
                calls += await talk(client, f"{workspace} {number}")
    return calls


async def _upload(client: openai.AsyncOpenAI, salt: str) -> int:
    for place, chunk in enumerate(CHUNKS):
        headers = {"X-Task": "extract", "X-Document-Id": f"doc-{place}"}
        await client.chat.completions.create(
            model="gpt-4o-mini", messages=_messages(f"{salt}: extract entities from: {chunk}"), extra_headers=headers
        )
    summary = _messages(f"{salt}: summarize: " + " ".join(CHUNKS))
    await client.chat.completions.create(
        model="o4-mini", messages=summary, extra_headers={"X-Task": "summarize", "X-Document-Id": "doc-0"}
    )
    embed = {"X-Task": "embed"}
    await client.embeddings.create(model="text-embedding-3-small", input=CHUNKS, extra_headers=embed)
    await client.embeddings.create(
        model="text-embedding-3-small", input=salt, encoding_format="float", extra_headers=embed
    )
    return len(CHUNKS) + 3


async def _question(client: openai.AsyncOpenAI, salt: str) -> int:
    query = {"X-Task": "query"}
    await client.embeddings.create(model="text-embedding-3-small", input=QUESTION, extra_headers=query)
    rerank: dict[str, Any] = {"model": "rerank-v3.5", "query": QUESTION, "documents": CHUNKS}
    await client.post("/rerank", body=rerank, cast_to=object, options={"headers": query})
    messages = _messages(f"{salt}: {QUESTION} " + " ".join(CHUNKS))
    stream = await client.chat.completions.create(
        model="gpt-4o-mini", messages=messages, stream=True, extra_headers=query
    )
    async for chunk in stream:
        if chunk.usage is not None:
            raise AssertionError("usage in a stream that did not ask for it")
    stream = await client.chat.completions.create(
        model="gpt-4o-mini",
        messages=messages,
        stream=True,
        stream_options={"include_usage": True},
        extra_headers=query,
    )
    last = [chunk.usage async for chunk in stream][-1]
    if last is None:
        raise AssertionError("no usage in a stream that asked for it")
    await client.responses.create(model="gpt-4o-mini", input=f"{salt}: {QUESTION}", extra_headers=query)
    events = await client.responses.create(model="gpt-4o-mini", input=QUESTION, stream=True, extra_headers=query)
    async for _ in events:
        pass
    return 6


def _messages(text: str) -> list[Any]:
    return [{"role": "system", "content": "You answer from the given text."}, {"role": "user", "content": text}]
