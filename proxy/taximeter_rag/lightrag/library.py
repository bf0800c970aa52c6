"""LightRAG as a library, without its server: the same tags, and the same figures read back.

tracked = TokenTrackingLightRAG(rag)
tracked.set_token_tracker(tracker)          # ours, or LightRAG's own
await tracked.ainsert("…")
print(tracker.get_usage())
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Mapping
from typing import Any

from taximeter_rag import usage
from taximeter_rag.lightrag.activate import activate
from taximeter_rag.lightrag.pipeline import instrument
from taximeter_rag.lightrag.plugin import INDEX, READ_WAIT_S, Plugin
from taximeter_rag.lightrag.settings import Settings
from taximeter_rag.middleware import new_track
from taximeter_rag.tags import Scope, metered, safe

QUERIES = ("aquery", "aquery_llm", "aquery_data")
INSERTS = ("ainsert", "ainsert_custom_kg", "apipeline_enqueue_documents", "apipeline_process_enqueue_documents")


class TokenTracker:
    """LightRAG's TokenTracker with every field of `metrics`; sums over all operations it was given to."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.model: str | None = None
        self._sums = dict.fromkeys(usage.COUNTS, 0)

    def add_usage(self, token_counts: Mapping[str, Any]) -> None:
        """Add one operation's `metrics`, or one call's counts as LightRAG's own functions report them."""
        self._sums["call_count"] += 0 if "call_count" in token_counts else 1
        for name in usage.COUNTS:
            self._sums[name] += token_counts.get(name) or 0
        if "total_tokens" not in token_counts:
            parts = ("prompt_tokens", "completion_tokens")
            self._sums["total_tokens"] += sum(token_counts.get(name) or 0 for name in parts)
        self.model = token_counts.get("model") or self.model

    def get_usage(self) -> dict[str, Any]:
        return {**self._sums, "model": self.model}


class TokenTrackingLightRAG:
    """A LightRAG whose operations are tracked; everything else of it is as it was.

    Activates the plugin when nothing has (settings from the environment, or `settings`): with LightRAG before 1.5.5
    do that (`taximeter_rag.lightrag.activate()`) before the LightRAG is made. Raises ValueError where no proxy is
    configured.
    """

    def __init__(self, rag: Any, token_tracker: Any = None, *, settings: Settings | None = None) -> None:
        plugin = activate(settings)
        if plugin is None:
            raise ValueError("TAXIMETER_PROXY_URL is not set: there is no proxy to count tokens.")
        instrument(rag)
        self.rag, self.token_tracker = rag, token_tracker
        self.last: dict[str, Any] | None = None
        """The last operation's figures, as the control port tells them."""
        self._plugin: Plugin = plugin

    def set_token_tracker(self, token_tracker: Any) -> None:
        self.token_tracker = token_tracker

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.rag, name)
        if name in QUERIES:
            return self._querying(method)
        return self._inserting(method) if name in INSERTS else method

    def _querying(self, method: Any) -> Any:
        @functools.wraps(method)
        async def query(*args: Any, **options: Any) -> Any:
            scope = self._plugin.query(self._plugin.workspace(self.rag), new_track("query"))
            with metered.within(scope):
                answer = await method(*args, **options)
            stream = _stream(answer)
            if stream is None:
                await self._read(scope)
                return answer
            watched = self._watched(stream, scope)
            if isinstance(answer, dict):
                answer["llm_response"]["response_iterator"] = watched
                return answer
            return watched

        return query

    async def _watched(self, stream: Any, scope: Scope) -> AsyncIterator[Any]:
        try:
            async for part in stream:
                yield part
        finally:
            await self._read(scope)

    def _inserting(self, method: Any) -> Any:
        @functools.wraps(method)
        async def insert(*args: Any, **options: Any) -> Any:
            workspace = self._plugin.workspace(self.rag)
            named = options.get("track_id")
            scope = Scope(workspace=workspace, track=safe(named) if named else new_track("insert"), task=INDEX)
            earlier = await self._plugin.reader.aread(scope) if named else None  # the track may have been used before
            with metered.within(scope):
                answer = await method(*args, **options)
            await self._read(scope, earlier)
            track = safe(answer) if isinstance(answer, str) and answer else scope.track
            if track != scope.track:  # LightRAG names its track itself, and answers it
                await self._read(Scope(workspace=workspace, track=track))
            return answer

        return insert

    async def _read(self, scope: Scope, earlier: Mapping[str, Any] | None = None) -> None:
        """Add up what an operation used: what its track has now, less what it had `earlier`."""
        calls = tuple(self._plugin.calls(scope.workspace, scope.track or "")) + tuple(scope.calls)
        self.last = await self._plugin.reader.atrack(
            scope.track or "", scope.workspace, after=calls, wait_s=READ_WAIT_S
        )
        before = earlier["metrics"] if earlier is not None else {}
        used = {name: self.last["metrics"][name] - before.get(name, 0) for name in usage.COUNTS}
        if self.token_tracker is not None and used["call_count"]:
            _add(self.token_tracker, {**used, "model": self.last["metrics"]["model"]})


def _add(tracker: Any, metrics: Mapping[str, Any]) -> None:
    tracker.add_usage(metrics)
    if not isinstance(tracker, TokenTracker):  # LightRAG's own counts one call each time it is told something
        tracker.call_count += metrics["call_count"] - 1


def _stream(answer: Any) -> Any:
    """The stream in an answer of aquery or aquery_llm; None where it came whole."""
    if isinstance(answer, dict):
        answer = (answer.get("llm_response") or {}).get("response_iterator")
    return answer if hasattr(answer, "__aiter__") else None


@contextlib.asynccontextmanager
async def track_lightrag_operations(
    rag: Any, token_tracker: Any = None, *, settings: Settings | None = None
) -> AsyncIterator[TokenTrackingLightRAG]:
    """`async with track_lightrag_operations(rag, tracker) as tracked:`"""
    yield TokenTrackingLightRAG(rag, token_tracker, settings=settings)
