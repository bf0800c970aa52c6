"""docs/lightrag.md as a newcomer types it: its `.env`, its settings, its commands, on a stock LightRAG."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from rag import venvs
from rag.lightrag_house import LightRAG, Node, tiktoken_files
from rag.lightrag_provider import DIMENSIONS, LightRAGProvider
from rag.test_clients import asyncio_run
from upstream import Request, response

PAGE = (Path(__file__).parents[2] / "docs/lightrag.md").read_text()
GUIDE = PAGE.partition("## In five minutes\n")[2].partition("\n## ")[0]
ENV, RERANK = (re.sub("(?m)^ +", "", block) for block in re.findall(r"```ini\n(.+?)```", GUIDE, re.DOTALL))
[UPSTREAM] = re.findall(r"```toml\n(.+?)```", GUIDE, re.DOTALL)
UPLOAD, ASK = re.findall(r"^ +(curl .+)$", GUIDE, re.MULTILINE)


class AliyunToo(LightRAGProvider):
    """OpenAI, and the rerank API of Alibaba Cloud's Model Studio (help.aliyun.com/en/model-studio, text rerank)."""

    def answer(self, request: Request) -> tuple[bytes, bytes | None]:
        if not request.target.endswith("/api/v1/services/rerank/text-rerank/text-rerank"):
            return super().answer(request)
        body = json.loads(request.body)
        asked = body["input"]
        tokens = len(asked["query"].split()) + sum(len(text.split()) for text in asked["documents"])
        self._bill("rerank", self._marked(asked["query"]), body, request, prompt=tokens)
        results = [{"index": at, "relevance_score": 0.9 - at / 1000} for at in range(len(asked["documents"]))]
        told = {"output": {"results": results}, "usage": {"total_tokens": tokens}, "request_id": "r-1"}
        return response(json.dumps(told).encode(), headers=[("content-type", "application/json")]), None


class AsTyped(LightRAG):
    """Started in a folder with the guide's `.env`, in an environment that says nothing but where to listen."""

    def environ(self) -> dict[str, str]:
        ours = {"HOST", "PORT", "PATH", "HOME", "PYTHONPATH", "PYTHONUNBUFFERED"}
        kept = {name: value for name, value in super().environ().items() if name in ours}
        dotenv = ENV.replace("EMBEDDING_DIM=1536", f"EMBEDDING_DIM={DIMENSIONS}") + RERANK  # the scripted one's vectors
        (self.folder / ".env").write_text(self.here(dotenv))
        return {**kept, "TIKTOKEN_CACHE_DIR": str(tiktoken_files(self.folder / "tiktoken"))}

    def here(self, text: str) -> str:
        """The guide's addresses and key as they are in this test."""
        text = text.replace("127.0.0.1:8000", f"127.0.0.1:{self.node.port}").replace("sk-…", "sk-provider")
        return text.replace("127.0.0.1:8001", f"127.0.0.1:{self.node.admin}").replace(":9621", f":{self.port}")

    async def typed(self, command: str) -> Any:
        return json.loads(await asyncio_run(shlex.split(self.here(command)), {"PATH": "/usr/bin:/bin"}))


@pytest.mark.venv(venvs.NEWEST)
async def test_the_guide_as_typed_bills_the_document_and_the_question(tmp_path: Path, site: Path) -> None:
    phrases = {"shows the fare of a ride": "docalpha1mark", "What is a taximeter": "qryalpha1mark"}
    async with AliyunToo(phrases) as provider:
        upstream = re.sub(r"https://[^/\"]+", provider.provider.url, UPSTREAM)
        async with Node(tmp_path, provider, config=upstream) as node, AsTyped(tmp_path / "rag", node, site) as rag:
            uploaded = await rag.typed(UPLOAD)
            status = await rag.until_ended(uploaded["track_id"])
            asked = await rag.typed(ASK)
        document, question = provider.sums()["docalpha1mark"], provider.sums()["qryalpha1mark"]
        [billed] = [each["metadata"]["token_usage"] for each in status["documents"]]
        for told, sums in ((billed, document), (asked["token_usage"], question)):
            assert {name: told[name] for name in ("llm_input_tokens", "llm_output_tokens", "embedding_tokens")} == {
                name: sums[name] for name in ("llm_input_tokens", "llm_output_tokens", "embedding_tokens")
            }
        assert asked["usage"]["rerank"]["input_tokens"] == question["rerank_tokens"] > 0
        assert "not metered" not in rag.said()
