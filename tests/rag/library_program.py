"""A program that uses LightRAG as a library, run in LightRAG's environment; prints what it was told, as JSON.

python library_program.py FOLDER OPENAI_BASE_URL MODE      MODE: wrapper | manager | late
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
    told["insert"], told["documents"] = tracker.get_usage(), tracked.last["documents"]
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


async def main() -> None:
    if MODE != "late":
        activate()
    rag = await made()
    if MODE == "manager":
        async with track_lightrag_operations(rag) as tracked:
            told = await use(tracked)
    else:
        told = await use(TokenTrackingLightRAG(rag))
    await rag.finalize_storages()
    print("TOLD " + json.dumps(told))


asyncio.run(main())
