"""The plugin's settings, where bindings are pointed, and what is added to answers: pure, LightRAG not needed."""

from __future__ import annotations

import asyncio
import inspect
from argparse import Namespace
from typing import Any

import pytest

from rag.lightrag_like import one_worker
from taximeter_rag import Scope, metered, usage
from taximeter_rag.lightrag import answers
from taximeter_rag.lightrag.queues import carrying
from taximeter_rag.lightrag.settings import Settings, is_workspace, point, read
from taximeter_rag.tags import current


def test_settings_come_from_the_environment() -> None:
    assert read({}) == Settings(proxy_url="")
    assert read({"OPENAI_BASE_URL": "http://p:8000/v1/"}).proxy_url == "http://p:8000"
    told = read(
        {
            "OPENAI_BASE_URL": "http://other/v1",
            "TAXIMETER_PROXY_URL": "http://p:8000/u/azure",
            "TAXIMETER_URL": "http://p:8001",
            "TAXIMETER_TOKEN": "tm-abc",
            "TAXIMETER_WORKSPACES": "acme, globex",
        }
    )
    assert told == Settings("http://p:8000/u/azure", "http://p:8001", "tm-abc", 2, frozenset({"acme", "globex"}))
    assert told.key == "tm-abc"
    assert read({"TAXIMETER_TOKEN": "admin"}).key == ""


@pytest.mark.parametrize(("said", "limit"), [("", 0), ("off", 0), ("0", 0), ("on", 16), ("7", 7), ("one", 1)])
def test_workspaces_are_off_a_number_or_names(said: str, limit: int) -> None:
    assert read({"TAXIMETER_WORKSPACES": said}).max_workspaces == limit


@pytest.mark.parametrize(
    ("name", "value"),
    [("TAXIMETER_PROXY_URL", "proxy:8000"), ("TAXIMETER_URL", "http://"), ("TAXIMETER_WORKSPACES", "a,../b")],
)
def test_a_setting_that_cannot_be_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        read({name: value})


def test_names_that_lightrag_would_rewrite_are_no_workspaces() -> None:
    assert is_workspace("user_abc123")
    assert not any(map(is_workspace, ("", "user-abc", "a/b", "ä", "x" * 129)))


def arguments(**named: Any) -> Namespace:
    default = {
        "llm_binding": "openai",
        "llm_binding_host": "https://api.openai.com/v1",
        "embedding_binding": "openai",
        "embedding_binding_host": "https://api.openai.com/v1",
        "rerank_binding": "null",
        "rerank_binding_host": None,
        "query_llm_binding": None,
        "query_llm_binding_host": None,
    }
    return Namespace(**{**default, **named})


@pytest.mark.parametrize(
    ("bindings", "hosts"),
    [
        (("openai", "openai", "null"), ("/v1", "/v1", None)),
        (("azure_openai", "azure_openai", "cohere"), ("", "", "/v2/rerank")),
        (("ollama", "jina", "jina"), ("", "/v1/embeddings", "/v1/rerank")),
        (("gemini", "gemini", "null"), ("", "", None)),
    ],
)
def test_bindings_are_pointed_at_the_proxy(bindings: tuple[str, ...], hosts: tuple[str | None, ...]) -> None:
    llm, embedding, rerank = bindings
    args = arguments(llm_binding=llm, embedding_binding=embedding, rerank_binding=rerank)
    assert point(args, Settings("http://p:8000"), {}) == []
    found = (args.llm_binding_host, args.embedding_binding_host, args.rerank_binding_host)
    assert found == tuple(None if path is None else f"http://p:8000{path}" for path in hosts)


def test_azures_embeddings_are_looked_for_in_the_environment() -> None:
    environ: dict[str, str] = {}
    point(arguments(embedding_binding="azure_openai"), Settings("http://p:8000"), environ)
    assert environ == {"AZURE_EMBEDDING_ENDPOINT": "http://p:8000"}


def test_a_host_that_was_named_stays_and_is_reported_where_it_is_no_proxy() -> None:
    environ = {"LLM_BINDING_HOST": "http://p:8000/w/acme/v1", "EMBEDDING_BINDING_HOST": "http://embed/v1"}
    args = arguments(
        llm_binding_host="http://p:8000/w/acme/v1",
        embedding_binding_host="http://embed/v1",
        query_llm_binding="bedrock",
    )
    assert point(args, Settings("http://p:8000"), environ) == [
        "embedding_binding=openai calls http://embed/v1, not http://p:8000: not metered",
        "query_llm_binding=bedrock calls its own host, not http://p:8000: not metered",
    ]
    assert args.llm_binding_host == "http://p:8000/w/acme/v1"


FIGURES: dict[str, Any] = {
    "complete": True,
    "estimated_cost_usd": None,
    "usage": {"requests": 2},
    "token_usage": {
        "llm_model": "m",
        "llm_input_tokens": 5,
        "llm_output_tokens": 2,
        "embedding_model": "e",
        "embedding_tokens": 3,
    },
    "metrics": {"call_count": 1},
    "documents": {},
}


def test_a_querys_fields_say_what_is_priced_unsure_or_unknown() -> None:
    plain = answers.query_fields(FIGURES, context_only=False)
    assert plain == {"usage": {"requests": 2}, "token_usage": FIGURES["token_usage"], "metrics": {"call_count": 1}}
    unsure = answers.query_fields({**FIGURES, "complete": False, "estimated_cost_usd": 0.5}, context_only=True)
    assert unsure["usage"] == {"requests": 2, "estimated_cost_usd": 0.5, "complete": False}
    assert unsure["token_usage"] == {
        **FIGURES["token_usage"],
        "llm_model": None,
        "llm_input_tokens": 0,
        "llm_output_tokens": 0,
    }
    assert answers.query_fields(None, context_only=False) == {"usage": None, "token_usage": None, "metrics": None}


def test_only_documents_that_have_ended_have_token_usage() -> None:
    answer = {
        "track_id": "t",
        "total_count": 3,
        "status_summary": {"DocStatus.PROCESSED": 1},
        "documents": [
            {"id": "d1", "status": "processed", "chunks_count": 4, "metadata": {"a": 1}},
            {"id": "d2", "status": "failed", "chunks_count": -1, "metadata": None},
            {"id": "d3", "status": "analyzing", "metadata": {}},
        ],
    }
    figures = {**FIGURES, "documents": {"d1": FIGURES["token_usage"]}}
    shown = answers.with_token_usage(answer, figures, lambda name: name)
    first, second, third = (each["metadata"] for each in shown["documents"])
    assert first == {"a": 1, "token_usage": {**FIGURES["token_usage"], "total_chunks": 4}}
    assert second == {"token_usage": {**usage.TOKEN_USAGE, "total_chunks": 0}}
    assert third == {}
    assert shown["status_summary"] == {
        "DocStatus.PROCESSED": 1,
        "pending": 0,
        "processing": 1,
        "processed": 1,
        "failed": 1,
    }
    assert not answers.all_ended(answer)
    assert answers.with_token_usage(answer, None, str)["documents"][0]["metadata"]["token_usage"] is None


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_left_alone(body: bytes) -> None:
    assert answers.parsed(body) is None


async def test_a_queued_call_runs_in_its_callers_scope_whatever_the_workers_is() -> None:
    workers: list[asyncio.Task[None]] = []

    async def model(prompt: str, max_token_size: int = 5) -> tuple[str, Scope | None]:
        return prompt, current()

    asked = carrying(one_worker(workers))()(model)
    assert list(inspect.signature(asked).parameters) == ["prompt", "max_token_size"]
    for name in ("first", "second"):
        with metered(track=name) as scope:
            assert await asked("hello") == ("hello", scope)
    workers[0].cancel()
