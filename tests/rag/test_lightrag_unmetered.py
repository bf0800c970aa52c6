"""What did not pass the proxy is null and says why, or the server does not start; it never looks like nothing used."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rag import venvs
from rag.lightrag_house import LightRAG, Node
from rag.lightrag_provider import LightRAGProvider, document
from rag.test_lightrag_answers import check_metrics, newest, sums, token_usage
from rag.test_lightrag_truth import versions

LLM = ("llm_model", "llm_input_tokens", "llm_output_tokens")
EMBEDDING = ("embedding_model", "embedding_tokens")


def hosts(provider: LightRAGProvider, **named: str) -> dict[str, str]:
    """Both hosts named in the environment, as LightRAG's env.example has them."""
    url = provider.provider.base_url
    return {"LLM_BINDING_HOST": url, "EMBEDDING_BINDING_HOST": url, **named}


@versions
async def test_hosts_that_name_the_provider_leave_figures_unknown(tmp_path: Path, site: Path, version: str) -> None:
    async with LightRAGProvider() as provider, Node(tmp_path, provider) as node:
        direct = provider.provider.base_url.removesuffix("/v1")
        async with LightRAG(tmp_path / "rag", node, site, version=version, environ=hosts(provider)) as rag:
            uploaded = await rag.upload(document("docalpha1mark", 6), "alpha1.txt")
            status = await rag.until_ended(uploaded["track_id"])
            answer = await rag.query("What about qryalpha1mark ?")
            body = {"query": "Stream qryalpha2mark !", "mode": "naive", "stream": True, "enable_rerank": False}
            streamed = (await rag.client.post("/query/stream", json=body)).text.splitlines()[-1]
            data = (await rag.client.post("/query/data", json={"query": "Data of qryalpha3mark ?"})).json()
            listed = (await rag.client.post("/documents/paginated", json={})).json()
        said = f"embedding calls went to {direct}, llm calls went to {direct}, past the proxy {node.url}"
        assert answer["response"].startswith("Answer to qryalpha1mark")
        assert answer["unknown_because"] == data["unknown_because"] == said
        assert said in streamed
        assert answer["token_usage"] == dict.fromkeys((*LLM, *EMBEDDING))
        assert (answer["metrics"], data["metrics"]) == (None, None)
        assert {name: answer["usage"][name] for name in ("llm", "embedding", "total_tokens", "estimated_cost_usd")} == {
            **dict.fromkeys(("llm", "embedding", "total_tokens", "estimated_cost_usd")),
        }
        assert '"llm_input_tokens":null' in streamed
        for told in (status["documents"][0], listed["documents"][0]):
            used = told["metadata"]["token_usage"]
            assert {name: used[name] for name in (*LLM, *EMBEDDING)} == dict.fromkeys((*LLM, *EMBEDDING))
            assert used["total_chunks"] == told["chunks_count"] > 0
        assert status["usage"]["total_tokens"] is None
        assert sums(provider, "docalpha1mark")["embedding_tokens"] > 0

        # Pointed at the proxy later, with other settings and by another process, the document is as unknown as it was.
        async with LightRAG(tmp_path / "rag", node, site, version=version) as rag:
            later = (await rag.client.get(f"/documents/track_status/{uploaded['track_id']}")).json()
            assert later["documents"][0]["metadata"]["token_usage"]["llm_input_tokens"] is None
            assert "unknown_because" in later["documents"][0]["metadata"]["token_usage"]


@newest
async def test_only_what_went_past_the_proxy_is_unknown(tmp_path: Path, site: Path) -> None:
    async with LightRAGProvider() as provider, Node(tmp_path, provider) as node:
        environ = {"EMBEDDING_BINDING_HOST": provider.provider.base_url}
        async with LightRAG(tmp_path / "rag", node, site, environ=environ) as rag:
            uploaded = await rag.upload(document("docalpha1mark", 6), "alpha1.txt")
            status = await rag.until_ended(uploaded["track_id"])
            answer = await rag.query("What about qryalpha1mark ?")
        for used, mark in (
            (answer["token_usage"], "qryalpha1mark"),
            (status["documents"][0]["metadata"]["token_usage"], "docalpha1mark"),
        ):
            assert {name: used[name] for name in EMBEDDING} == dict.fromkeys(EMBEDDING)
            assert {name: used[name] for name in LLM} == {
                name: value for name, value in token_usage(sums(provider, mark)).items() if name in LLM
            }
        check_metrics(answer["metrics"], sums(provider, "qryalpha1mark"))
        assert answer["usage"]["embedding"] is None
        assert answer["usage"]["llm"]["requests"] == 2


@newest
async def test_named_hosts_are_pointed_at_the_proxy_where_it_has_them(tmp_path: Path, site: Path) -> None:
    async with LightRAGProvider() as provider, Node(tmp_path, provider) as node:
        environ = {**hosts(provider), "TAXIMETER_POINT": "always", "TAXIMETER_STRICT": "1"}
        async with LightRAG(tmp_path / "rag", node, site, environ=environ) as rag:
            answer = await rag.query("What about qryalpha1mark ?", mode="naive")
            assert answer["token_usage"] == token_usage(sums(provider, "qryalpha1mark"))
            assert "unknown_because" not in answer


@newest
async def test_a_proxy_that_is_none_leaves_figures_unknown(tmp_path: Path, site: Path) -> None:
    """TAXIMETER_PROXY_URL names the provider itself: its answers bear no request id of ours."""
    async with LightRAGProvider() as provider, Node(tmp_path, provider) as node:
        environ = {"TAXIMETER_PROXY_URL": provider.provider.base_url}
        async with LightRAG(tmp_path / "rag", node, site, environ=environ) as rag:
            answer = await rag.query("What about qryalpha1mark ?", mode="bypass")
        assert answer["response"].startswith("Answer to qryalpha1mark")
        assert answer["token_usage"]["llm_input_tokens"] is None
        assert answer["unknown_because"].startswith("llm calls went to http://127.0.0.1:")


@newest
@pytest.mark.parametrize("url", ["proxy:8000", "http://proxy:80800"])
async def test_a_proxy_url_that_cannot_be_leaves_figures_unknown(tmp_path: Path, site: Path, url: str) -> None:
    async with LightRAGProvider() as provider, Node(tmp_path, provider) as node:
        environ = hosts(provider, TAXIMETER_PROXY_URL=url, TAXIMETER_STRICT="0")
        async with LightRAG(tmp_path / "rag", node, site, environ=environ) as rag:
            answer = await rag.query("What about qryalpha1mark ?", mode="bypass")
        assert answer["response"].startswith("Answer to qryalpha1mark")
        assert answer["token_usage"] == dict.fromkeys((*LLM, *EMBEDDING))
        assert answer["unknown_because"] == f"TAXIMETER_PROXY_URL must be like http://host:port, not {url!r}"


@newest
@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"TAXIMETER_PROXY_URL": "proxy:8000"}, "TAXIMETER_PROXY_URL must be like http://host:port, not 'proxy:8000'"),
        ({"LLM_BINDING_HOST": "https://elsewhere/v1", "TAXIMETER_POINT": "always"}, "calls https://elsewhere/v1, not"),
    ],
    ids=["a bad proxy", "a host that is no upstream"],
)
async def test_strict_does_not_start_where_something_would_not_be_metered(
    tmp_path: Path, site: Path, environ: dict[str, str], said: str
) -> None:
    async with LightRAGProvider() as provider, Node(tmp_path, provider) as node:
        rag = LightRAG(tmp_path / "rag", node, site, environ={**environ, "TAXIMETER_STRICT": "1"})
        rag.folder.mkdir()
        (rag.folder / ".env").write_text("")
        program = [str(venvs.python(venvs.NEWEST).parent / "lightrag-server")]
        ended: Any = await asyncio.to_thread(
            subprocess.run, program, cwd=rag.folder, env=rag.environ(), capture_output=True, text=True, timeout=120
        )
        assert ended.returncode == 1
        assert said in ended.stderr
