"""What LightRAG's users see: each field of the requirement documents, exact, and everything LightRAG itself says."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rag import venvs
from rag.lightrag_house import EMBEDDING_MODEL, LLM_MODEL, LightRAG, Node
from rag.lightrag_provider import UNSPEAKABLE, LightRAGProvider, Sums, document
from rag.operators_polling import billing_data
from rag.test_lightrag_truth import versions, whole
from waits import HANG_S, happens

newest = pytest.mark.venv(venvs.NEWEST)

METRICS = {
    "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "input_cached_tokens", "input_audio_tokens",
    "output_reasoning_tokens", "output_audio_tokens", "output_accepted_prediction_tokens",
    "output_rejected_prediction_tokens", "call_count", "model", "input_usage", "input", "output_usage", "output",
    "total_usage",
}  # fmt: skip


def check_metrics(metrics: dict[str, Any], billed: Sums) -> None:
    llm_in, llm_out = billed["llm_input_tokens"], billed["llm_output_tokens"]
    assert metrics.keys() == METRICS
    assert metrics == {
        **metrics,
        "prompt_tokens": llm_in,
        "completion_tokens": llm_out,
        "total_tokens": llm_in + llm_out,
        "cached_tokens": billed["cached"],
        "input_cached_tokens": billed["cached"],
        "output_reasoning_tokens": billed["reasoning"],
        "call_count": billed["llm_calls"],
        "model": LLM_MODEL if llm_in else None,
        "input_usage": llm_in,
        "input": llm_in - billed["cached"],
        "output_usage": llm_out,
        "output": llm_out - billed["reasoning"],
        "total_usage": llm_in + llm_out,
    }


def token_usage(billed: Sums) -> dict[str, Any]:
    return {
        "llm_model": LLM_MODEL if billed["llm_input_tokens"] else None,
        "llm_input_tokens": billed["llm_input_tokens"],
        "llm_output_tokens": billed["llm_output_tokens"],
        "embedding_model": EMBEDDING_MODEL if billed["embedding_tokens"] else None,
        "embedding_tokens": billed["embedding_tokens"],
    }


def sums(provider: LightRAGProvider, mark: str) -> Sums:
    return provider.sums().get(mark, Sums())


@versions
async def test_users_see_what_each_query_and_document_used(tmp_path: Path, site: Path, version: str) -> None:
    async with whole(tmp_path, site, version) as (provider, node, rag):
        uploaded = await rag.upload(document("docalpha1mark", 9), "alpha1.txt")
        assert uploaded["status"] == "success"
        assert uploaded["metrics"] == {"status": "processing", "model": LLM_MODEL, "note": "Token tracking active"}
        status = await rag.until_ended(uploaded["track_id"])
        await one_document(provider, status)
        await an_operators_polling(provider, rag)
        await plain_query(provider, rag)
        await cached_query(provider, rag)
        await context_only(provider, rag, node)
        await what_only_looks_like_context_only(provider, rag)
        await failed_queries(provider, rag)
        await streamed_query(provider, rag)
        await data_query(provider, rag)
        await everything_else_is_lightrags_own(rag)
        await ollamas_dialect_is_a_query_too(provider, rag, node)
        await langfuse_lines(provider, rag, uploaded["track_id"])


async def one_document(provider: LightRAGProvider, status: dict[str, Any]) -> None:
    (found,) = status["documents"]
    usage = found["metadata"]["token_usage"]
    assert found["status"] == "processed"
    assert found["chunks_count"] > 1
    assert usage == {**token_usage(sums(provider, "docalpha1mark")), "total_chunks": found["chunks_count"]}
    assert found["metadata"]["process_start_time"] > 0  # LightRAG's own stays
    check_usage(found["metadata"]["usage"], sums(provider, "docalpha1mark"))
    check_usage(status["usage"], sums(provider, "docalpha1mark"))
    summary = status["status_summary"]
    assert (summary["pending"], summary["processing"], summary["processed"], summary["failed"]) == (0, 0, 1, 0)


async def plain_query(provider: LightRAGProvider, rag: LightRAG) -> None:
    answer = await rag.query("What about qryalpha1mark ?")
    billed = sums(provider, "qryalpha1mark")
    assert answer["response"].startswith("Answer to qryalpha1mark")
    assert answer["references"]
    assert answer["token_usage"] == token_usage(billed)
    check_metrics(answer["metrics"], billed)
    check_usage(answer["usage"], billed)


def check_usage(usage: dict[str, Any], billed: Sums) -> None:
    assert usage["llm"] == {
        "requests": billed["llm_calls"],
        "input_tokens": billed["llm_input_tokens"],
        "cached_input_tokens": billed["cached"],
        "output_tokens": billed["llm_output_tokens"],
        "reasoning_output_tokens": billed["reasoning"],
    }
    assert usage["embedding"]["input_tokens"] == billed["embedding_tokens"]
    assert usage["total_tokens"] == sum(
        billed[name] for name in ("llm_input_tokens", "llm_output_tokens", "embedding_tokens")
    )
    # gpt-4o-mini: 0.15 / 0.075 / 0.60 USD a million; text-embedding-3-small: 0.02
    fresh = billed["llm_input_tokens"] - billed["cached"]
    micro = fresh * 0.15 + billed["cached"] * 0.075 + billed["llm_output_tokens"] * 0.6
    assert usage["estimated_cost_usd"] == pytest.approx((micro + billed["embedding_tokens"] * 0.02) / 1e6, abs=1e-8)


async def an_operators_polling(provider: LightRAGProvider, rag: LightRAG) -> None:
    """It begins right after the upload's answer, when LightRAG has noted nothing yet, and must not end at once."""
    text = document("docalpha2mark", 8)
    for name, word in (("alpha2.txt", "docalpha2mark"), ("alpha3.txt", "docalpha3mark")):
        uploaded = await rag.upload(document(word, 8), name)
        status = (await rag.client.get(f"/documents/track_status/{uploaded['track_id']}")).json()
        assert status["status_summary"]["pending"] + status["status_summary"]["processing"] >= 1
        billed = sums(provider, word)
        found = await billing_data(uploaded["track_id"], "alpha", str(rag.client.base_url))
        billed, chunks = sums(provider, word), found.pop("total_chunks")
        assert found == {name: billed[name] for name in found}
        assert found["embedding_tokens"] > 0
        assert chunks > 1
    # The same again is refused, in the background: what has ended is no longer pending, whatever came of it.
    again = await rag.client.post("/documents/text", json={"text": text, "file_source": "alpha2-again.txt"})
    if again.status_code == 200 and again.json()["track_id"]:
        found = await billing_data(again.json()["track_id"], "alpha", str(rag.client.base_url))
        assert found == dict.fromkeys(found, 0)
    listed = (await rag.client.post("/documents/paginated", json={})).json()["documents"]
    used = {each["file_path"]: each["metadata"]["token_usage"] for each in listed if each["status"] == "processed"}
    assert used["alpha2.txt"] == {
        **token_usage(sums(provider, "docalpha2mark")),
        "total_chunks": used["alpha2.txt"]["total_chunks"],
    }
    every = await rag.client.get("/documents")
    if rag.version == venvs.OLDEST:  # later ones have it no more
        groups = every.json()["statuses"]
        rows = [each for name, group in groups.items() if "processed" in name.lower() for each in group]
        assert {each["file_path"]: each["metadata"]["token_usage"] for each in rows} == used


async def what_only_looks_like_context_only(provider: LightRAGProvider, rag: LightRAG) -> None:
    """What LightRAG did decides, not what the body seems to say: an answer that was generated is billed."""
    bodies: list[dict[str, Any]] = [
        {"only_need_context": "false"},
        {"only_need_context": "no", "only_need_prompt": "off"},
        {"only_need_prompt": "0"},
        {"only_need_context": True, "mode": "bypass"},
        {"only_need_prompt": "yes", "mode": "bypass"},
    ]
    for number, body in enumerate(bodies, start=60):
        answer = await rag.query(f"What about qryalpha{number}mark ?", **{"mode": "naive", **body})
        assert answer["response"].startswith("Answer to")
        assert answer["token_usage"] == token_usage(sums(provider, f"qryalpha{number}mark"))
        assert answer["token_usage"]["llm_input_tokens"] > 0
    bodies = [{"only_need_context": "yes"}, {"only_need_prompt": 1}]
    for number, body in enumerate(bodies, start=70):
        answer = await rag.query(f"What about qryalpha{number}mark ?", **{"mode": "local", **body})
        billed = sums(provider, f"qryalpha{number}mark")
        assert [bill.kind for bill in provider.bills if bill.mark == f"qryalpha{number}mark"] == [
            "keywords",
            "embedding",
        ]
        assert (answer["token_usage"]["llm_model"], answer["token_usage"]["llm_input_tokens"]) == (None, 0)
        assert answer["token_usage"]["embedding_tokens"] == billed["embedding_tokens"] > 0


async def failed_queries(provider: LightRAGProvider, rag: LightRAG) -> None:
    """What was used until it failed is in the answer, whatever its status."""
    for number, path in enumerate(("/query", "/query/stream"), start=80):
        body = {"query": f"What is {UNSPEAKABLE} about qryalpha{number}mark ?", "mode": "mix", "enable_rerank": False}
        response = await rag.client.post(path, json={**body, "stream": path.endswith("stream")})
        billed = sums(provider, f"qryalpha{number}mark")
        told = json.loads(response.text.splitlines()[-1])
        assert billed["llm_input_tokens"] > 0
        assert told["token_usage"] == token_usage(billed), response.text
        assert told["usage"]["errors"] >= 1
        assert told["metrics"]["call_count"] == billed["llm_calls"] == 1  # the failed ones are apart
        assert told["usage"]["llm"]["input_tokens"] == billed["llm_input_tokens"]


async def cached_query(provider: LightRAGProvider, rag: LightRAG) -> None:
    before = sums(provider, "qryalpha1mark")
    answer = await rag.query("What about qryalpha1mark ?")
    used = sums(provider, "qryalpha1mark")
    used.subtract(before)
    assert used["llm_calls"] == 0
    assert answer["token_usage"] == token_usage(used)
    assert answer["token_usage"]["llm_model"] is None
    check_metrics(answer["metrics"], used)


async def context_only(provider: LightRAGProvider, rag: LightRAG, node: Node) -> None:
    body = {"query": "Context of qryalpha3mark ?", "mode": "local", "only_need_context": True, "enable_rerank": False}
    response = await rag.client.post("/query", json=body)
    answer, billed = response.json(), sums(provider, "qryalpha3mark")
    assert [bill.kind for bill in provider.bills if bill.mark == "qryalpha3mark"] == ["keywords", "embedding"]
    assert answer["token_usage"] == {
        **token_usage(billed),
        "llm_model": None,
        "llm_input_tokens": 0,
        "llm_output_tokens": 0,
    }
    assert answer["token_usage"]["embedding_tokens"] > 0
    check_metrics(answer["metrics"], billed)
    track = await node.ask(f"/usage/tracks/{response.headers['x-track-id']}")
    assert track["token_usage"]["llm_input_tokens"] == billed["llm_input_tokens"] > 0

    answer = await rag.query("Naive context of qryalpha4mark ?", mode="naive", only_need_context=True)
    assert answer["token_usage"] == token_usage(sums(provider, "qryalpha4mark"))
    assert answer["metrics"]["call_count"] == 0


async def streamed_query(provider: LightRAGProvider, rag: LightRAG) -> None:
    body = {"query": "Stream qryalpha5mark !", "mode": "hybrid", "stream": True, "enable_rerank": False}
    response = await rag.client.post("/query/stream", json=body)
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert "references" in lines[0]
    assert "".join(line.get("response", "") for line in lines).startswith("Answer to qryalpha5mark")
    billed = sums(provider, "qryalpha5mark")
    assert lines[-1].keys() == {"usage", "token_usage", "metrics"}
    assert lines[-1]["token_usage"] == token_usage(billed)
    check_metrics(lines[-1]["metrics"], billed)


async def data_query(provider: LightRAGProvider, rag: LightRAG) -> None:
    body = {"query": "Data of qryalpha6mark ?", "mode": "mix", "enable_rerank": False}
    answer = (await rag.client.post("/query/data", json=body)).json()
    assert answer["status"] == "success"
    assert answer["data"]["chunks"]
    assert answer["metadata"]
    check_metrics(answer["metrics"], sums(provider, "qryalpha6mark"))


async def everything_else_is_lightrags_own(rag: LightRAG) -> None:
    assert (await rag.client.get("/health")).json()["status"] == "healthy"
    wrong = await rag.client.post("/query", json={"query": "", "mode": "no such mode"})
    assert wrong.status_code == 422
    assert "usage" not in wrong.json()
    unknown = (await rag.client.get("/documents/track_status/no_such_track")).json()
    assert unknown["documents"] == []


async def ollamas_dialect_is_a_query_too(provider: LightRAGProvider, rag: LightRAG, node: Node) -> None:
    """LightRAG pretends to be Ollama for chat front ends; those answers have no place for figures, but are billed."""
    message = {"role": "user", "content": "/naive What about qryalpha7mark ?"}
    response = await rag.client.post("/api/chat", json={"model": "lightrag", "messages": [message], "stream": False})
    assert response.json()["message"]["content"].startswith("Answer to qryalpha7mark")
    track = await node.ask(f"/usage/tracks/{response.headers['x-track-id']}?workspace=alpha")
    assert track["token_usage"] == token_usage(sums(provider, "qryalpha7mark"))


async def langfuse_lines(provider: LightRAGProvider, rag: LightRAG, track: str) -> None:
    billed = sums(provider, "docalpha1mark")
    expected = f"{track} used\nInput usage\n{billed['llm_input_tokens']}\ninput_cached_tokens\n{billed['cached']}\n"
    await happens(lambda: expected in rag.said(), "the lines for Langfuse")
    assert len(re.findall(r"query_[0-9a-f]{32} used\nInput usage", rag.said())) >= 4


@newest
async def test_a_document_without_words_costs_nothing(tmp_path: Path, site: Path) -> None:
    async with whole(tmp_path, site, venvs.NEWEST) as (provider, _node, rag):
        answer = await rag.client.post("/documents/upload", files={"file": ("empty.txt", b"   \n", "text/plain")})
        if answer.status_code == 200:
            status = await rag.until_ended(answer.json()["track_id"])
            assert [each["metadata"]["token_usage"] for each in status["documents"]] == [
                {**token_usage(Sums()), "total_chunks": 0}
            ]
        assert provider.bills == []


@newest
async def test_without_a_control_port_answers_come_with_null_figures(tmp_path: Path, site: Path) -> None:
    environ = {"TAXIMETER_URL": "http://127.0.0.1:9"}
    async with whole(tmp_path, site, venvs.NEWEST, environ=environ) as (_provider, _node, rag):
        uploaded = await rag.upload(document("docalpha1mark", 4), "alpha1.txt")
        status = await rag.until_ended(uploaded["track_id"])
        answer = await rag.query("What about qryalpha1mark ?")
        assert answer["response"].startswith("Answer to qryalpha1mark")
        assert (answer["usage"], answer["metrics"]) == (None, None)
        told = status["documents"][0]["metadata"]["token_usage"]
        assert {told.pop("total_chunks"), answer["unknown_because"], told.pop("unknown_because")} == {
            status["documents"][0]["chunks_count"],
            "http://127.0.0.1:9 does not answer: [Errno 111] Connection refused.",
        }
        assert told == answer["token_usage"] == dict.fromkeys(told)
        assert "does not answer" in rag.said()


@newest
async def test_a_workspace_is_opened_by_header_within_bounds(tmp_path: Path, site: Path) -> None:
    environ = {"TAXIMETER_WORKSPACES": "1", "LIGHTRAG_API_KEY": "secret"}
    async with whole(tmp_path, site, venvs.NEWEST, environ=environ) as (_provider, _node, rag):
        ask = {"query": "What about qrybeta1mark ?", "mode": "naive", "enable_rerank": False}

        async def status(workspace: str, key: str = "secret") -> int:
            headers = {"LIGHTRAG-WORKSPACE": workspace, "X-API-Key": key}
            return (await rag.client.post("/query", json=ask, headers=headers)).status_code

        assert await status("../etc") == 400
        assert await status("beta", key="wrong") == 403  # nobody opens a workspace without credentials
        assert [await status("beta") for _ in range(2)] == [200, 200]
        assert await status("gamma") == 503
        assert await status("alpha") == 200  # the server's own
        rag.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        assert await asyncio.to_thread(rag.process.wait, 20) in (0, -signal.SIGTERM)  # type: ignore[union-attr]
        assert "Traceback" not in rag.said()


@pytest.mark.parametrize(
    ("version", "command"),
    [
        pytest.param(version, tuple(command.split()), marks=pytest.mark.venv(version), id=f"{version} {command}")
        for version, command in (
            (venvs.NEWEST, "python -m lightrag.api.lightrag_server"),
            (venvs.NEWEST, "python -m taximeter_rag lightrag-server"),
            (venvs.NEWEST, "python -m taximeter_rag lightrag-gunicorn --workers 2"),
            (venvs.NEWEST, "lightrag-gunicorn --workers 2"),
            # Processed by its own word, and still embedding: a worker that is asked must hear it from the one at work.
            (venvs.OLDEST, "lightrag-gunicorn --workers 2"),
        )
    ],
)
async def test_every_way_to_start_it_is_metered(
    tmp_path: Path, site: Path, version: str, command: tuple[str, ...]
) -> None:
    async with whole(tmp_path, site, version, command=command) as (provider, _node, rag):
        names = ["alpha1", "alpha2", "alpha3"]
        uploads = await asyncio.gather(*(rag.upload(document(f"doc{name}mark", 6), f"{name}.txt") for name in names))
        where = str(rag.client.base_url)  # another worker may answer than the one that took the upload
        for name, uploaded in zip(names, uploads, strict=True):
            used = await billing_data(uploaded["track_id"], "alpha", where)
            assert used.pop("total_chunks") > 1
            assert used == {field: token_usage(sums(provider, f"doc{name}mark"))[field] for field in used}
        answer = await rag.query("What about qryalpha1mark ?")
        assert answer["token_usage"] == token_usage(sums(provider, "qryalpha1mark"))
        assert provider.mixed == []


@newest
async def test_ollama_and_rerankers_are_tagged_too(tmp_path: Path, site: Path) -> None:
    environ = {
        "LLM_BINDING": "ollama",
        "EMBEDDING_BINDING": "jina",
        "RERANK_BINDING": "cohere",
        "RERANK_MODEL": "rerank-v3.5",
        "RERANK_BINDING_API_KEY": "co-key",
        "LLM_BINDING_API_KEY": "",
        "EMBEDDING_MODEL": "jina-embeddings-v4",
    }
    async with whole(tmp_path, site, venvs.NEWEST, environ=environ) as (provider, _node, rag):
        uploaded = await rag.upload(document("docalpha1mark", 6), "alpha1.txt")
        status = await rag.until_ended(uploaded["track_id"])
        used = status["documents"][0]["metadata"]["token_usage"]
        billed = sums(provider, "docalpha1mark")
        assert used["llm_input_tokens"] == billed["llm_input_tokens"] > 0
        assert used["embedding_tokens"] == billed["embedding_tokens"] > 0
        assert used["embedding_model"] == "jina-embeddings-v4"
        answer = await rag.query("What about qryalpha1mark ?", mode="mix", enable_rerank=True)
        billed = sums(provider, "qryalpha1mark")
        assert billed["rerank_tokens"] > 0
        assert answer["usage"]["rerank"]["requests"] == 1
        body = {"query": "Stream qryalpha2mark !", "mode": "naive", "stream": True, "enable_rerank": False}
        streamed = (await rag.client.post("/query/stream", json=body)).text.splitlines()[-1]
        billed = sums(provider, "qryalpha2mark")  # its request is sent when the stream is read, and passed the proxy
        assert json.loads(streamed)["token_usage"]["llm_output_tokens"] == billed["llm_output_tokens"] > 0
        assert "unknown_because" not in json.loads(streamed)
        billed = sums(provider, "qryalpha1mark")
        assert answer["token_usage"]["llm_output_tokens"] == billed["llm_output_tokens"]
        assert answer["token_usage"]["embedding_tokens"] == billed["embedding_tokens"]


@newest
async def test_azure_and_jina_rerank_are_tagged_too(tmp_path: Path, site: Path) -> None:
    environ = {
        "LLM_BINDING": "azure_openai",
        "EMBEDDING_BINDING": "azure_openai",
        "AZURE_OPENAI_API_VERSION": "2024-08-01-preview",
        "RERANK_BINDING": "jina",
        "RERANK_MODEL": "jina-reranker-v2-base-multilingual",
        "RERANK_BINDING_API_KEY": "jina-key",
    }
    async with whole(tmp_path, site, venvs.NEWEST, environ=environ) as (provider, _node, rag):
        uploaded = await rag.upload(document("docalpha1mark", 6), "alpha1.txt")
        status = await rag.until_ended(uploaded["track_id"])
        used = status["documents"][0]["metadata"]["token_usage"]
        assert used["llm_input_tokens"] == sums(provider, "docalpha1mark")["llm_input_tokens"] > 0
        assert used["embedding_tokens"] == sums(provider, "docalpha1mark")["embedding_tokens"] > 0
        answer = await rag.query("What about qryalpha1mark ?", enable_rerank=True)
        assert answer["usage"]["rerank"] == {
            "requests": 1,
            "search_units": 0,
            "input_tokens": sums(provider, "qryalpha1mark")["rerank_tokens"],
        }


@newest
async def test_the_key_of_a_workspace_reads_its_own_figures_and_nobody_elses(tmp_path: Path, site: Path) -> None:
    keys = {"alpha": "tm-" + "a" * 64, "beta": "tm-" + "b" * 64}
    config = '[auth]\nmode = "keys"\n' + f'admin_token_sha256 = "{sha256(b"admin").hexdigest()}"\n'
    for workspace, key in keys.items():
        hashed = sha256(key.encode()).hexdigest()
        config += f'[[auth.keys]]\nid = "{workspace}"\nworkspace = "{workspace}"\nsha256 = "{hashed}"\n'
    async with LightRAGProvider() as provider, Node(tmp_path, provider, config=config) as node:
        async with LightRAG(tmp_path / "rag", node, site, environ={"TAXIMETER_TOKEN": keys["alpha"]}) as rag:
            body = {"query": "What about qryalpha1mark ?", "mode": "bypass", "enable_rerank": False}
            response = await rag.client.post("/query", json=body)
            assert response.json()["token_usage"] == token_usage(sums(provider, "qryalpha1mark"))
            track = response.headers["x-track-id"]
        async with httpx2.AsyncClient(base_url=node.control_url, timeout=HANG_S) as client:
            for workspace, found in (("alpha", 1), ("beta", 0)):
                headers = {"authorization": f"Bearer {keys[workspace]}"}
                answer = (await client.get(f"/usage/tracks/{track}", headers=headers)).json()
                assert answer["metrics"]["call_count"] == found
            other = await client.get("/usage?workspace=alpha", headers={"authorization": f"Bearer {keys['beta']}"})
            assert other.status_code == 404
