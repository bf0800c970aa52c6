"""Hooks into LightRAG's pipeline and its instances, tested before they are set."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

from taximeter_rag.lightrag import accepted
from taximeter_rag.lightrag.answers import ENDED, PAST
from taximeter_rag.lightrag.embedding import own, split
from taximeter_rag.lightrag.plugin import Plugin, harmless
from taximeter_rag.lightrag.queues import carrying
from taximeter_rag.lightrag.watch import CONTEXT_ONLY, mark
from taximeter_rag.tags import Scope, enter, metered

QUEUE = "priority_limit_async_func_call"
QUEUE_MODULES = ("lightrag.utils", "lightrag.lightrag", "lightrag.llm_roles")
VECTOR_STORAGES = ("chunks_vdb", "entities_vdb", "relationships_vdb")
RUN = "apipeline_process_enqueue_documents"
STARTS = frozenset({"parsing", "analyzing"})
INSTRUMENTED = "_taximeter_rag"
"""Attribute of a LightRAG whose embeddings and storages are hooked."""


def attach(plugin: Plugin, made: Callable[[Any], None]) -> list[str]:
    """Hook LightRAG's classes; `made` is told of each new LightRAG. Answers what it lacks for them, if anything."""
    import lightrag

    kind = lightrag.LightRAG
    misfits = _misfits(kind)
    _hook_instances(kind, made)
    _hook_queries(kind)
    accepted.hook_background()
    for name in QUEUE_MODULES:
        if hasattr(module := sys.modules.get(name), QUEUE):
            setattr(module, QUEUE, carrying(getattr(module, QUEUE)))
    if misfits:
        return misfits
    kind.process_single_document = _processing(kind.process_single_document, plugin)
    kind._upsert_doc_status_transition = _transition(kind._upsert_doc_status_transition, plugin)
    if inspect.iscoroutinefunction(getattr(kind, RUN, None)):
        setattr(kind, RUN, _running(getattr(kind, RUN), plugin))
    plugin.by_document = True
    return []


def _misfits(kind: Any) -> list[str]:
    found = []
    for name, wanted in (
        ("process_single_document", {"doc_id", "status_doc"}),
        ("_upsert_doc_status_transition", {"doc_id", "status", "status_doc"}),
    ):
        method = getattr(kind, name, None)
        if not inspect.iscoroutinefunction(method) or not wanted <= set(inspect.signature(method).parameters):
            found.append(f"LightRAG.{name}({', '.join(sorted(wanted))})")
    found += [f"{module}.{QUEUE}" for module in QUEUE_MODULES if not hasattr(sys.modules.get(module), QUEUE)]
    return found


def _hook_queries(kind: Any) -> None:
    """What LightRAG makes of `only_need_context` is told by what it asks itself; a caller may write it in many ways."""
    original = getattr(kind, "aquery_llm", None)
    if not inspect.iscoroutinefunction(original) or "param" not in inspect.signature(original).parameters:
        return  # such queries then show what they used, like all others
    signature = inspect.signature(original)

    @functools.wraps(original)
    async def aquery_llm(self: Any, *args: Any, **options: Any) -> Any:
        with harmless("a query for its context shows what its keywords used"):
            param = signature.bind(self, *args, **options).arguments.get("param")
            if getattr(param, "only_need_context", False) or getattr(param, "only_need_prompt", False):
                mark(CONTEXT_ONLY)
        return await original(self, *args, **options)

    kind.aquery_llm = aquery_llm


def _hook_instances(kind: Any, made: Callable[[Any], None]) -> None:
    original = kind.__post_init__

    @functools.wraps(original)
    def post_init(self: Any, *args: Any, **options: Any) -> None:
        with harmless("embeddings are not told apart by document"):
            if self.embedding_func is not None:
                given = self.embedding_func
                self.embedding_func = dataclasses.replace(given, func=split(given.func))
        original(self, *args, **options)
        with harmless("embeddings are not told apart by document"):
            _hook_storages(self)
            made(self)

    kind.__post_init__ = post_init


def instrument(rag: Any) -> None:
    """Hook a LightRAG that was made before the plugin. Raises ValueError where its queues would mix up their owners."""
    if not getattr(rag, INSTRUMENTED, False):
        if not hasattr(sys.modules[QUEUE_MODULES[0]], "contextvars"):  # from 1.5.5 on they keep each call's context
            raise ValueError(
                "This LightRAG was made before taximeter-rag was active, and its version cannot be hooked later: call "
                "taximeter_rag.lightrag.activate() before it is made."
            )
        with harmless("LLM calls that do not pass the proxy are not noticed"):
            rag._rebuild_role_llm_funcs()  # its queues again, now with ours around them
        rag.embedding_func.func = split(rag.embedding_func.func)  # its storages hold the same object
        _hook_storages(rag)


def _hook_storages(rag: Any) -> None:
    for name in VECTOR_STORAGES:
        own(getattr(rag, name))
    setattr(rag, INSTRUMENTED, True)


def _processing(original: Any, plugin: Plugin) -> Any:
    """Chunking, extraction, merging and flushing of one document are that document's."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    async def process_single_document(self: Any, *args: Any, **options: Any) -> Any:
        scope = track = None
        with harmless("a document is not told apart"):
            named = signature.bind(self, *args, **options).arguments
            scope = plugin.document(self, named["doc_id"], named["status_doc"])
            track = getattr(named["status_doc"], "track_id", None)
        if scope is None:
            return await original(self, *args, **options)
        await plugin.begun(scope)
        try:
            with metered.within(scope):
                return await original(self, *args, **options)
        finally:
            await plugin.done(scope)
            plugin.document_ended(self, scope, track)

    return process_single_document


def _running(original: Any, plugin: Plugin) -> Any:
    @functools.wraps(original)
    async def run(self: Any, *args: Any, **options: Any) -> Any:
        async with plugin.running(self):
            return await original(self, *args, **options)

    return run


def _transition(original: Any, plugin: Plugin) -> Any:
    """Parse and analyze workers take one document after the other: they say so by setting its status."""
    signature = inspect.signature(original)
    keeps = "metadata_extra" in signature.parameters

    @functools.wraps(original)
    async def upsert_doc_status_transition(self: Any, *args: Any, **options: Any) -> Any:
        scope: Scope | None = None
        state = track = ""
        with harmless("a document is not told apart"):
            named = signature.bind(self, *args, **options).arguments
            state = str(getattr(named["status"], "value", named["status"])).lower()
            track = getattr(named["status_doc"], "track_id", None) or ""
            scope = plugin.document(self, named["doc_id"], named["status_doc"])
            if keeps and state in ENDED and (past := plugin.past(scope)):
                # With the document, so that every process tells it, also after a restart with other settings.
                options["metadata_extra"] = {**(named.get("metadata_extra") or {}), PAST: past}
        if scope is not None and state in STARTS:
            enter(scope)
        result = await original(self, *args, **options)
        if scope is not None and state == "failed":
            plugin.document_ended(self, scope, track or None)
        return result

    return upsert_doc_status_transition
