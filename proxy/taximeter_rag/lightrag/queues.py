"""Carries the scope across LightRAG's queues: up to 1.5.4 their workers keep the context they were started in.

What comes out of them is a model's call, so here it is watched too."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from taximeter_rag.lightrag.watch import ANSWERED, mark, watched
from taximeter_rag.tags import current, metered

SCOPE = "_taximeter_scope"
"""Keyword a queued call travels with; taken off before LightRAG's own function sees it."""
WATCHED = frozenset({"llm", "rerank"})
"""Groups of LightRAG's queues (`llm:query`, `rerank`); embeddings are watched where their batches are told apart."""
ANSWERING = "query"
"""The role that answers questions; others find their keywords and extract."""


def carrying(limit: Callable[..., Any]) -> Callable[..., Any]:
    """`priority_limit_async_func_call`, with the scope of each call handed through the queue."""

    @functools.wraps(limit)
    def factory(*args: Any, **options: Any) -> Callable[..., Any]:
        decorate = limit(*args, **options)
        kind, _, role = str(options.get("concurrency_group") or "").partition(":")

        def decorator(func: Callable[..., Any]) -> Callable[..., Any]:
            call = watched(func, kind) if kind in WATCHED else func

            async def inner(*args: Any, **options: Any) -> Any:
                with metered.within(options.pop(SCOPE, None)):
                    if role == ANSWERING:
                        mark(ANSWERED)
                    return await call(*args, **options)

            queued = decorate(_like(inner, func))

            async def outer(*args: Any, **options: Any) -> Any:
                return await queued(*args, **{SCOPE: current()}, **options)

            functools.update_wrapper(outer, queued)  # the queue's own attributes: shutdown, get_queue_stats …
            return _like(outer, func)

        return decorator

    return factory


def _like(wrapper: Callable[..., Any], func: Callable[..., Any]) -> Callable[..., Any]:
    """LightRAG looks at signatures to decide what it passes."""
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        if hasattr(func, name):
            setattr(wrapper, name, getattr(func, name))
    wrapper.__signature__ = inspect.signature(func)  # type: ignore[attr-defined]
    return wrapper
