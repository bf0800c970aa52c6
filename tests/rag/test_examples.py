"""The examples run as they stand, and what they print is what the provider billed."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bench import processes
from rag import venvs
from rag.lightrag_house import Node
from rag.lightrag_provider import LightRAGProvider, document
from rag.test_clients import asyncio_run
from rag.test_lightrag_answers import newest, token_usage
from rag.test_lightrag_truth import whole
from taximeter_rag.usage import calculate_indexation_cost, langfuse
from waits import HANG_S

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def environ(node: Node, site: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": f"{site}:{EXAMPLES}",
        "OPENAI_BASE_URL": f"{node.url}/v1",
        "OPENAI_API_KEY": "sk-provider",
        "TAXIMETER_URL": node.control_url,
        "PATH": "/usr/bin:/bin",
        "HOME": str(node.folder),
        "HAYSTACK_TELEMETRY_ENABLED": "False",
    }


@pytest.mark.venv(venvs.EXAMPLES)
@pytest.mark.parametrize("name", ["langchain_rag", "llamaindex_rag", "haystack_rag"])
async def test_frameworks_are_billed_by_document_and_by_question(tmp_path: Path, site: Path, name: str) -> None:
    phrases = {"fare of a ride": "docalpha1mark", "built in 1891": "docalpha2mark", "When was it": "qryalpha1mark"}
    async with LightRAGProvider(phrases) as provider, Node(tmp_path, provider) as node:
        program = [str(venvs.python(venvs.EXAMPLES)), str(EXAMPLES / f"{name}.py")]
        printed = json.loads((await asyncio_run(program, environ(node, site))).splitlines()[-1])
        sums = provider.sums()
        assert provider.mixed == []
        assert printed["upload"]["documents"] == {
            "fares.txt": token_usage(sums["docalpha1mark"]),
            "history.txt": token_usage(sums["docalpha2mark"]),
        }
        assert sums["docalpha1mark"]["embedding_tokens"] > 0
        assert printed["query"]["token_usage"] == token_usage(sums["qryalpha1mark"])
        assert sums["qryalpha1mark"]["llm_calls"] == 1
        assert printed["answer"].startswith("Answer to qryalpha1mark")


@pytest.mark.venv(venvs.EXAMPLES)
async def test_an_endpoint_of_ones_own_says_what_each_answer_used(tmp_path: Path, site: Path) -> None:
    async with LightRAGProvider() as provider, Node(tmp_path, provider) as node:
        port, log = processes.free_port(), tmp_path / "uvicorn.log"
        argv = [str(venvs.python(venvs.EXAMPLES)), "-m", "uvicorn", "fastapi_app:app", "--port", str(port)]
        with log.open("wb") as out:
            process = subprocess.Popen(argv, env=environ(node, site), stdout=out, stderr=out)
        try:
            await asyncio.to_thread(processes.until_open, port, process)
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=HANG_S) as client:

                async def ask(number: int) -> tuple[int, dict[str, Any]]:
                    question = {"question": f"What is qryalpha{number}mark ?"}
                    answer = await client.get("/ask", params=question, headers={"X-User": f"user-{number % 2}"})
                    assert answer.headers["x-track-id"].startswith("request_")
                    return number, answer.json()

                for number, answer in await asyncio.gather(*(ask(number) for number in range(6))):
                    assert answer["token_usage"] == token_usage(provider.sums()[f"qryalpha{number}mark"])
            groups = (await node.ask("/usage?group_by=workspace"))["groups"]
            assert {each["workspace"]: each["usage"]["requests"] for each in groups} == {"user-0": 6, "user-1": 6}
        finally:
            await asyncio.to_thread(processes.stop, process)


@newest
async def test_an_operators_bill_is_the_price_list_times_what_was_used(tmp_path: Path, site: Path) -> None:
    async with whole(tmp_path, site, venvs.NEWEST) as (provider, node, rag):
        file = tmp_path / "handbook.txt"
        file.write_text(document("docalpha1mark", 8))
        program = [str(venvs.python(venvs.NEWEST)), str(EXAMPLES / "lightrag_billing.py"), str(file)]
        more = {"LIGHTRAG_URL": f"http://127.0.0.1:{rag.port}"}
        printed = json.loads(await asyncio_run(program, {**environ(node, site), **more}))
        billed = provider.sums()["docalpha1mark"]
        assert printed == {**printed, **token_usage(billed), "status": "processed"}
        expected = (
            billed["embedding_tokens"] * 0.0001
            + billed["llm_input_tokens"] * 0.0015
            + billed["llm_output_tokens"] * 0.002
        ) / 1000 + printed["total_chunks"] * 0.001
        assert printed["cost_usd"] == pytest.approx(expected)


def test_the_cost_example_of_the_documents() -> None:
    usage = {"embedding_tokens": 93, "llm_input_tokens": 7850, "llm_output_tokens": 462, "total_chunks": 1}
    pricing = {"rag_embedding": 0.0001, "rag_llm_input": 0.0015, "rag_llm_output": 0.002, "rag_indexation": 0.001}
    assert calculate_indexation_cost(usage, pricing) == 0.0137083  # 0.0000093 + 0.011775 + 0.000924 + 0.001
    assert calculate_indexation_cost(usage) == 0.0137083
    assert calculate_indexation_cost({**usage, "llm_input_tokens": 0}, {**pricing, "rag_embedding": 1}) == 0.094924
    assert calculate_indexation_cost({}) == 0.0


def test_metrics_as_langfuse_lists_them() -> None:
    shown = {
        "input_usage": 200, "input_cached_tokens": 50, "input": 150, "input_audio_tokens": 0, "output_usage": 150,
        "output_reasoning_tokens": 75, "output": 75, "output_accepted_prediction_tokens": 0, "output_audio_tokens": 0,
        "output_rejected_prediction_tokens": 0, "total_usage": 350,
    }  # fmt: skip
    assert " ".join(langfuse(shown).splitlines()) == (
        "Input usage 200 input_cached_tokens 50 input 150 input_audio_tokens 0 "
        "Output usage 150 output_reasoning_tokens 75 output 75 output_accepted_prediction_tokens 0 "
        "output_audio_tokens 0 output_rejected_prediction_tokens 0 Total usage 350"
    )
