"""LightRAG without its server, a LightRAG our hooks do not fit, and the billing webhook at the end of each track."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag import venvs
from rag.lightrag_house import EMBEDDING_MODEL, LLM_MODEL, LightRAG, Node, tiktoken_files
from rag.lightrag_provider import LightRAGProvider, Sums, document
from rag.test_clients import asyncio_run
from rag.test_lightrag_answers import check_metrics, newest, sums, token_usage
from rag.test_lightrag_truth import told, versions, whole
from upstream import Provider, response

HERE = Path(__file__).resolve().parent


def check_usage(usage: dict[str, Any], billed: Sums) -> None:
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["call_count"], usage["cached_tokens"]) == (
        billed["llm_input_tokens"],
        billed["llm_output_tokens"],
        billed["llm_calls"],
        billed["cached"],
    )
    assert usage["total_tokens"] == billed["llm_input_tokens"] + billed["llm_output_tokens"] > 0


async def run(tmp_path: Path, site: Path, node: Node, version: str, mode: str, *, models: str = "") -> dict[str, Any]:
    """What library_program.py was told, run in LightRAG's environment; its models are the proxy's, or at `models`."""
    environ = {
        "PYTHONPATH": str(site),
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "TIKTOKEN_CACHE_DIR": str(tiktoken_files(tmp_path / "tiktoken")),
        "TAXIMETER_PROXY_URL": node.url,
        "TAXIMETER_URL": node.control_url,
    }
    program = [str(venvs.python(version)), str(HERE / "library_program.py")]
    output = await asyncio_run([*program, str(tmp_path / "rag"), models or f"{node.url}/v1", mode], environ)
    found: dict[str, Any] = json.loads(next(line for line in output.splitlines() if line.startswith("TOLD "))[5:])
    return found


def told_as(*billed: Sums) -> dict[str, Any]:
    """What a tracker says of what these marks were billed for."""
    whole = Sums()
    for each in billed:
        whole.update(each)
    tokens = whole["llm_input_tokens"], whole["llm_output_tokens"]
    llm = {"model": LLM_MODEL if sum(tokens) else None, "input_tokens": tokens[0], "output_tokens": tokens[1]}
    return {
        "llm": {**llm, "total_tokens": sum(tokens), "call_count": whole["llm_calls"]},
        "embedding": {
            "model": EMBEDDING_MODEL if whole["embedding_tokens"] else None,
            "total_tokens": whole["embedding_tokens"],
        },
    }


def without_calls(step: dict[str, Any]) -> dict[str, Any]:
    embedding = {name: value for name, value in step["embedding"].items() if name != "call_count"}
    return {"llm": step["llm"], "embedding": embedding}


@versions
async def test_every_way_into_the_library_is_counted_once(tmp_path: Path, site: Path, version: str) -> None:
    async with LightRAGProvider() as provider, Node(tmp_path, provider) as node:
        steps = await run(tmp_path, site, node, version, "everything")
        marks = {
            "enqueue": (),
            "process": ("docpair1mark",),
            "process what another enqueued": ("docraw1mark",),
            "insert": ("docnamed1mark",),
            "insert again": ("docnamed2mark",),
            "custom kg": ("dockg1mark",),
            "query data": ("qrydata1mark",),
            "at once": ("docmine1mark",),
            "other": ("docother1mark",),
        }
        for step, billed in marks.items():
            assert without_calls(steps[step]) == told_as(*(sums(provider, mark) for mark in billed)), step
        assert list(steps["process"]["documents"].values()) == [token_usage(sums(provider, "docpair1mark"))]
        graph = [steps[name]["embedding"]["total_tokens"] for name in ("create entity", "edit entity", "finalize")]
        assert sum(graph) == sums(provider, "docgraph1mark")["embedding_tokens"] > 0
        assert graph[0] > 0
        everything = [step for step in steps.values() if isinstance(step, dict)]
        truth = provider.sums().values()
        for name, kind in (("llm_input_tokens", "llm"), ("embedding_tokens", "embedding")):
            field = "input_tokens" if kind == "llm" else "total_tokens"
            assert sum(step[kind][field] for step in everything) == sum(each[name] for each in truth)


@newest
async def test_the_forms_without_a_loop_are_counted_too(tmp_path: Path, site: Path) -> None:
    async with LightRAGProvider() as provider, Node(tmp_path, provider) as node:
        found = await run(tmp_path, site, node, venvs.NEWEST, "sync")
        assert found["answer"].startswith("Answer to qryalpha1mark")
        assert without_calls(found["insert"]) == told_as(sums(provider, "docalpha1mark"))
        assert without_calls(found["query"]) == told_as(sums(provider, "qryalpha1mark"))


@versions
@pytest.mark.parametrize("mode", ["wrapper", "manager", "late"])
async def test_as_a_library_it_reads_the_same_figures_back(tmp_path: Path, site: Path, version: str, mode: str) -> None:
    async with LightRAGProvider() as provider, Node(tmp_path, provider) as node:
        if mode == "late" and version == venvs.OLDEST:  # its queues would charge one operation for another
            with pytest.raises(AssertionError, match=r"taximeter_rag\.lightrag\.activate\(\) before it is made"):
                await run(tmp_path, site, node, version, mode)
            return
        found = await run(tmp_path, site, node, version, mode)
        billed = sums(provider, "docalpha1mark")
        check_usage(found["insert"], billed)
        assert list(found["documents"].values()) == [token_usage(billed)]
        check_usage(found["query"], sums(provider, "qryalpha1mark"))
        assert found["token_usage"] == token_usage(sums(provider, "qryalpha1mark"))
        assert found["answer"].startswith("Answer to qryalpha1mark")
        streamed = sums(provider, "qryalpha2mark")
        assert found["streamed"].startswith("Answer to qryalpha2mark")
        assert found["theirs"] == {
            "prompt_tokens": streamed["llm_input_tokens"],
            "completion_tokens": streamed["llm_output_tokens"],
            "total_tokens": streamed["llm_input_tokens"] + streamed["llm_output_tokens"],
            "call_count": streamed["llm_calls"],
        }
        assert found["untouched"] == "library"
        assert {key[0] for key in await told(node)} == {"library"}


@newest
async def test_calls_past_the_proxy_are_named_also_of_a_lightrag_made_before(tmp_path: Path, site: Path) -> None:
    async with LightRAGProvider() as provider, Node(tmp_path, provider) as node:
        direct = provider.provider.base_url
        usage = await run(tmp_path, site, node, venvs.NEWEST, "past", models=direct)
        host = direct.removesuffix("/v1")
        said = f"embedding calls went to {host}, llm calls went to {host}, past the proxy {node.url}"
        assert usage["unknown_because"] == said


@newest
async def test_a_lightrag_our_hooks_do_not_fit_says_so_and_works(tmp_path: Path, site: Path) -> None:
    command = ("python", str(HERE / "unfit_program.py"))
    async with whole(tmp_path, site, venvs.NEWEST, command=command) as (provider, node, rag):
        uploaded = await rag.upload(document("docalpha1mark", 6), "alpha1.txt")
        status = await rag.until_ended(uploaded["track_id"])
        assert status["documents"][0]["status"] == "processed"
        assert "token_usage" not in status["documents"][0]["metadata"]
        response = await rag.client.post(
            "/query", json={"query": "qryalpha1mark ?", "mode": "mix", "enable_rerank": False}
        )
        billed = {mark: Sums(+each) for mark, each in provider.sums().items()}
        assert response.json()["token_usage"] == token_usage(billed["qryalpha1mark"])
        assert await told(node) == {
            ("alpha", None, None): billed["docalpha1mark"],
            ("alpha", response.headers["x-track-id"], None): billed["qryalpha1mark"],
        }
        lines = [line for line in rag.said().splitlines() if "documents are not told apart" in line]
        assert len(lines) == 2  # the console's and the file's handler of LightRAG write to the same log here
        assert "LightRAG._upsert_doc_status_transition(doc_id, status, status_doc)" in lines[0]


@newest
async def test_without_settings_lightrag_is_as_it_was(tmp_path: Path, site: Path) -> None:
    async with LightRAGProvider() as provider, Node(tmp_path, provider) as node:
        environ = {"TAXIMETER_PROXY_URL": "", "LLM_BINDING_HOST": f"{node.url}/v1"}
        async with LightRAG(tmp_path / "rag", node, site, environ=environ) as rag:
            answer = await rag.query("What about qryalpha1mark ?", mode="bypass")
            assert answer["response"].startswith("Answer to qryalpha1mark")
            assert not answer.keys() & {"usage", "token_usage", "metrics"}
            assert "TAXIMETER_PROXY_URL is not set" in rag.said()


@newest
async def test_the_billing_backend_gets_one_segment_for_each_track_that_ended(tmp_path: Path, site: Path) -> None:
    async with Provider(handler=None) as backend, LightRAGProvider() as provider:
        for _ in range(10):
            backend.script(response(b"{}"))
        config = f'[webhook]\nurl = "{backend.url}"\nidle_s = 300\n'
        async with Node(tmp_path, provider, config=config) as node, LightRAG(tmp_path / "rag", node, site) as rag:
            batch = {"texts": [document(f"docalpha{n}mark", 6) for n in (1, 2)], "file_sources": ["a.txt", "b.txt"]}
            uploaded = (await rag.client.post("/documents/texts", json=batch)).json()
            await rag.until_ended(uploaded["track_id"])
            body = {"query": "qryalpha1mark ?", "mode": "mix", "enable_rerank": False}
            track = (await rag.client.post("/query", json=body)).headers["x-track-id"]
            await backend.until(lambda: sum(each.complete for each in backend.requests) >= 2)
            segments = {each.json()["track_id"]: each.json() for each in backend.requests}
            both = sums(provider, "docalpha1mark")
            both.update(sums(provider, "docalpha2mark"))
            assert segments.keys() == {uploaded["track_id"], track}
            assert len(backend.requests) == 2
            assert {each["segment"] for each in segments.values()} == {1}
            check_metrics(segments[uploaded["track_id"]]["metrics"], both)
            check_metrics(segments[track]["metrics"], sums(provider, "qryalpha1mark"))
