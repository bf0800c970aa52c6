"""A program that uses LightRAG as a library, run in LightRAG's environment; prints what it was told, as JSON.

python library_program.py FOLDER OPENAI_BASE_URL MODE      MODE: wrapper | manager | late | past | everything | sync
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from typing import Any

from lightrag import LightRAG, QueryParam
from lightrag.llm.openai import openai_complete_if_cache, openai_embed
from lightrag.utils import EmbeddingFunc
from lightrag.utils import TokenTracker as TheirTracker

from taximeter_rag.lightrag import TokenTracker, TokenTrackingLightRAG, activate, track_lightrag_operations

FOLDER, BASE_URL, MODE = sys.argv[1:4]


def text(mark: str, parts: int) -> str:
    return "\n".join(f"The machine {mark} has part {number} which turns {mark} every day." for number in range(parts))


async def made() -> Any:
    async def complete(
        prompt: str, system_prompt: str | None = None, history_messages: Any = (), **options: Any
    ) -> Any:
        return await openai_complete_if_cache(
            "gpt-4o-mini", prompt, system_prompt, list(history_messages), base_url=BASE_URL, api_key="sk", **options
        )

    embed = partial(openai_embed.func, model="text-embedding-3-small", base_url=BASE_URL, api_key="sk")
    rag = LightRAG(
        working_dir=FOLDER,
        workspace="library",
        llm_model_func=complete,
        llm_model_name="gpt-4o-mini",
        embedding_func=EmbeddingFunc(embedding_dim=16, max_token_size=8192, func=embed),
        chunk_token_size=90,
        chunk_overlap_token_size=10,
    )
    await rag.initialize_storages()
    return rag


async def use(tracked: Any) -> dict[str, Any]:
    told: dict[str, Any] = {}
    tracked.set_token_tracker(tracker := TokenTracker())
    told["track"] = await tracked.ainsert(text("docalpha1mark", 12), file_paths=["one.txt"])
    told["insert"], told["documents"] = tracker.get_usage(), (tracked.last or {})["documents"]
    tracked.set_token_tracker(tracker := TokenTracker())
    told["answer"] = await tracked.aquery("What about qryalpha1mark ?", QueryParam(mode="mix", enable_rerank=False))
    told["query"], told["token_usage"] = tracker.get_usage(), tracked.last["token_usage"]
    tracked.set_token_tracker(tracker := TheirTracker())
    found = await tracked.aquery_llm(
        "What about qryalpha2mark ?", QueryParam(mode="naive", stream=True, enable_rerank=False)
    )
    told["streamed"] = "".join([part async for part in found["llm_response"]["response_iterator"]])
    told["theirs"] = tracker.get_usage()
    told["untouched"] = tracked.workspace
    return told


async def use_everything(rag: Any) -> dict[str, Any]:
    """Every public entry point that calls a model, and two wrappers at once; what each step told the tracker."""
    steps: dict[str, Any] = {}
    tracked, other = TokenTrackingLightRAG(rag), TokenTrackingLightRAG(rag)
    tracked.set_token_tracker(tracker := TokenTracker())
    other.set_token_tracker(others := TokenTracker())

    async def step(name: str, work: Any) -> Any:
        tracker.reset()
        try:
            answer = await work
        except Exception as error:
            answer = repr(error)
        steps[name] = {"llm": tracker.get_llm_usage(), "embedding": tracker.get_embedding_usage()}
        return answer

    track = await step("enqueue", tracked.apipeline_enqueue_documents(text("docpair1mark", 9), file_paths=["pair.txt"]))
    await step("process", tracked.apipeline_process_enqueue_documents())
    steps["process"]["documents"] = (tracked.last or {})["documents"]
    raw = await rag.apipeline_enqueue_documents(text("docraw1mark", 9), file_paths=["raw.txt"])
    await step("process what another enqueued", tracked.apipeline_process_enqueue_documents())
    await step("insert", tracked.ainsert(text("docnamed1mark", 5), file_paths=["one.txt"], track_id=track))
    await step("insert again", tracked.ainsert(text("docnamed2mark", 5), file_paths=["two.txt"], track_id=raw))
    kg = {
        "chunks": [{"content": text("dockg1mark", 2), "source_id": "s"}],
        "entities": [
            {"entity_name": "dockg1mark A", "entity_type": "x", "description": "dockg1mark", "source_id": "s"}
        ],
        "relationships": [],
    }
    await step("custom kg", tracked.ainsert_custom_kg(kg))
    entity = {"description": "docgraph1mark is new", "entity_type": "x"}
    await step("create entity", tracked.acreate_entity("docgraph1mark B", entity))
    await step("edit entity", tracked.aedit_entity("docgraph1mark B", {"description": "docgraph1mark is changed"}))
    await step(
        "query data", tracked.aquery_data("What about qrydata1mark ?", QueryParam(mode="mix", enable_rerank=False))
    )
    both = await asyncio.gather(
        other.ainsert(text("docother1mark", 12), file_paths=["other.txt"]),
        step("at once", tracked.ainsert(text("docmine1mark", 7), file_paths=["mine.txt"])),
    )
    steps["both"] = both
    steps["other"] = {"llm": others.get_llm_usage(), "embedding": others.get_embedding_usage()}
    await step("finalize", tracked.finalize_storages())
    return steps


def use_sync() -> dict[str, Any]:
    """The forms for programs without a loop."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    rag = loop.run_until_complete(made())
    tracked = TokenTrackingLightRAG(rag)
    tracked.set_token_tracker(tracker := TokenTracker())
    tracked.insert(text("docalpha1mark", 9), file_paths=["one.txt"])
    told = {"insert": {"llm": tracker.get_llm_usage(), "embedding": tracker.get_embedding_usage()}}
    tracker.reset()
    told["answer"] = tracked.query("What about qryalpha1mark ?", QueryParam(mode="mix", enable_rerank=False))
    told["query"] = {"llm": tracker.get_llm_usage(), "embedding": tracker.get_embedding_usage()}
    loop.run_until_complete(rag.finalize_storages())
    return told


async def main() -> None:
    if MODE not in ("late", "past"):
        activate()
    rag = await made()
    if MODE == "past":
        tracked = TokenTrackingLightRAG(rag, tracker := TokenTracker())
        await tracked.ainsert(text("docalpha1mark", 3), file_paths=["one.txt"])
        print("TOLD " + json.dumps(tracker.get_usage()))
        return
    if MODE == "everything":
        print("TOLD " + json.dumps(await use_everything(rag)))
        return
    if MODE == "manager":
        async with track_lightrag_operations(rag) as tracked:
            told = await use(tracked)
    else:
        told = await use(TokenTrackingLightRAG(rag))
    await rag.finalize_storages()
    print("TOLD " + json.dumps(told))


if MODE == "sync":
    activate()
    print("TOLD " + json.dumps(use_sync()))
else:
    asyncio.run(main())
