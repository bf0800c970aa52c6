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
from taximeter_rag.lightrag.settings import Settings, is_workspace, may_be_strict, point, read
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
    [
        ("TAXIMETER_PROXY_URL", "proxy:8000"),
        ("TAXIMETER_PROXY_URL", "http://proxy:80800"),
        ("TAXIMETER_PROXY_URL", "http://[::1"),
        ("TAXIMETER_URL", "http://"),
        ("TAXIMETER_URL", "http://proxy:port"),
        ("TAXIMETER_WORKSPACES", "a,../b"),
        ("TAXIMETER_POINT", "sometimes"),
        ("TAXIMETER_STRICT", "maybe"),
    ],
)
def test_a_setting_that_cannot_be_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        read({name: value})


@pytest.mark.parametrize(("said", "ends"), [(None, False), ("0", False), ("off", False), ("1", True), ("maybe", True)])
def test_who_asked_for_strictness_is_told_of_any_mistake(said: str | None, ends: bool) -> None:
    assert may_be_strict({} if said is None else {"TAXIMETER_STRICT": said}) is ends


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


UPSTREAMS = {"openai": "https://api.openai.com/v1", "local": "http://ollama:11434/v1"}


@pytest.mark.parametrize(
    ("binding", "host", "pointed"),
    [
        ("openai", "https://api.openai.com/v1", "http://p:8000/u/openai/v1"),
        ("openai", "https://api.openai.com/v1/", "http://p:8000/u/openai/v1"),
        ("ollama", "http://ollama:11434", "http://p:8000/u/local"),
        ("openai", "https://elsewhere/v1", "https://elsewhere/v1"),
        ("openai", "http://p:8000/w/acme/v1", "http://p:8000/w/acme/v1"),
        ("bedrock", "https://api.openai.com/v1", "https://api.openai.com/v1"),
    ],
)
def test_a_named_host_is_pointed_at_the_upstream_that_it_is(binding: str, host: str, pointed: str) -> None:
    args = arguments(llm_binding=binding, llm_binding_host=host)
    settings = read({"TAXIMETER_PROXY_URL": "http://p:8000/u/x", "TAXIMETER_POINT": "always"})
    missed = point(args, settings, {"LLM_BINDING_HOST": host}, lambda: UPSTREAMS)
    assert args.llm_binding_host == pointed
    assert [(each.kind, each.host) for each in missed] == ([] if pointed.startswith("http://p") else [("llm", host)])


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
    assert [each.text for each in point(args, Settings("http://p:8000"), environ)] == [
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
    plain = answers.query_fields(FIGURES)
    assert plain == {"usage": {"requests": 2}, "token_usage": FIGURES["token_usage"], "metrics": {"call_count": 1}}
    unsure = answers.query_fields({**FIGURES, "complete": False, "estimated_cost_usd": 0.5}, context_only=True)
    assert unsure["usage"] == {"requests": 2, "estimated_cost_usd": 0.5, "complete": False}
    assert unsure["token_usage"] == {
        **FIGURES["token_usage"],
        "llm_model": None,
        "llm_input_tokens": 0,
        "llm_output_tokens": 0,
    }
    assert answers.query_fields(None, "the control port does not answer") == {
        "usage": None,
        "token_usage": dict.fromkeys(usage.TOKEN_USAGE),
        "metrics": None,
        "unknown_because": "the control port does not answer",
    }


def test_what_went_past_the_proxy_is_null_and_not_zero() -> None:
    figures = {
        **FIGURES,
        "estimated_cost_usd": 0.5,
        "usage": {"requests": 2, "errors": 0, "total_tokens": 10, "llm": {}, "embedding": {}, "rerank": {}},
    }
    why = answers.reason({"embedding": "https://api.openai.com", "rerank": ""}, "http://p:8000")
    assert why == (
        "embedding calls went to https://api.openai.com, rerank calls went to no proxy that was seen, "
        "past the proxy http://p:8000"
    )
    told = answers.query_fields(figures, why, past={"embedding": "https://api.openai.com"})
    assert told == {
        "usage": {
            **{"requests": None, "errors": 0, "total_tokens": None, "estimated_cost_usd": None, "complete": False},
            **{"llm": {}, "embedding": None, "rerank": {}},
        },
        "token_usage": {**FIGURES["token_usage"], "embedding_model": None, "embedding_tokens": None},
        "metrics": FIGURES["metrics"],
        "unknown_because": why,
    }
    told = answers.query_fields(figures, why, past={"llm": ""})
    assert told["metrics"] is None
    assert told["token_usage"] == {
        **FIGURES["token_usage"],
        **dict.fromkeys(("llm_model", "llm_input_tokens", "llm_output_tokens")),
    }


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
    bills = answers.Bills(figures, usages={"d1": {"usage": {"requests": 1}, "estimated_cost_usd": 0.5}})
    shown = answers.with_bills(answer, lambda _: bills)
    first, second, third = (each["metadata"] for each in shown["documents"])
    assert first == {
        "a": 1,
        "token_usage": {**FIGURES["token_usage"], "total_chunks": 4},
        "usage": {"requests": 1, "estimated_cost_usd": 0.5},
    }
    assert second == {"token_usage": {**usage.TOKEN_USAGE, "total_chunks": 0}}
    assert third == {}
    assert answers.summary(answer, accepted=True) == {
        "DocStatus.PROCESSED": 1,
        "pending": 0,
        "processing": 1,
        "processed": 1,
        "failed": 1,
    }
    assert not answers.all_ended(answer)


def test_a_documents_unknown_figures_are_null_and_say_why() -> None:
    document = {"id": "d1", "status": "processed", "chunks_count": 4, "metadata": {}}
    unknown = answers.Bills(None, "no answer").of(document)["token_usage"]
    assert unknown == {**dict.fromkeys(usage.TOKEN_USAGE), "total_chunks": 4, "unknown_because": "no answer"}
    never_seen = answers.Bills({**FIGURES, "documents": {}}).of(document)["token_usage"]
    assert (never_seen["llm_input_tokens"], never_seen["embedding_tokens"]) == (None, None)
    assert never_seen["unknown_because"] == answers.NOTHING_PASSED
    figures = {**FIGURES, "documents": {"d1": FIGURES["token_usage"]}}
    kept = answers.Bills(figures, proxy_url="http://p").of(
        {**document, "metadata": {answers.PAST: {"llm": "http://x"}}}
    )
    assert (kept["token_usage"]["llm_input_tokens"], kept["token_usage"]["embedding_tokens"]) == (None, 3)
    assert kept["token_usage"]["unknown_because"] == "llm calls went to http://x, past the proxy http://p"
    assert answers.PAST not in kept
    seen = answers.Bills(figures, past=lambda doc_id: {"embedding": doc_id}).of(document)["token_usage"]
    assert (seen["llm_input_tokens"], seen["embedding_tokens"]) == (5, None)
    without_words = answers.Bills({**FIGURES, "documents": {}}).of({**document, "chunks_count": 0})["token_usage"]
    assert without_words == {**usage.TOKEN_USAGE, "total_chunks": 0}


def test_an_upload_that_is_not_noted_yet_is_pending() -> None:
    assert answers.summary({"documents": []}, accepted=True)["pending"] == 1
    assert answers.summary({"documents": []}, accepted=False)["pending"] == 0
    ended = {"track_id": "scan_1", "documents": [{"status": "processed"}]}
    assert answers.summary(ended, accepted=True)["pending"] == 1  # a scan notes one document after the other
    assert answers.summary({**ended, "track_id": "upload_1"}, accepted=True)["pending"] == 0
    twin = {"status": "failed", "metadata": {"is_duplicate": True}}  # of a batch these are noted first
    assert answers.summary({"documents": [twin]}, accepted=True)["pending"] == 1
    assert answers.summary({"documents": [twin]}, accepted=False)["pending"] == 0
    assert answers.summary({"documents": [twin, {"status": "failed"}]}, accepted=True)["pending"] == 0
    assert answers.summary({"documents": [twin, {"status": "processing"}]}, accepted=True)["pending"] == 0


def test_lists_have_what_each_document_used_too() -> None:
    row = {"id": "d1", "status": "processed", "chunks_count": 4, "track_id": "t", "metadata": {}}
    bills = {"t": answers.Bills({**FIGURES, "documents": {"d1": FIGURES["token_usage"]}})}
    for answer in ({"documents": [row, {**row, "track_id": None}]}, {"statuses": {"processed": [row]}, "other": 1}):
        assert len(list(answers.listed(answer))) in (1, 2)
        told = answers.with_bills(answer, lambda each: bills.get(each["track_id"]))
        first = next(iter(answers.listed(told)))
        assert first["metadata"]["token_usage"]["llm_input_tokens"] == 5
        assert {name for name in told if name not in ("documents", "statuses")} == set(answer) - {
            "documents",
            "statuses",
        }


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
