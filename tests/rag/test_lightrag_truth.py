"""Every token on the right workspace, track and document, whatever runs at the same time; truth is told by content.

Needs LightRAG's environments: .venv/bin/python tests/rag/venvs.py 1.5.7 1.5.4
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rag import venvs
from rag.lightrag_house import LightRAG, Node
from rag.lightrag_provider import SLOW, LightRAGProvider, Sums, document
from waits import happens

Key = tuple[str, str | None, str | None]
"""Workspace, track, document."""

versions = pytest.mark.parametrize(
    "version", [pytest.param(each, marks=pytest.mark.venv(each)) for each in venvs.VERSIONS]
)


@asynccontextmanager
async def whole(
    folder: Path, site: Path, version: str, **options: Any
) -> AsyncIterator[tuple[LightRAGProvider, Node, LightRAG]]:
    async with (
        LightRAGProvider() as provider,
        Node(folder, provider) as node,
        LightRAG(folder / "rag", node, site, version=version, **options) as rag,
    ):
        yield provider, node, rag


def shown(usage: dict[str, Any]) -> Sums:
    """The control port's `usage` in the truth's words."""
    return Sums(
        llm_input_tokens=usage["llm"]["input_tokens"],
        llm_output_tokens=usage["llm"]["output_tokens"],
        cached=usage["llm"]["cached_input_tokens"],
        reasoning=usage["llm"]["reasoning_output_tokens"],
        llm_calls=usage["llm"]["requests"] - usage["errors"],
        embedding_tokens=usage["embedding"]["input_tokens"],
    )


async def told(node: Node) -> dict[Key, Sums]:
    answer = await node.ask("/usage?group_by=workspace,track,document")
    assert answer["complete"]
    found = {(each["workspace"], each["track"], each["document"]): shown(each["usage"]) for each in answer["groups"]}
    return {key: Sums(+sums) for key, sums in found.items()}


async def agree(provider: LightRAGProvider, node: Node, whose: dict[str, Key], left: set[Key]) -> None:
    """What the provider billed for each mark is what Taximeter has on its workspace, track and document; no more."""
    assert provider.mixed == []
    assert set(provider.sums()) <= set(whose)

    def truth() -> dict[Key, Sums]:
        sums: dict[Key, Sums] = {}
        for mark, billed in provider.sums().items():
            sums.setdefault(whose[mark], Sums()).update(billed)
        return {key: Sums(+each) for key, each in sums.items() if key not in left}

    found: dict[Key, Sums] = {}

    def known() -> dict[Key, Sums]:
        return {key: sums for key, sums in found.items() if key not in left}

    async def agreed() -> bool:
        found.clear()
        found.update(await told(node))
        return known() == truth()

    with contextlib.suppress(TimeoutError):  # a failed document's last embeddings come with another one's
        await happens(agreed)
    assert known() == truth()
    assert left <= set(found)


async def leave(rag: LightRAG, provider: LightRAGProvider, mark: str) -> str:
    """Begin a streamed query and go away in the middle of its answer; its track."""
    body = {"query": f"Tell me {SLOW} about {mark} .", "mode": "naive", "stream": True, "enable_rerank": False}
    async with rag.client.stream("POST", "/query/stream", json=body) as answer:
        async for line in answer.aiter_lines():
            if "response" in json.loads(line):
                break
        await provider.half_answered.wait()
        return str(answer.headers["x-track-id"])


async def asked(rag: LightRAG, mark: str, workspace: str, **options: Any) -> Key:
    body = {"query": f"What is {mark} about?", "enable_rerank": False, **options}
    path = "/query/stream" if options.get("stream") else "/query"
    answer = await rag.client.post(path, json=body, headers=rag.headers(workspace))
    assert answer.status_code == 200, answer.text
    return workspace, answer.headers["x-track-id"], None


async def placed(rag: LightRAG, track: str, workspace: str, has: Callable[[str], str]) -> dict[str, Key]:
    """Mark -> workspace, track and document of every document of a track, once all have ended."""
    status = await rag.until_ended(track, workspace)
    return {has(each["file_path"]): (workspace, track, each["id"]) for each in status["documents"]}


@versions
async def test_every_token_is_on_its_workspace_track_and_document(tmp_path: Path, site: Path, version: str) -> None:
    def by_name(name: str) -> str:
        return f"doc{name.partition('.')[0]}mark"

    async with whole(tmp_path, site, version, environ={"TAXIMETER_WORKSPACES": "alpha,beta"}) as (provider, node, rag):
        first = await rag.upload(document("docalpha1mark", 14), "alpha1.txt", "alpha")
        other, failing, batch = await asyncio.gather(
            rag.upload(document("docbeta1mark", 12), "beta1.txt", "beta"),
            rag.upload(document("docalpha2mark", 16, poison_at=15), "alpha2.txt", "alpha"),
            rag.client.post(
                "/documents/texts",
                json={
                    "texts": [document(f"docalpha{n}mark", 9) for n in (3, 4, 5)],
                    "file_sources": ["alpha3.txt", "alpha4.txt", "alpha5.txt"],
                },
            ),
        )
        whose: dict[str, Key] = {}
        early = await asyncio.gather(
            asked(rag, "qryalpha1mark", "alpha", mode="naive"), asked(rag, "qrybeta1mark", "beta", mode="mix")
        )
        whose.update(zip(("qryalpha1mark", "qrybeta1mark"), early, strict=True))
        tracks = (
            (first["track_id"], "alpha"),
            (other["track_id"], "beta"),
            (failing["track_id"], "alpha"),
            (batch.json()["track_id"], "alpha"),
        )
        for track, workspace in tracks:
            whose.update(await placed(rag, track, workspace, by_name))
        assert len(whose) == 8

        modes = ("naive", "local", "global", "hybrid", "mix", "bypass")
        marks: list[tuple[str, str, dict[str, Any]]] = [
            (f"qryalpha{n + 10}mark", "alpha", {"mode": mode}) for n, mode in enumerate(modes)
        ]
        marks += [(f"qrybeta{n + 10}mark", "beta", {"mode": mode, "stream": True}) for n, mode in enumerate(modes)]
        marks.append(("qryalpha30mark", "alpha", {"mode": "local", "only_need_context": True}))
        late = rag.upload(document("docalpha6mark", 12), "alpha6.txt", "alpha")
        keys = await asyncio.gather(late, *(asked(rag, mark, where, **how) for mark, where, how in marks))
        whose.update({mark: key for (mark, _, _), key in zip(marks, keys[1:], strict=True)})
        whose.update(await placed(rag, keys[0]["track_id"], "alpha", by_name))

        gone = await leave(rag, provider, "qryalpha40mark")
        whose["qryalpha40mark"] = ("alpha", gone, None)
        await agree(provider, node, whose, left={("alpha", gone, None)})
        assert (await node.ask(f"/usage/tracks/{gone}?workspace=alpha&wait=20"))["in_flight"] == 0
        events = (await node.ask(f"/usage/events?workspace=alpha&track={gone}"))["data"]
        outcomes = {each["api"]: (each["outcome"], each["partial"]) for each in events}
        assert outcomes == {"embeddings": ("ok", False), "chat": ("client_left", True)}
        status = await rag.until_ended(failing["track_id"], "alpha")
        billed = provider.sums()["docalpha2mark"]
        assert status["documents"][0]["status"] == "failed"
        assert status["documents"][0]["metadata"]["token_usage"] == {
            "embedding_tokens": billed["embedding_tokens"],
            "llm_input_tokens": billed["llm_input_tokens"],
            "llm_output_tokens": billed["llm_output_tokens"],
            "total_chunks": status["documents"][0]["chunks_count"] or 0,
            "embedding_model": "text-embedding-3-small" if billed["embedding_tokens"] else None,
            "llm_model": "gpt-4o-mini",
        }
        assert billed["llm_input_tokens"] > 0
        assert all(not bill.headers.keys() & {"x-workspace", "x-track-id"} for bill in provider.bills)
