"""Whether a model's call passed the proxy: what did not is not metered, and must not look like nothing used."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from taximeter_rag.clients import Passage, passage
from taximeter_rag.tags import current

ANSWERED = "answered"
"""Mark of a scope in which the model that answers questions was called."""
CONTEXT_ONLY = "context only"
"""Mark of a query that LightRAG took as one for its context, or its prompt, and no answer."""


def watched(func: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """A model's function (llm, embedding, rerank) that notes with its scope where its calls go past the proxy."""

    @functools.wraps(func)
    async def call(*args: Any, **options: Any) -> Any:
        here = Passage(kind)
        token = passage.set(here)
        try:
            answer = await func(*args, **options)
        except BaseException:
            if here.went:  # it was refused or cut off there; nobody knows what it used
                _went_past(here)
            raise
        finally:
            passage.reset(token)
        if hasattr(answer, "__aiter__") and not (here.met or here.went):
            scope = current()
            if scope is not None:
                scope.noticed.streams.append(here)  # its request may be sent when it is read
        else:
            _went_past(here)
        return answer

    return call


def _went_past(here: Passage) -> None:
    scope = current()
    if scope is not None and not here.met:
        scope.noticed.past[here.kind] = here.went


def mark(name: str) -> None:
    """Note something with the current scope."""
    scope = current()
    if scope is not None:
        scope.noticed.marks.add(name)
