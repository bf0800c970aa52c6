"""The traffic: what three customers of a RAG service would send, as any OpenAI client sends it.

Plain HTTP, so that the demo needs nothing that Taximeter itself does not; the official SDKs have tests of their own.
"""

from __future__ import annotations

import json
from typing import Any

import httpx2

JSON = dict[str, Any]

WORKSPACES = ("acme", "globex", "initech")
CHUNKS = [
    "Taximeters were introduced in Berlin in 1891 by Friedrich Wilhelm Gustav Bruhn.",
    "A taximeter measures distance and waiting time and computes the fare from both.",
    "The word taxi is short for taximeter cabriolet.",
]
QUESTION = "Who made the first taximeter, and what does it measure?"
TIMEOUT_S = 60.0


def key_of(workspace: str) -> str:
    """Each customer brings its own key of the provider: the provider's bill tells them apart by it."""
    return f"sk-demo-{workspace}"


async def send(base_url: str, workspace: str, rounds: int) -> int:
    """Upload documents and ask questions, `rounds` of each; returns how many calls were made.

    `base_url` is Taximeter's address without /v1. One customer is told apart by headers, the others by the path.
    """
    by_header = workspace == WORKSPACES[0]
    calls = 0
    for number in range(1, rounds + 1):
        for kind, talk in (("upload", _upload), ("question", _question)):
            track = f"{kind}-{number}"
            path = "" if by_header else f"/w/{workspace}/t/{track}"
            headers = {"X-Workspace": workspace, "X-Track-Id": track} if by_header else {}
            headers["Authorization"] = f"Bearer {key_of(workspace)}"
            async with httpx2.AsyncClient(
                base_url=f"{base_url}{path}/v1", headers=headers, timeout=TIMEOUT_S
            ) as client:
                calls += await talk(client, f"{workspace} {number}")
    return calls


async def _upload(client: httpx2.AsyncClient, salt: str) -> int:
    for place, chunk in enumerate(CHUNKS):
        about = {"X-Task": "extract", "X-Document-Id": f"doc-{place}"}
        await _post(client, "chat/completions", _chat(f"{salt}: extract entities from: {chunk}"), about)
    summary = _chat(f"{salt}: summarize: " + " ".join(CHUNKS), model="o4-mini")
    await _post(client, "chat/completions", summary, {"X-Task": "summarize", "X-Document-Id": "doc-0"})
    for texts, encoding in ((CHUNKS, "base64"), (salt, "float")):
        body = {"model": "text-embedding-3-small", "input": texts, "encoding_format": encoding}
        await _post(client, "embeddings", body, {"X-Task": "embed"})
    return len(CHUNKS) + 3


async def _question(client: httpx2.AsyncClient, salt: str) -> int:
    query = {"X-Task": "query"}
    embedding = {"model": "text-embedding-3-small", "input": QUESTION, "encoding_format": "base64"}
    await _post(client, "embeddings", embedding, query)
    await _post(client, "rerank", {"model": "rerank-v3.5", "query": QUESTION, "documents": CHUNKS}, query)
    chat = _chat(f"{salt}: {QUESTION} " + " ".join(CHUNKS)) | {"stream": True}
    if any(event.get("usage") for event in await _stream(client, "chat/completions", chat, query)):
        raise AssertionError("usage in a stream that did not ask for it")
    asking = chat | {"stream_options": {"include_usage": True}}
    if not (await _stream(client, "chat/completions", asking, query))[-1].get("usage"):
        raise AssertionError("no usage in a stream that asked for it")
    await _post(client, "responses", {"model": "gpt-4o-mini", "input": f"{salt}: {QUESTION}"}, query)
    await _stream(client, "responses", {"model": "gpt-4o-mini", "input": QUESTION, "stream": True}, query)
    return 6


async def _post(client: httpx2.AsyncClient, path: str, body: JSON, headers: dict[str, str]) -> None:
    (await client.post(path, json=body, headers=headers)).raise_for_status()


async def _stream(client: httpx2.AsyncClient, path: str, body: JSON, headers: dict[str, str]) -> list[JSON]:
    """The stream's events, without its `[DONE]`."""
    async with client.stream("POST", path, json=body, headers=headers) as answer:
        answer.raise_for_status()
        data = [line.removeprefix("data: ") async for line in answer.aiter_lines() if line.startswith("data: ")]
    return [json.loads(event) for event in data if event != "[DONE]"]


def _chat(text: str, model: str = "gpt-4o-mini") -> JSON:
    system = {"role": "system", "content": "You answer from the given text."}
    return {"model": model, "messages": [system, {"role": "user", "content": text}]}
